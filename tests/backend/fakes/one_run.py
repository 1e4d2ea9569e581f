"""Do one background run as a server does it, also in a process of its own, which may be killed."""

import sys
from typing import Any

from backend.runs.agreement import AGREEMENT
from backend.runs.run_store import AskedNothing, Run, RunKind
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.label_studio import TOKEN


def make_services(database_url: str, studio_url: str) -> Services:
    options: dict[str, Any] = {"database_url": database_url, "label_studio_url": studio_url}
    options |= {"label_studio_api_key": TOKEN, "short_side_px": 64}
    return Services(Settings(model="demo", device="cpu", precision="fp32", **options))


def do_run(services: Services, kind: RunKind[Any, Any]) -> Run:
    """Ask for a run over project 7, and do it; the value is what became of it."""
    run = services.runs.request(kind, 7, AskedNothing())
    end_leases(services.database, table="runs")
    with services.engine:
        assert services.worker(services.predictor())._rounds["runs"]()
    return services.runs.get(kind, 7, run.id)


if __name__ == "__main__":
    _, database, studio = sys.argv
    print(do_run(make_services(database, studio), AGREEMENT))
