"""What is asked for in a project that Label Studio does not have is refused at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import Dashboard, Page

#: Route -> the body of a program, and that of a form.
STARTS: dict[str, tuple[dict[str, Any] | None, dict[str, str]]] = {
    "/jobs": ({"project": 8}, {"project": "8"}),
    "/datasets": ({"project": 8}, {"project": "8", "formats": "coco"}),
    "/projects/8/words": ({}, {"label": ""}),
    "/projects/8/label-errors": (None, {}),
    "/projects/8/agreement": (None, {}),
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
    assert told("/datasets")["datasets"] == []
    assert told("/projects/8/words")["runs"] == []
    for page in ("label-errors", "agreement", "next-tasks"):
        assert told(f"/projects/8/{page}")["run"] is None, page


def test_the_same_is_started_in_a_project_that_is_there(dashboard: Dashboard) -> None:
    started = {
        path: dashboard.client.post(path, json={"project": 7}).status_code
        for path in ("/jobs", "/datasets")
    }
    started |= {
        path: dashboard.client.post(path, json=body).status_code
        for path, body in (
            ("/projects/7/words", {}),
            ("/projects/7/label-errors", None),
            ("/projects/7/agreement", None),
        )
    }
    assert set(started.values()) == {201, 202}, started
