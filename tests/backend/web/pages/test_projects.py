"""Projects that Label Studio does not have, does not tell of, or may not be asked for."""

from __future__ import annotations

from typing import Any

import pytest

from backend.feedback.annotation_store import AnnotationStore
from backend.runs.kinds import KINDS
from backend.runs.words import WORDS
from backend.web.openapi import description
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.web.pages.browser import PEOPLE, Dashboard, Page

AWAY = Answer(503, b"{}")


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View/>", {}, titles={7: "Streets"})


# ---- what is started -----------------------------------------------------------------------------

#: Route -> the body of a program, and that of a form.
STARTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "/jobs": ({"project": 8}, {"project": "8"}),
    "/jobs/1/withdraw": ({}, {}),
    **{f"/projects/8/{kind.name}": ({}, {}) for kind in KINDS},
    "/projects/8/words": ({}, {"pictures": "8"}),
    "/projects/8/next-tasks": ({"count": 5}, {"count": "5"}),
    "/projects/8/datasets": ({}, {"formats": "coco"}),
}


def test_nothing_is_started_in_a_project_that_is_not_there(lead: Dashboard) -> None:
    job = lead.store.start_job(8)
    lead.store.lease_job("worker", job.id)
    lead.store.advance(job.id, "worker", version="v2", total=1, done=1)
    lead.store.finish(job.id, "worker")
    for path, (body, form) in STARTS.items():
        refused, on_page = lead.client.post(path, json=body), lead.post(path, form)
        assert (refused.status_code, on_page.status_code) == (404, 404), path
        assert refused.get_json()["error"].startswith("Label Studio has no project 8, or ")
        assert "Label Studio has no project 8" in Page(on_page).text
    assert [job["id"] for job in lead.client.get("/jobs").get_json()["jobs"]] == [1]
    for kind in KINDS:
        assert lead.client.get(f"/projects/8/{kind.name}").get_json()["runs"] == [], kind.name
        assert lead.client.post(f"/projects/7/{kind.name}", json={}).status_code == 202


@pytest.mark.parametrize("status", [401, 403, 500, 503, None])
def test_a_job_is_taken_where_label_studio_does_not_say_whether_the_project_is_there(
    status: int | None,
) -> None:
    """It waits then, and says why; a page in Label Studio's place says nothing either."""
    answer = Answer(404, b"<html>Not here.</html>") if status is None else Answer(status, b"{}")
    with LocalServer(lambda asked: answer) as server:
        lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        assert lead.client.post("/jobs", json={"project": 8}).status_code == 201
        assert len(server.asked) == 1, "it is asked once"


# ---- what is read --------------------------------------------------------------------------------

PAGES = ("report", "report.json", "words", "label-errors", "agreement", "learning")


def statuses(lead: Dashboard, project: int, *pages: str) -> set[int]:
    """What the pages of a project answer."""
    paths = [f"/projects/{project}/{page}" for page in pages or PAGES]
    return {lead.client.get(path).status_code for path in paths}


def test_all_that_can_be_read_of_a_project_that_is_not_there_is_not_found(lead: Dashboard) -> None:
    paths = [
        path.format(project=9999, run=1)
        for path, methods in description()["paths"].items()
        if path.startswith("/projects/{project}/") and "get" in methods
    ]
    assert len(paths) >= 10
    for path in paths:
        told, shown = lead.client.get(path), lead.client.get(path, headers=PEOPLE)
        assert (told.status_code, shown.status_code) == (404, 404), path
        assert told.get_json()["error"].startswith("Label Studio has no project 9999, or")
        page = Page(shown)
        assert "Label Studio has no project 9999" in page.text
        assert [link["href"] for link in page.all("a")] == ["/"], "it leads back"


def test_a_project_that_is_there_is_asked_for_once(lead: Dashboard, server: LocalServer) -> None:
    assert statuses(lead, 7, *PAGES, *PAGES) == {200}
    assert len(server.asked) == 1


def test_a_project_that_the_list_leaves_out_is_shown(lead: Dashboard, studio: FakeStudio) -> None:
    """One that changes while its pages are read may miss a project."""
    empty = Answer(200, b'{"count": 0, "next": null, "previous": null, "results": []}')
    studio.fault = lambda asked: empty if asked.path.startswith("/api/projects/?") else None
    assert (statuses(lead, 7, "words"), statuses(lead, 8, "words")) == ({200}, {404})


def test_a_project_that_was_made_meanwhile_is_shown(
    lead: Dashboard, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.connection_watch._FRESH_FOR_NEW_S", 0.0)
    assert statuses(lead, 8, "words") == {404}
    studio.titles[8] = "New"
    assert statuses(lead, 8, "words") == {200}


def test_a_deleted_project_keeps_its_pages_while_the_database_holds_something_of_it(
    lead: Dashboard,
) -> None:
    AnnotationStore(lead.store.database, "here").mark(8, [1])
    lead.store.start_job(9)
    assert statuses(lead, 8) == statuses(lead, 9) == {200}


@pytest.mark.parametrize("gave_titles", [False, True])
def test_no_project_is_missing_while_label_studio_is_away_and_views_wait_once(
    lead: Dashboard,
    studio: FakeStudio,
    server: LocalServer,
    gave_titles: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was made since it gave the titles may not be among them."""
    monkeypatch.setattr("backend.jobs.connection_watch._FRESH_FOR_NEW_S", 0.0)
    if gave_titles:
        assert statuses(lead, 8) == {404}
    studio.fault = lambda _: AWAY
    asked = len(server.asked)
    assert statuses(lead, 8, *PAGES, *PAGES) == {200}
    assert len(server.asked) == asked + 1, "and is not asked again for a minute"


def test_the_number_of_a_project_is_one_that_a_database_can_hold(lead: Dashboard) -> None:
    rules = [each.rule for each in lead.app.url_map.iter_rules()]
    below = [each for each in rules if each.startswith("/projects/")]
    assert len(below) > 20
    start = "/projects/<int(min=1, max=2147483647):project>"
    assert [each for each in below if not each.startswith(start)] == []
    for project in ("0", "2147483648", "-1", "seven", "1e3"):
        assert lead.client.get(f"/projects/{project}/report").status_code == 404


# ---- without a token -----------------------------------------------------------------------------

SET = ": set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."
JOBS = "To prelabel a project this backend writes to Label Studio"
RUNS = {f"/projects/7/{kind.name}": kind.use for kind in KINDS}


def test_what_needs_label_studio_is_refused() -> None:
    lead = Dashboard(label_studio_api_key=None)
    views = {f"/projects/7/{kind.name}/view": kind.use for kind in KINDS if kind.tasks}
    step = {"/projects/7/learning/step": "A project learns from what Label Studio has"}
    for address, said in (RUNS | views | step | {"/jobs": JOBS}).items():
        answer = lead.client.post(address, json={"project": 7} if address == "/jobs" else {})
        assert (answer.status_code, answer.get_json()) == (400, {"error": said + SET})
    answer = lead.client.get("/projects/7/words/labels")
    assert (answer.status_code, answer.get_json()) == (400, {"error": WORDS.use + SET})


def test_a_page_says_so_before_anybody_tries() -> None:
    lead = Dashboard(label_studio_api_key=None)
    report = {"/projects/7/report": "What annotators change is read from Label Studio"}
    for address, said in (RUNS | report | {"/": JOBS, "/projects/7": JOBS}).items():
        page = lead.page(address)
        assert said + SET in " ".join(page.text.split())
        assert page.all("form") == []
    assert lead.client.get("/projects/9999").status_code == 200, "none is missing"
