"""Pages of a project that is not there say so, and cost no wait while Label Studio is away."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from backend.feedback.annotation_store import AnnotationStore
from backend.web.openapi import description
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.web.pages.browser import PEOPLE, Dashboard, Page


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View/>", {}, titles={7: "Streets"})


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


@pytest.fixture
def dashboard(server: LocalServer) -> Dashboard:
    return Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)


def read_paths(project: int) -> list[str]:
    """All that can be read of a project."""
    return [
        path.format(project=project, run=1, plot="saved-paint")
        for path, methods in description()["paths"].items()
        if path.startswith("/projects/{project}/") and "get" in methods
    ]


def test_all_that_can_be_read_of_a_project_that_is_not_there_is_not_found(
    dashboard: Dashboard,
) -> None:
    paths = read_paths(9999)
    assert len(paths) >= 12
    for path in paths:
        answer = dashboard.client.get(path)
        assert answer.status_code == 404, path
        assert json.loads(answer.data)["error"].startswith("Label Studio has no project 9999, or")
        shown = dashboard.client.get(path, headers=PEOPLE)
        assert shown.status_code == 404, path
        page = Page(shown)
        assert "Label Studio has no project 9999" in page.text
        assert [link["href"] for link in page.all("a")] == ["/"], "it leads back"


PAGES = ("report", "report.json", "words", "label-errors", "agreement", "learning")


def test_a_project_that_is_there_is_shown_and_asked_for_once(
    dashboard: Dashboard, server: LocalServer
) -> None:
    for _ in range(2):
        for page in PAGES:
            assert dashboard.client.get(f"/projects/7/{page}").status_code == 200, page
    assert len(server.asked) == 1


def test_a_project_that_the_list_leaves_out_is_shown(
    dashboard: Dashboard, studio: FakeStudio, server: LocalServer
) -> None:
    """One that changes while its pages are read may miss a project."""
    studio.fault = lambda asked: (
        Answer(200, b'{"count": 0, "next": null, "previous": null, "results": []}')
        if asked.path.startswith("/api/projects/?")
        else None
    )
    assert dashboard.client.get("/projects/7/words").status_code == 200
    assert dashboard.client.get("/projects/8/words").status_code == 404


def test_no_project_is_missing_once_label_studio_goes_away_after_it_gave_the_titles(
    dashboard: Dashboard,
    studio: FakeStudio,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was made between may not be among them."""
    monkeypatch.setattr("backend.jobs.connection_watch._FRESH_FOR_NEW_S", 0.0)
    assert dashboard.client.get("/projects/8/report.json").status_code == 404
    studio.titles[8] = "New"
    studio.fault = lambda _: Answer(503, b"{}")
    asked = len(server.asked)
    for _ in range(3):
        assert dashboard.client.get("/projects/8/report.json").status_code == 200
    assert len(server.asked) == asked + 1, "no view waits again"


def test_a_project_that_was_made_meanwhile_is_shown(
    dashboard: Dashboard, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.connection_watch._FRESH_FOR_NEW_S", 0.0)
    assert dashboard.client.get("/projects/8/words").status_code == 404
    studio.titles[8] = "New"
    assert dashboard.client.get("/projects/8/words").status_code == 200


def test_a_deleted_project_keeps_its_pages_while_the_database_holds_something_of_it(
    dashboard: Dashboard, studio: FakeStudio
) -> None:
    AnnotationStore(dashboard.store.database, "here").mark(8, [1])
    dashboard.store.start_job(9)
    for project in (8, 9):
        for page in PAGES:
            assert dashboard.client.get(f"/projects/{project}/{page}").status_code == 200


def test_no_project_is_missing_where_label_studio_does_not_say_and_views_wait_once(
    dashboard: Dashboard, studio: FakeStudio, server: LocalServer
) -> None:
    studio.fault = lambda _: Answer(503, b"{}")
    for _ in range(3):
        for page in PAGES:
            assert dashboard.client.get(f"/projects/9999/{page}").status_code == 200, page
    assert len(server.asked) == 1, "and is not asked again for a minute"


def test_without_a_token_no_project_is_missing() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    assert dashboard.client.get("/projects/9999/report").status_code == 200
