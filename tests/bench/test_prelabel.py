"""A bulk run on the real Label Studio, killed ten times at random moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.bench.conftest import Report
from tests.e2e.conftest import demo_run, studio_command
from tests.e2e.test_prelabel import (
    OwnLabelStudio,
    kill_and_go_on,
    make_project,
    own_studio,
    predictions,
)

__all__ = ["demo_run", "make_project", "own_studio", "studio_command"]  # fixtures

TASKS, KILLS = 240, 10


def test_killed_at_random_moments(
    report: Report, own_studio: OwnLabelStudio, make_project: Callable[[int], int], tmp_path: Path
) -> None:
    project = make_project(TASKS)
    left = kill_and_go_on(own_studio.studio, project, TASKS, KILLS, tmp_path)
    stored = predictions(own_studio.studio, project)
    report.add(
        f"tasks without their one prediction, after {KILLS} kills of a bulk run of {TASKS}",
        "0",
        str(TASKS - sum(count == 1 for count in stored.values())),
        f"missing after each kill: {', '.join(map(str, left))}",
    )
