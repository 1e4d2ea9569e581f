"""What is asked for in a project that Label Studio does not have is refused at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from backend.runs.kinds import KINDS
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import Dashboard, Page

#: Route -> the body of a program, and that of a form.
STARTS: dict[str, tuple[dict[str, Any] | None, dict[str, str]]] = {
    "/jobs": ({"project": 8}, {"project": "8"}),
    "/projects/8/datasets": ({}, {"formats": "coco"}),
    "/projects/8/words": ({}, {"pictures": "8"}),
    "/projects/8/label-errors": ({}, {}),
    "/projects/8/agreement": ({}, {}),
    "/projects/8/next-tasks": ({"count": 5}, {"count": "5"}),
    "/jobs/1/withdraw": (None, {}),
}


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    """Of a Label Studio that has project 7, and of a database with a job of project 8."""
    with FakeStudio("<View/>", {}).served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        job = dashboard.store.start_job(8)
        dashboard.store.lease_job("worker", job.id)
        dashboard.store.advance(job.id, "worker", version="v2", total=1, done=1)
        dashboard.store.finish(job.id, "worker")
        yield dashboard


def test_nothing_is_started_in_a_project_that_is_not_there(dashboard: Dashboard) -> None:
    for path, (body, form) in STARTS.items():
        refused = dashboard.client.post(path, json=body)
        assert refused.status_code == 404, path
        assert json.loads(refused.data)["error"].startswith("Label Studio has no project 8, or ")
        on_page = dashboard.post(path, form)
        assert on_page.status_code == 404, path
        assert "Label Studio has no project 8" in Page(on_page).text

    def told(path: str) -> Any:
        return json.loads(dashboard.client.get(path).data)

    assert [job["id"] for job in told("/jobs")["jobs"]] == [1]
    for kind in KINDS:
        assert told(f"/projects/8/{kind.name}")["runs"] == [], kind.name


def test_the_same_is_started_in_a_project_that_is_there(dashboard: Dashboard) -> None:
    assert dashboard.client.post("/jobs", json={"project": 7}).status_code == 201
    for kind in KINDS:
        assert dashboard.client.post(f"/projects/7/{kind.name}", json={}).status_code == 202


def test_the_number_of_a_project_is_one_that_a_database_can_hold(dashboard: Dashboard) -> None:
    rules = [each.rule for each in dashboard.client.application.url_map.iter_rules()]
    below = [each for each in rules if each.startswith("/projects/")]
    assert len(below) > 20
    start = "/projects/<int(min=1, max=2147483647):project>"
    assert [each for each in below if not each.startswith(start)] == []
    for project in ("0", "2147483648", "-1", "seven"):
        assert dashboard.client.get(f"/projects/{project}/report").status_code == 404
