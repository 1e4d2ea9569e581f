"""The dashboard, jobs, and what monitoring asks for; nothing of it waits for the model."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.jobs import worker
from backend.jobs.change_poller import PollStore
from backend.prediction.failures import FailureStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.browser import (
    PEOPLE,
    RED,
    Dashboard,
    Page,
    make_app,
    predict_body,
    started,
)


def test_browsers_get_the_page_and_programs_json(dashboard: Dashboard) -> None:
    assert "ClearCLIP for Label Studio" in dashboard.page().text
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert dashboard.client.get("/", headers=headers).get_json()["status"] == "UP"


def test_the_page_shows_model_jobs_tasks_and_errors(dashboard: Dashboard) -> None:
    started(dashboard, done=30, total=120)
    gone = {"id": 41, "data": {"picture": "x"}}
    dashboard.client.post("/predict", json=predict_body(gone, RED) | {"project": "7.1"})
    page = dashboard.page()
    for text in ("Ready", "ViT-B-16/openai", "float32", "30 predicted of 120", "running"):
        assert text in page.text, text
    assert 'asks for "$image"' in page.text
    (progress,) = page.all("progress")
    assert (progress["value"], progress["max"]) == ("30", "120")
    assert "http://studio:8080/projects/7/data?task=41" in page.links
    asks = {form["action"]: "data-confirm" in form for form in page.all("form")}
    assert asks == {"/jobs/1/pause": False, "/jobs/1/cancel": True}
    assert dashboard.client.get("/status").get_json()["jobs"][0]["done"] == 30


def test_ready_is_another_thing_than_alive() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        dashboard = Dashboard(engine)
        ready = dashboard.client.get("/ready")
        assert (ready.status_code, ready.get_json()["state"]) == (503, "loading")
        assert "Loading the model" in dashboard.page().text
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
    assert segmenter.started.acquire(timeout=20)
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/health"):
        assert dashboard.client.get(path, headers=PEOPLE).status_code == 200
    waiting = dashboard.client.get("/status").get_json()["waiting"]
    assert {"urgency": "opened", "project": 7, "count": 1} in waiting
    page = dashboard.page()
    assert "in the model" in page.text
    assert "http://studio:8080/projects/7/data?task=5" in page.links
    assert answers == []
    segmenter.gate.set()
    asking.join(20)
    assert answers[0].status_code == 200


def worked_until(dashboard: Dashboard, is_shown: Callable[[Page], bool]) -> Page:
    """The page as it is once a worker has found something out."""
    dashboard.app.extensions["worker"].start()
    end = time.monotonic() + 20
    while not is_shown(page := dashboard.page("/?part=1")):
        assert time.monotonic() < end
        time.sleep(0.02)
    dashboard.app.extensions["worker"].stop()
    return page


def test_the_page_says_that_label_studio_refuses_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    refused = "refuses the token of this backend (HTTP 401)"
    with FakeStudio(brush_config("red"), {}, token="another").served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        worked_until(dashboard, lambda page: refused in page.text)
    status = dashboard.client.get("/status").get_json()["connection"]
    assert "Set LABEL_STUDIO_API_KEY" in status["trouble"]
    assert TOKEN not in json.dumps(status)


def test_projects_that_are_served_come_first_with_their_figures_and_others_in_a_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    titles = {7: "<b>Streets</b>", 8: "Kitchens"}
    database = Database.from_settings(Settings())
    FailureStore(database).add([(41, "It is gone."), (42, "It is gone.")], project=7)
    PollStore(database, "another").add(7, in_s=600)
    with FakeStudio(brush_config("red"), {}, titles=titles).served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        page = worked_until(dashboard, lambda page: "Kitchens (8)" in page.text)
    assert "<b>Streets</b> (7)" in page.text, "as text"
    assert page.links.index("/projects/7") < page.links.index("/projects/8")
    assert page.text.index("1 project that this backend does not serve") < page.text.index("Kit")
    (served,) = dashboard.client.get("/status").get_json()["served"]
    nothing = {"tasks": None, "annotations": 0, "accepted_share": None}
    assert served == {"project": 7, "failing": 2} | nothing


# ---- nothing of other sites comes onto a page ----------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(dashboard: Dashboard) -> None:
    """Air-gapped: no script, style, font or picture comes from a server, not even this one."""
    started(dashboard, done=1, total=2)
    for path in ("/", "/?part=1", "/projects/7?job=1"):
        page = dashboard.page(path)
        for tag, attributes in page.elements:
            assert "src" not in attributes, tag
            assert "style" not in attributes, tag
            assert not any(name.startswith("on") for name in attributes), tag
            if tag == "link":
                assert attributes["href"] == "data:,"
        assert "@import" not in page.text
        assert "url(" not in page.text


def test_the_policy_lets_only_the_pages_own_script_run(dashboard: Dashboard) -> None:
    first, second = (dashboard.client.get("/", headers=PEOPLE) for _ in range(2))
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    page = Page(first)
    assert {element["nonce"] for element in page.all("script") + page.all("style")} == {nonce}
    assert nonce not in second.headers["Content-Security-Policy"]
    assert first.headers["Cache-Control"] == "no-store"


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
    for page in (
        dashboard.page(),
        dashboard.page("/?part=1"),
        dashboard.page("/projects/7?job=1"),
        Page(refused),
    ):
        assert "alert(1)" in page.text
        assert page.all("img") == []
        assert all(script.get("nonce") for script in page.all("script"))
        assert all(link.startswith(("http://studio:8080", "/", "#")) for link in page.links)


# ---- jobs ----------------------------------------------------------------------------------------


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


def test_a_job_is_started_listed_read_and_cancelled_by_a_program(dashboard: Dashboard) -> None:
    client = dashboard.client
    response = client.post("/jobs", json={"project": 7, "filter": "all", "view": 3, "limit": 10})
    assert (response.status_code, response.headers["Location"]) == (201, "/jobs/1")
    job = response.get_json()
    expected = {"id": 1, "project": 7, "filter": "all", "view": 3, "limit": 10, "state": "queued"}
    assert expected.items() <= job.items()
    assert client.get("/jobs").get_json()["jobs"] == [job]
    assert client.get("/jobs?project=8").get_json()["jobs"] == []
    dashboard.store.lease_job("worker")
    dashboard.store.advance(1, "worker", total=5, done=1, failures=[(41, "There is no file.")])
    read = client.get("/jobs/1").get_json()
    assert (read["done"], read["failed"], read["remaining"]) == (1, 1, 3)
    (failure,) = read["failures"]
    assert (failure["task"], failure["sentence"]) == (41, "There is no file.")
    assert failure["url"] == "http://studio:8080/projects/7/data?task=41"
    assert client.post("/jobs/1/pause").get_json()["state"] == "paused"
    assert client.post("/jobs/1/cancel").get_json()["state"] == "cancelled"
    assert client.post("/jobs/1/pause").status_code == 409
    assert client.get("/jobs/2").status_code == 404
    assert client.get(f"/jobs/{'9' * 30}").status_code == 404
    assert client.get(f"/jobs?project={'9' * 30}").status_code == 200


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"", {"project": ""}),
        (b'{"project": 7, "what": 1}', {"project": "7", "filter": "none"}),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_a_sentence(
    dashboard: Dashboard, body: bytes, form: dict[str, str]
) -> None:
    response = dashboard.client.post("/jobs", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.get_json()["error"].startswith("Expected ")
    on_page = dashboard.post("/jobs", form)
    assert on_page.status_code == 400
    assert "Expected " in Page(on_page).text
    assert dashboard.store.list_jobs() == []


# ---- metrics, read back by the parser of Prometheus ----------------------------------------------


def scraped(client: FlaskClient) -> dict[str, float]:
    """Name and labels as they are written -> value."""
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    found = {}
    for family in text_string_to_metric_families(response.data.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_requests_tasks_and_what_the_engine_does_are_counted(client: FlaskClient) -> None:
    before = scraped(client)
    assert before["clearclip_model_loaded{}"] == 1
    for number in (1, 2):
        client.post("/predict", json=predict_body(RED | {"id": number}, {"id": 9, "data": {}}))
    client.open("/nowhere/at/all", method="BREW-7")
    found = scraped(client)
    expected = {
        "requests_total{method=POST,route=/predict,status=200}": 2,
        "requests_total{method=other,route=other,status=404}": 1,
        "request_seconds_count{route=/predict}": 2,
        "request_seconds_bucket{le=120.0,route=/predict}": 2,
        "tasks_total{urgency=batch}": 2,
        "failures_total{reason=DataKeyError}": 2,
        "stage_seconds_count{stage=model}": 2,
        "stage_seconds_count{stage=fetch}": 2,
        "queue_pictures{urgency=interactive}": 0,
        "cache_misses_total{cache=features}": 2,
        "cache_hits_total{cache=words}": 2,
        "cache_hits_total{cache=pictures}": 0,
    }
    assert {name: found[f"clearclip_{name}"] for name in expected} == expected
    assert not any("nowhere" in name for name in found)


def test_a_model_that_is_not_loaded_says_so() -> None:
    engine = Engine(ColourSegmenter, lambda: "m")  # type: ignore[arg-type]
    assert scraped(make_app(engine).test_client())["clearclip_model_loaded{}"] == 0


def test_a_gpu_that_is_used_is_told_of_with_all_its_memory(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs, as torch tells of them; this process uses the second."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        assert not any(name.startswith("clearclip_gpu") for name in scraped(client))
    used = {0: 0, 1: 300}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 2 * used[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (7000, 8000))
    found = {n: v for n, v in scraped(client).items() if n.startswith("clearclip_gpu")}
    assert found == {
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=reserved}": 600,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=free}": 7000,
        "clearclip_gpu_memory_bytes{device=cuda:1,kind=total}": 8000,
    }
