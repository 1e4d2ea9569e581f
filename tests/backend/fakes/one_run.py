"""Do one background run as a server does it, also in a process of its own, which may be killed."""

from __future__ import annotations

import sys
from typing import Any, Literal

from backend.runs.kinds import KINDS
from backend.runs.run import AskedNothing, Run
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.fakes.leases import end_leases

Kind = Literal["agreement", "label-errors"]


def make_services(database_url: str, studio_url: str) -> Services:
    """The parts of a server with the demo model."""
    options: dict[str, Any] = {"database_url": database_url, "label_studio_api_key": TOKEN}
    return Services(
        Settings(
            model="demo",
            device="cpu",
            precision="fp32",
            short_side_px=64,
            label_studio_url=studio_url,
            **options,
        )
    )


def do_run(services: Services, name: Kind) -> Run:
    """Ask for a run over project 7, and do it; the value is what became of it."""
    (kind,) = (each for each in KINDS if each.name == name)
    run = services.runs.request(kind, 7, AskedNothing())
    end_leases(services.database, table="runs")
    with services.engine:
        assert services.worker(services.predictor())._rounds[name]()
    return services.runs.get(kind, 7, run.id)


if __name__ == "__main__":
    _, database, studio, asked = sys.argv
    print(do_run(make_services(database, studio), asked))  # type: ignore[arg-type]
