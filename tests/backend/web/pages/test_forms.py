"""What pages are asked for: projects that are there, a token that is needed, forms that can be."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import BadRequest
from backend.runs.kinds import KINDS
from backend.web.pages.forms import JobRequest, parse_fields
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.web.browser import Dashboard, Page


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View/>", {}, titles={7: "Streets"})


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


def test_a_page_says_so_before_anybody_tries() -> None:
    lead = Dashboard(label_studio_api_key=None)
    report = {"/projects/7/report": "What annotators change is read from Label Studio"}
    for address, said in (RUNS | report | {"/": JOBS, "/projects/7": JOBS}).items():
        page = lead.page(address)
        assert said + SET in " ".join(page.text.split())
        assert page.all("form") == []


# ---- forms and JSON bodies ----------------------------------------------------------------------


def test_a_job_as_a_program_and_as_a_form_asks_for_it() -> None:
    asked = JobRequest(7, "all", 3, 10)
    body = b'{"project": 7, "filter": "all", "view": "3", "limit": 10}'
    assert parse_fields(body, False, JobRequest) == asked
    assert parse_fields(b"project=7&filter=all&view=3&limit=+10+", True, JobRequest) == asked
    assert parse_fields(b"project=7&filter=&view=&limit=", True, JobRequest) == JobRequest(7)


@pytest.mark.parametrize(
    ("body", "is_form"),
    [
        (b"project=\xff", True),
        (b"&".join(b"project=7" for _ in range(30)), True),
        (b"project=7&also=8", True),
        (b"", False),
        (b"[]", False),
        (b"[" * 100_000, False),
        (b'{"project": true}', False),
        (b'{"project": 7, "filter": ["all"]}', False),
        ('{"project": "\u0667"}'.encode(), False),
    ],
)
def test_a_job_that_cannot_be(body: bytes, is_form: bool) -> None:
    with pytest.raises(BadRequest, match=r"^Expected "):
        parse_fields(body, is_form, JobRequest)
