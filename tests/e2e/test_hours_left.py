"""The hours that are left in a project of the real Label Studio, by command and on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, expect

from backend.cli.demo_servers import LabelStudioProcess, free_port, served_backend
from backend.cli.main import main
from tests.e2e.conftest import MODEL

VERSION = "demo clearclip 0123abcd"


@pytest.mark.thorough
def test_what_is_left(
    page: Page,
    studio: LabelStudioProcess,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    """60 tasks, of which 36 are annotated: 12 from nothing in 150 s each, 24 in 50 s."""
    project = new_project(["sky"], seeds=[10_000_700])
    data = next(iter(studio.client.tasks.list(project=project))).data
    studio.post(f"/api/projects/{project}/import", json=[{"data": data}] * 59)
    tasks = sorted(task.id for task in studio.client.tasks.list(project=project, page_size=100))
    assert len(tasks) == 60
    for place, task in enumerate(tasks[:36]):
        prediction = None
        if place >= 12:
            made = {"task": task, "model_version": VERSION, "result": []}
            prediction = studio.post("/api/predictions/", json=made)["id"]
        seconds = (50.0 if prediction else 150.0) * (1 + (place % 3 - 1) / 10)
        body = {"result": [], "lead_time": seconds, "parent_prediction": prediction}
        studio.post(f"/api/tasks/{task}/annotations/", json=body)
    env = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": studio.token}
    own = {"DATABASE_URL": f"sqlite:///{tmp_path}/own.db", "POLL_INTERVAL_S": "3600"}
    out = tmp_path / "report.json"
    command = ["report", "--project", str(project), "--backfill", "--json", str(out)]
    done = CliRunner(env=env | own).invoke(main, command)
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text())["hours_left"]
    assert (told["annotations_with"], told["annotations_without"]) == (24, 12)
    assert told["tasks_left"] == 24
    assert told["with_prelabels"]["hours"] == pytest.approx(24 * 50 / 3600)
    assert told["without_prelabels"]["hours"] == pytest.approx(24 * 150 / 3600)
    with served_backend(
        studio, model=MODEL, port=free_port(0), log=tmp_path / "served.log", variables=own
    ) as url:
        page.goto(f"{url}/projects/{project}/report")
        expect(page.locator("#hours-left")).to_contain_text("24 tasks without an annotation")
