"""The dashboard, jobs, and what monitoring asks for; nothing of it waits for the model."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.jobs import worker
from backend.jobs.change_poller import Poll, PollStore
from backend.jobs.connection_watch import ConnectionWatch
from backend.projects.failures import FailureStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.waiting import wait_for
from tests.backend.web.browser import (
    PEOPLE,
    RED,
    Dashboard,
    Page,
    predict_body,
    scraped,
    started,
)


def test_the_page_shows_what_goes_on_and_programs_get_json(dashboard: Dashboard) -> None:
    started(dashboard, done=30, total=120)
    gone = {"id": 41, "data": {"picture": "x"}}
    dashboard.client.post("/predict", json=predict_body(gone, RED) | {"project": "7.1"})
    page = dashboard.page()
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert dashboard.client.get("/", headers=headers).get_json()["status"] == "UP"
    for text in ("Ready", "ViT-B-16/openai", "float32", "30 predicted of 120", "running"):
        assert text in page.text, text
    assert 'asks for "$image"' in page.text
    (progress,) = page.all("progress")
    assert (progress["value"], progress["max"]) == ("30", "120")
    assert "http://studio:8080/projects/7/data?task=41" in page.links
    asks = {form["action"]: "data-confirm" in form for form in page.all("form")}
    assert asks == {"/jobs/1/pause": False, "/jobs/1/cancel": True}
    status = dashboard.client.get("/status").get_json()
    assert (status["jobs"][0]["done"], status["model"]["device"]) == (30, "cpu")
    assert torch.__version__.startswith(status["versions"]["torch"])  # "+cu124" may follow


def test_ready_is_another_thing_than_alive() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(60)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        dashboard = Dashboard(engine)
        assert scraped(dashboard.client)["clearclip_model_loaded{}"] == 0
        ready = dashboard.client.get("/ready")
        assert (ready.status_code, ready.get_json()["state"]) == (503, "loading")
        assert "Loading the model" in dashboard.page().text
        setup = dashboard.client.post("/setup", json={"schema": brush_config("red")})
        assert setup.status_code == 200, "Label Studio gives up after 3 s"
        may_load.set()
        engine.segmenter()
        assert dashboard.client.get("/ready").status_code == 200
    assert "The backend is shutting down." in dashboard.page().text


def test_nothing_here_waits_for_a_model_that_is_busy() -> None:
    segmenter = ColourSegmenter()
    dashboard = Dashboard(colour_engine(segmenter))
    segmenter.gate.clear()
    body = predict_body(RED | {"id": 5}) | {"project": "7.1"}
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(dashboard.app.test_client().post("/predict", json=body))
    )
    asking.start()
    assert segmenter.started.acquire(timeout=60)
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/health"):
        assert dashboard.client.get(path, headers=PEOPLE).status_code == 200
    status = dashboard.client.get("/status").get_json()
    assert status["waiting"] == [{"urgency": "opened", "project": 7, "count": 1}]
    assert (status["remaining"], status["running"][0]["task"]) == (1, 5)
    page = dashboard.page()
    assert "in the model" in page.text
    assert "http://studio:8080/projects/7/data?task=5" in page.links
    assert answers == []
    segmenter.gate.set()
    asking.join(60)
    assert answers[0].status_code == 200


def worked_until(dashboard: Dashboard, is_shown: Callable[[Page], bool]) -> Page:
    """The page as it is once a worker has found something out."""
    dashboard.app.extensions["worker"].start()
    wait_for(lambda: is_shown(dashboard.page("/?part=1")))
    dashboard.app.extensions["worker"].stop()
    return dashboard.page("/?part=1")


def test_the_page_says_that_label_studio_refuses_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    refused = "refuses the token of this backend (HTTP 401)"
    with FakeStudio(brush_config("red"), {}, token="another").served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        worked_until(dashboard, lambda page: refused in page.text)
    status = dashboard.client.get("/status").get_json()["connection"]
    assert "Set LABEL_STUDIO_API_KEY" in status["trouble"]
    assert TOKEN not in json.dumps(status)


def test_projects_served_come_first_others_in_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    titles = {7: "<b>Streets</b>", 8: "Kitchens"}
    database = Database.from_settings(Settings())
    FailureStore(database).add([(41, "It is gone."), (42, "It is gone.")], project=7)
    (polls := PollStore(database, "another")).add(7, in_s=0)
    polls.lease()
    polls.finish(Poll(7, tasks=5), in_s=25)  # of tasks older than the connection, not annotated
    with FakeStudio(brush_config("red"), {}, titles=titles).served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        page = worked_until(dashboard, lambda page: "Kitchens (8)" in page.text)
    assert "<b>Streets</b> (7)" in page.text, "as text"
    assert page.links.index("/projects/7") < page.links.index("/projects/8")
    assert page.text.index("1 project that this backend does not serve") < page.text.index("Kit")
    (served,) = dashboard.client.get("/status").get_json()["served"]
    nothing = {"tasks": 5, "left": None, "annotations": 0, "accepted_share": None}
    assert served == {"project": 7, "failing": 2} | nothing


def test_the_page_needs_nothing_from_elsewhere(dashboard: Dashboard) -> None:
    """Air-gapped: no script, style, font or picture comes from another server."""
    started(dashboard, done=1, total=2)
    for path in ("/", "/?part=1", "/projects/7?job=1"):
        page = dashboard.page(path)
        names = {name for _, attributes in page.elements for name in attributes}
        assert not [name for name in names if name == "style" or name.startswith("on")]
        sources = {str(attributes.get("src")) for _, attributes in page.elements} - {"None"}
        assert {each.partition("?")[0] for each in sources} <= {"/page.js"}
        links = {str(each["href"]).partition("?")[0] for each in page.all("link")}
        assert links <= {"data:,", "/page.css"}
    for name in ("page.css", "page.js"):
        text = dashboard.client.get(f"/{name}").text
        assert not [each for each in ("@import", "url(", "http") if each in text]


def test_what_comes_from_outside_is_text(dashboard: Dashboard) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    setup = {"schema": brush_config("red"), "hostname": "javascript:alert(1)", "access_token": ""}
    dashboard.client.post("/setup", json=setup)
    body = {"tasks": [{"id": evil, "data": {evil: evil}}], "label_config": brush_config("red")}
    dashboard.client.post("/predict", json=body)
    job = started(dashboard)
    dashboard.store.advance(job, "worker", failures=[(1, evil)], version=evil)
    dashboard.store.finish(job, "worker", reason=evil)
    refused = dashboard.post("/jobs", {"project": "7", evil: "1"})
    shown = map(dashboard.page, ("/", "/?part=1", "/projects/7?job=1"))
    for page in (*shown, Page(refused)):
        assert "alert(1)" in page.text
        assert page.all("img") == []
        assert all(script.get("nonce") for script in page.all("script"))
        assert all(link.startswith(("http://studio:8080", "/", "#")) for link in page.links)


def test_a_job_is_started_paused_resumed_and_cancelled_from_the_page(dashboard: Dashboard) -> None:
    for _ in range(2):  # pressing twice starts one
        response = dashboard.post("/jobs", {"project": " 7 ", "filter": "all", "view": ""})
        assert response.status_code == 303
        assert response.headers["Location"].endswith("/projects/7?job=1")
    (job,) = dashboard.store.list_jobs()
    assert (job.project, job.only, job.view, job.state) == (7, "all", None, "queued")
    for turn, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert dashboard.client.get(f"/jobs/{job.id}/{turn}").status_code == 405
        answer = dashboard.post(f"/jobs/{job.id}/{turn}")
        assert answer.status_code == 303
        assert "/jobs/1" in dashboard.page(answer.headers["Location"]).links, "it says so"
        assert dashboard.store.get_job(job.id).state == state
    refused = dashboard.post("/jobs/1/resume")
    assert refused.status_code == 409
    assert "it cannot become queued" in Page(refused).text


@pytest.mark.parametrize(("is_gone", "forms"), [(False, 1), (True, 0)])
def test_a_failed_job_of_a_project_that_is_gone_cannot_be_resumed(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, is_gone: bool, forms: int
) -> None:
    monkeypatch.setattr(ConnectionWatch, "is_gone", lambda self, project: is_gone)
    job = dashboard.store.start_job(7)
    dashboard.store.lease_job("worker", job.id)
    dashboard.store.finish(job.id, "worker", "The project is gone.")
    assert dashboard.store.get_job(job.id).state == "failed"
    actions = [form["action"] for form in dashboard.page().all("form")]
    assert actions.count("/jobs/1/resume") == forms


def test_a_job_of_a_project_that_is_gone_is_not_resumed_by_a_program() -> None:
    with FakeStudio(brush_config("red"), {}).served() as server:  # it has project 7 alone
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        job = dashboard.store.start_job(8)
        dashboard.store.pause(job.id)
        refused = dashboard.client.post(f"/jobs/{job.id}/resume")
    assert refused.status_code == 404
    assert "project 8" in refused.get_json()["error"]
    assert dashboard.store.get_job(job.id).state == "paused"


def test_a_program_starts_a_job_and_lists_it_by_project(dashboard: Dashboard) -> None:
    asked = {"project": 7, "filter": "all", "view": 3, "limit": 10}
    response = dashboard.client.post("/jobs", json=asked)
    assert (response.status_code, response.headers["Location"]) == (201, "/jobs/1")
    job = response.get_json()
    assert (asked | {"id": 1, "state": "queued"}).items() <= job.items()
    assert dashboard.client.get("/jobs").get_json()["jobs"] == [job]
    assert dashboard.client.get("/jobs?project=8").get_json()["jobs"] == []


def test_a_program_reads_how_far_a_job_is_and_what_has_failed(dashboard: Dashboard) -> None:
    job = dashboard.store.start_job(7).id
    dashboard.store.lease_job("worker")
    dashboard.store.advance(job, "worker", total=5, done=1, failures=[(41, "There is no file.")])
    read = dashboard.client.get(f"/jobs/{job}").get_json()
    assert (read["done"], read["failed"], read["remaining"]) == (1, 1, 3)
    (failure,) = read["failures"]
    assert (failure["task"], failure["sentence"]) == (41, "There is no file.")
    assert failure["url"] == "http://studio:8080/projects/7/data?task=41"


def test_a_program_pauses_and_cancels_a_job_but_none_that_is_over(dashboard: Dashboard) -> None:
    job = dashboard.store.start_job(7).id
    assert dashboard.client.post(f"/jobs/{job}/pause").get_json()["state"] == "paused"
    assert dashboard.client.post(f"/jobs/{job}/cancel").get_json()["state"] == "cancelled"
    assert dashboard.client.post(f"/jobs/{job}/pause").status_code == 409


@pytest.mark.parametrize(
    ("path", "status"),
    [("/jobs/2", 404), (f"/jobs/{'9' * 30}", 404), (f"/jobs?project={'9' * 30}", 200)],
)
def test_a_number_without_a_job_is_no_error_of_the_backend(
    dashboard: Dashboard, path: str, status: int
) -> None:
    assert dashboard.client.get(path).status_code == status
