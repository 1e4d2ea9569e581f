"""The dashboard, and what monitoring asks for; nothing of it waits for the model."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.jobs import worker
from backend.jobs.change_poller import PollStore
from backend.prediction.failures import FailureStore
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.web.pages.browser import PEOPLE, Dashboard, started


def test_browsers_get_the_page_and_programs_json(dashboard: Dashboard) -> None:
    assert "ClearCLIP for Label Studio" in dashboard.page().text
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert json.loads(dashboard.client.get("/", headers=headers).data)["status"] == "UP"


def test_the_page_shows_model_jobs_tasks_and_errors(dashboard: Dashboard) -> None:
    started(dashboard, done=30, total=120)
    gone = {"id": 41, "data": {"picture": "x"}}
    good = {"id": 42, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [gone, good], "label_config": brush_config("red"), "project": "7.1"}
    dashboard.client.post("/predict", json=body)
    page = dashboard.page()
    for text in ("Ready", "ViT-B-16/openai", "float32", "30 predicted of 120", "running"):
        assert text in page.text, text
    assert 'asks for "$image"' in page.text
    (progress,) = page.all("progress")
    assert (progress["value"], progress["max"]) == ("30", "120")
    links = [link["href"] for link in page.all("a")]
    assert "http://studio:8080/projects/7/data?task=41" in links
    assert [button["id"] for button in page.all("button") if "id" in button] == [
        "pause-1",
        "cancel-1",
    ]


def test_ready_is_another_thing_than_alive() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    with Engine(load, lambda: "m") as engine:
        dashboard = Dashboard(engine)
        assert dashboard.client.get("/health").status_code == 200
        ready = dashboard.client.get("/ready")
        assert ready.status_code == 503
        assert json.loads(ready.data)["state"] == "loading"
        assert "Loading the model" in dashboard.page().text
        may_load.set()
        engine.segmenter()
        assert dashboard.client.get("/ready").status_code == 200
    ready = dashboard.client.get("/ready")
    assert ready.status_code == 503
    assert json.loads(ready.data)["reason"] == "The backend is shutting down."
    assert "The backend is shutting down." in dashboard.page().text


def test_nothing_here_waits_for_a_model_that_is_busy() -> None:
    segmenter = ColourSegmenter()
    dashboard = Dashboard(colour_engine(segmenter))
    segmenter.gate.clear()
    task = {"id": 5, "data": {"image": data_url(flag("red"))}}
    body = {"tasks": [task], "label_config": brush_config("red"), "project": "7.1"}
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(dashboard.app.test_client().post("/predict", json=body))
    )
    asking.start()
    assert segmenter.started.acquire(timeout=20)
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/health"):
        assert dashboard.client.get(path, headers=PEOPLE).status_code == 200
    page = dashboard.page()
    assert "in the model" in page.text
    assert "http://studio:8080/projects/7/data?task=5" in [link["href"] for link in page.all("a")]
    assert answers == []
    segmenter.gate.set()
    asking.join(20)
    assert answers[0].status_code == 200


def test_the_page_says_that_label_studio_refuses_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_POLL_S", 0.02)
    with FakeStudio(brush_config("red"), {}, token="another").served() as server:
        dashboard = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        dashboard.app.extensions["worker"].start()
        end = time.monotonic() + 20
        while "refuses the token of this backend (HTTP 401)" not in dashboard.page().text:
            assert time.monotonic() < end
            time.sleep(0.02)
        dashboard.app.extensions["worker"].stop()
    status = json.loads(dashboard.client.get("/status").data)["connection"]
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
        dashboard.app.extensions["worker"].start()
        end = time.monotonic() + 20
        while "Kitchens (8)" not in dashboard.page("/?part=1").text:
            assert time.monotonic() < end
            time.sleep(0.02)
        dashboard.app.extensions["worker"].stop()
    page = dashboard.page()
    assert "<b>Streets</b> (7)" in page.text, "as text"
    links = [link["href"] for link in page.all("a")]
    assert links.index("/projects/7") < links.index("/projects/8")
    assert page.text.index("1 project that this backend does not serve") < page.text.index("Kit")
    served = json.loads(dashboard.client.get("/status").data)["served"]
    nothing = {"tasks": None, "annotations": 0, "accepted_share": None}
    assert served == [{"project": 7, "failing": 2} | nothing]


def test_status_is_the_same_as_json(dashboard: Dashboard) -> None:
    started(dashboard, done=30, total=120)
    status = json.loads(dashboard.client.get("/status").data)
    assert status["model"]["state"] == "ready"
    assert status["jobs"][0]["done"] == 30


def test_metrics_count_requests_and_tasks(dashboard: Dashboard) -> None:
    task = {"id": 5, "data": {"image": data_url(flag("red"))}}
    bad = {"id": 6, "data": {}}
    body = {"tasks": [task, bad], "label_config": brush_config("red"), "project": "7.1"}
    dashboard.client.post("/predict", json=body)
    dashboard.client.get("/nowhere/at/all")
    response = dashboard.client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    text = response.data.decode()
    assert 'clearclip_requests_total{method="POST",route="/predict",status="200"} 1.0' in text
    assert 'clearclip_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'clearclip_tasks_total{urgency="batch"} 1.0' in text
    assert 'clearclip_failures_total{reason="DataKeyError"} 1.0' in text
    for stage in ("fetch", "prepare", "wait", "model", "decide", "draw"):
        assert f'clearclip_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "nowhere" not in text


def test_everything_is_behind_basic_auth_but_health() -> None:
    dashboard = Dashboard(basic_auth_user="ann", basic_auth_pass="p")
    for path in ("/", "/status", "/metrics", "/ready", "/jobs", "/jobs/1"):
        response = dashboard.client.get(path, headers=PEOPLE)
        assert response.status_code == 401
        assert b"ViT" not in response.data
    for path in ("/jobs", "/jobs/1/cancel"):
        assert dashboard.post(path).status_code == 401
    assert dashboard.client.get("/health").status_code == 200
