"""Do one background run as a server does it, also in a process of its own, which may be killed."""

from __future__ import annotations

import sys
from typing import Any, Literal

from backend.run_queue import Run
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


def do_run(services: Services, kind: Kind) -> Run:
    """Ask for a run over project 7, and do it; the value is what became of it."""
    if kind == "agreement":
        services.agreement_runs.request(7)
        assert services.agreement_runs.run_next()
        run: Run | None = services.agreement_runs.get(7)
    else:
        services.review_runs.request(7)
        with services.engine:
            assert services.review_runs.run_next()
        run = services.review_runs.get(7)
    assert run is not None
    return run


if __name__ == "__main__":
    _, database, studio, asked = sys.argv
    print(do_run(make_services(database, studio), asked))  # type: ignore[arg-type]
