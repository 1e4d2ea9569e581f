"""People and programs start and steer jobs."""

from __future__ import annotations

import json
import time

import pytest

from backend.jobs.connection_watch import ProjectTitles
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.web.pages.browser import Dashboard, Page, started


def test_a_job_is_started_paused_resumed_and_cancelled_from_the_page(dashboard: Dashboard) -> None:
    response = dashboard.post("/jobs", {"project": " 7 ", "filter": "all", "view": ""})
    assert response.status_code == 303
    assert response.headers["Location"].endswith("/projects/7?job=1")
    (job,) = dashboard.store.list_jobs()
    assert (job.project, job.only, job.view, job.state) == (7, "all", None, "queued")
    for turn, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        answer = dashboard.post(f"/jobs/{job.id}/{turn}")
        assert answer.status_code == 303
        said = dashboard.page(answer.headers["Location"])
        assert "/jobs/1" in {each["href"] for each in said.all("a")}, "it says what was done"
        assert dashboard.store.get_job(job.id).state == state
    assert dashboard.post("/jobs/1/resume").status_code == 409  # and says why, on the page
    assert "it cannot become queued" in Page(dashboard.post("/jobs/1/resume")).text


def test_a_job_is_started_listed_read_and_cancelled_by_a_program(dashboard: Dashboard) -> None:
    client = dashboard.client
    response = client.post("/jobs", json={"project": 7, "filter": "all", "view": 3, "limit": 10})
    assert response.status_code == 201
    assert response.headers["Location"].endswith("/jobs/1")
    job = json.loads(response.data)
    expected = {"id": 1, "project": 7, "filter": "all", "view": 3, "limit": 10, "state": "queued"}
    assert expected.items() <= job.items()
    assert json.loads(client.get("/jobs").data)["jobs"] == [job]
    assert json.loads(client.get("/jobs?project=8").data)["jobs"] == []
    dashboard.store.lease_job("worker")
    dashboard.store.advance(1, "worker", total=5, done=1, failures=[(41, "There is no file.")])
    read = json.loads(client.get("/jobs/1").data)
    assert (read["done"], read["failed"], read["remaining"]) == (1, 1, 3)
    (failure,) = read["failures"]
    assert (failure["task"], failure["sentence"]) == (41, "There is no file.")
    assert failure["url"] == "http://studio:8080/projects/7/data?task=41"
    assert json.loads(client.post("/jobs/1/pause").data)["state"] == "paused"
    assert json.loads(client.delete("/jobs/1").data)["state"] == "cancelled"
    assert client.post("/jobs/1/pause").status_code == 409
    assert client.get("/jobs/2").status_code == client.delete("/jobs/2").status_code == 404


def test_pressing_twice_starts_one_job(dashboard: Dashboard) -> None:
    for _ in range(2):
        dashboard.post("/jobs", {"project": "7"})
    assert len(dashboard.store.list_jobs()) == 1


def test_a_job_for_a_project_that_is_not_there_is_refused_at_once() -> None:
    with FakeStudio("<View/>", {}).served() as server:
        keys = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        dashboard = Dashboard(**keys)
        refused = dashboard.client.post("/jobs", json={"project": 8})
        assert refused.status_code == 404
        assert json.loads(refused.data)["error"].startswith("Label Studio has no project 8, or ")
        on_page = dashboard.post("/jobs", {"project": "8"})
        assert on_page.status_code == 404
        page = Page(on_page)
        assert "Label Studio has no project 8" in page.text
        assert dashboard.store.list_jobs() == []
        assert dashboard.client.post("/jobs", json={"project": 7}).status_code == 201


@pytest.mark.parametrize("status", [401, 403, 500, 503, None])
def test_a_job_is_taken_where_label_studio_does_not_say_whether_the_project_is_there(
    status: int | None,
) -> None:
    """It waits then, and says why; a page in Label Studio's place says nothing either."""
    answer = Answer(404, b"<html>Not here.</html>") if status is None else Answer(status, b"{}")
    with LocalServer(lambda asked: answer) as server:
        keys = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        dashboard = Dashboard(**keys)
        assert dashboard.client.post("/jobs", json={"project": 8}).status_code == 201
        assert len(server.asked) == 1, "it is asked once"
    assert [job.project for job in dashboard.store.list_jobs()] == [8]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"project": "x"}', b'{"project": 0}', b'{"project": -1}'],
)
def test_a_job_that_cannot_be_is_refused_in_one_sentence(dashboard: Dashboard, body: bytes) -> None:
    response = dashboard.client.post("/jobs", data=body, content_type="application/json")
    assert response.status_code == 400
    assert json.loads(response.data)["error"].startswith("Expected ")
    assert dashboard.store.list_jobs() == []


@pytest.mark.parametrize(
    "form",
    [
        {"project": ""},
        {"project": "seven"},
        {"project": "7" * 30},
        {"project": "7", "filter": "none"},
        {"project": "7", "limit": "0"},
        {"project": "7", "what": "x"},
    ],
)
def test_a_wrong_form_is_answered_on_the_page(dashboard: Dashboard, form: dict[str, str]) -> None:
    response = dashboard.post("/jobs", form)
    assert response.status_code == 400
    page = Page(response)
    assert "Expected " in page.text
    assert dashboard.store.list_jobs() == []


def test_without_a_key_nothing_can_be_written_and_that_is_said() -> None:
    dashboard = Dashboard(label_studio_api_key=None)
    page = dashboard.page()
    assert "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in page.text
    assert page.all("form") == []
    response = dashboard.client.post("/jobs", json={"project": 7})
    assert response.status_code == 400
    assert "LABEL_STUDIO_API_KEY" in json.loads(response.data)["error"]


def test_reading_changes_nothing(dashboard: Dashboard) -> None:
    job = started(dashboard)
    for path in ("pause", "resume", "cancel"):
        assert dashboard.client.get(f"/jobs/{job}/{path}").status_code == 405
    for project in ("x", "0", "9" * 30):
        assert dashboard.client.get(f"/jobs?project={project}").status_code == 400
    assert dashboard.client.get(f"/jobs/{'9' * 30}").status_code == 404
    assert dashboard.store.get_job(job).state == "running"


@pytest.fixture
def one_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio has project 7 and no other."""
    monkeypatch.setattr(ProjectTitles, "is_gone", lambda _self, project, _known_for_s: project != 7)


@pytest.mark.usefixtures("one_project")
def test_a_job_of_a_deleted_project_says_so_and_goes_a_day_after_its_end(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in (7, 8):
        job = dashboard.store.start_job(project)
        dashboard.store.lease_job("worker", job.id)
        dashboard.store.advance(job.id, "worker", total=2, done=2)
        dashboard.store.finish(job.id, "worker")
    page = dashboard.page()
    assert page.text.count("The project is gone from Label Studio") == 1
    asked = {form["action"] for form in page.all("form")}
    assert {"/jobs/1/withdraw", "/jobs/2/withdraw"} & asked == {"/jobs/1/withdraw"}
    links = {link["href"] for link in page.all("a")}
    assert "http://studio:8080/projects/7/data" in links
    assert "http://studio:8080/projects/8/data" not in links
    now = time.time()
    monkeypatch.setattr("backend.web.pages.projects.time.time", lambda: now + 86400 + 60)
    rows = [row["id"] for row in dashboard.page().all("li") if "id" in row]
    assert rows == ["job-1"]
    assert "is gone" in dashboard.page("/projects/8?job=2").text
    told = json.loads(dashboard.client.get("/jobs").data)["jobs"]
    assert [(job["id"], job["project_gone"]) for job in told] == [(2, True), (1, False)]
