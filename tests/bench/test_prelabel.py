"""A bulk run on the real Label Studio, killed ten times at random moments."""

from __future__ import annotations

from pathlib import Path

from backend.cli.demo_servers import LabelStudioProcess
from tests.bench.conftest import Report
from tests.e2e.conftest import demo_run, studio, studio_command
from tests.e2e.test_prelabel import (
    MakeProject,
    kill_and_go_on,
    make_project,
    predictions,
)

__all__ = ["demo_run", "make_project", "studio", "studio_command"]  # fixtures

TASKS, KILLS = 240, 10


def test_killed_at_random_moments(
    report: Report, studio: LabelStudioProcess, make_project: MakeProject, tmp_path: Path
) -> None:
    project = make_project(studio, TASKS)
    left = kill_and_go_on(studio, project, TASKS, KILLS, tmp_path)
    stored = predictions(studio, project)
    report.add(
        f"tasks without their one prediction, after {KILLS} kills of a bulk run of {TASKS}",
        "0",
        str(TASKS - sum(count == 1 for count in stored.values())),
        f"missing after each kill: {', '.join(map(str, left))}",
    )
