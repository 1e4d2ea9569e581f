"""Do one background run as a server does it, also in a process of its own, which may be killed."""

from __future__ import annotations

import sys
from typing import Any, Literal

from backend.database.database import METADATA, Database
from backend.run_queue import Run
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run import AskedNothing
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN

Kind = Literal["agreement", "review"]


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


def end_leases(database: Database) -> None:
    """Let the leases of a process that has died be over, as after half a minute."""
    with database.write() as connection:
        connection.execute(METADATA.tables["runs"].update().values(leased_until=0.0))


def do_run(services: Services, kind: Kind) -> Run:
    """Ask for a run over project 7, and do it; the value is what became of it."""
    if kind == "agreement":
        services.agreement_runs.request(7)
        assert services.agreement_runs.run_next()
        run: Run | None = services.agreement_runs.get(7)
    else:
        services.runs.request(LABEL_ERRORS, 7, AskedNothing())
        end_leases(services.database)
        with services.engine:
            assert services.worker(services.predictor())._rounds["label-errors"]()
        made = services.runs.runs(LABEL_ERRORS, 7)[0]
        run = Run(state=made.state, reason=made.reason)
    assert run is not None
    return run


if __name__ == "__main__":
    _, database, studio, asked = sys.argv
    print(do_run(make_services(database, studio), asked))  # type: ignore[arg-type]
