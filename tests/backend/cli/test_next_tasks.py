"""`clearclip-backend next-tasks` as a person uses it, on drives in a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from backend.cli.main import main
from backend.database.database import Database
from backend.settings import Settings
from backend.task_order.next_tasks_store import NextTasksStore
from tests.backend.fakes.label_studio import TOKEN
from tests.backend.fakes.task_ids import task_ids_of
from tests.backend.task_order.drives import SEEDS, drive_of, drive_studio
from tests.backend.wording.scene_project import MODEL


def test_tasks_are_printed_with_addresses_kept_for_the_page_and_shown_as_a_view(
    tmp_path: Path,
) -> None:
    studio, out = drive_studio(SEEDS[:3]), tmp_path / "out.json"
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        command = ["next-tasks", "--project=7", "--count=4", *reach, *MODEL, f"--json={out}"]
        refused = CliRunner().invoke(main, [*command, "--view"], input="n\n")
        assert refused.exit_code == 1
        assert not studio.tabs
        made = CliRunner().invoke(main, [*command, "--view"], input="y\n")
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "3 tasks of 12 without an annotation or a draft: 12 pictures looked at in" in said
    assert "9 near-duplicates passed over; compared with 0 corrected pictures too" in said
    assert "There are no more: 12 tasks without an annotation or a draft, all tried." in said
    told = json.loads(out.read_text())
    tasks = [each["task"] for each in told["tasks"]]
    assert sorted(map(drive_of, tasks)) == [0, 1, 2]
    assert all(f"{task} {server.url}/projects/7/data?task={task}" in said for task in tasks)
    (view,) = studio.tabs.values()
    assert task_ids_of(view) == set(tasks)
    kept = NextTasksStore(Database.from_settings(Settings())).last(7)
    assert kept is not None
    assert json.loads(json.dumps(kept.report.to_json())) == told


def test_tasks_are_told_before_a_database_that_has_gone_away_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("it is away"))

    monkeypatch.setattr(NextTasksStore, "keep", fail)
    studio, out = drive_studio(SEEDS[:3]), tmp_path / "out.json"
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        command = ["next-tasks", "--project=7", *reach, *MODEL, f"--json={out}"]
        made = CliRunner().invoke(main, command)
    assert made.exit_code != 0
    assert "3 tasks of 12 without an annotation or a draft" in " ".join(made.output.split())
    assert len(json.loads(out.read_text())["tasks"]) == 3


def test_without_a_task_there_is_no_view() -> None:
    studio = drive_studio(SEEDS[:1])
    studio.annotated = {*studio.tasks}
    with studio.served() as server:
        reach = ["--label-studio-url", server.url, "--label-studio-api-key", TOKEN]
        made = CliRunner().invoke(main, ["next-tasks", "--project=7", *reach, *MODEL, "--view"])
    assert made.exit_code == 0, made.output
    assert "Each task of the project has an annotation or a draft." in made.output
    assert "There is no view to make." in made.output
    assert not studio.tabs


def test_a_number_of_tasks_that_is_not_allowed_is_refused() -> None:
    made = CliRunner().invoke(main, ["next-tasks", "--project=7", "--count=101"])
    assert made.exit_code == 2
    assert "1<=x<=100" in made.output
