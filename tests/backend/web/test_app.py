"""The routes, as Label Studio calls them; every failure is one clear sentence."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from label_studio_sdk.converter.brush import decode_rle
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from backend import create_app
from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.settings import Settings
from backend.telemetry.logs import Facts
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)

RED = {"id": 1, "data": {"image": data_url(flag("red", "blue"))}}


def make_app(engine: Engine | None = None, **settings: object) -> Flask:
    return create_app(Settings(**settings), engine or colour_engine())  # type: ignore[arg-type]


@pytest.fixture
def client() -> FlaskClient:
    return make_app().test_client()


def failing_engine(reason: str = "The weights are not on this machine: bring them") -> Engine:
    def load() -> Any:
        raise FileNotFoundError(reason)

    engine = Engine(load, lambda: "m", retry_after_s=60)
    engine.start()
    while engine.status.state == "loading":
        time.sleep(0.01)
    engine.stop()
    return engine


def predict_body(*tasks: Any, config: str = brush_config("red"), **params: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), "label_config": config, "project": "1.7", "params": params}


def error_of(response: Any) -> str:
    body = json.loads(response.data)
    assert set(body) == {"error"}
    assert "Traceback" not in body["error"]
    return str(body["error"])


def test_health_and_the_root_are_up(client: FlaskClient) -> None:
    for path in ("/health", "/"):
        response = client.get(path)
        assert response.status_code == 200
        assert json.loads(response.data)["status"] == "UP"


def test_setup_and_predict_name_the_same_version(client: FlaskClient) -> None:
    setup = client.post("/setup", json={"project": "1.7", "schema": brush_config("red")})
    predict = client.post("/predict", json=predict_body(RED))
    (entry,) = json.loads(predict.data)["results"]
    assert setup.status_code == predict.status_code == 200
    assert json.loads(setup.data) == {"model_version": entry["model_version"]}


def test_predict_answers_masks_in_their_place(client: FlaskClient) -> None:
    response = client.post("/predict", json=predict_body(RED))
    (entry,) = json.loads(response.data)["results"]
    (region,) = entry["result"]
    mask = np.array(decode_rle(region["value"]["rle"])).reshape(40, 60, 4)[..., 3]
    assert (mask[:, :30] == 255).all()
    assert (mask[:, 30:] == 0).all()


def test_the_label_config_of_each_request_decides(client: FlaskClient) -> None:
    for label in ("red", "blue", "red"):
        body = predict_body(RED, config=brush_config(label))
        (entry,) = json.loads(client.post("/predict", json=body).data)["results"]
        assert [region["value"]["brushlabels"] for region in entry["result"]] == [[label]]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"picture": "x"},
        {"image": "/nowhere"},
        {"image": "file:///etc/passwd"},
        {"image": "data:image/png;base64,AAAA"},
        {"image": data_url(flag("red"))[:-40]},
        {"image": 7},
    ],
)
def test_a_bad_task_has_an_empty_entry_beside_a_good_one(
    client: FlaskClient, data: dict[str, Any]
) -> None:
    response = client.post("/predict", json=predict_body({"id": 2, "data": data}, RED))
    bad, good = json.loads(response.data)["results"]
    assert response.status_code == 200
    assert bad == []
    assert good["result"]


def test_an_image_over_the_limit_has_an_empty_entry(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app(max_image_megapixels=1).test_client()
    large = {"id": 9, "data": {"image": data_url(flag("red", size_hw=(1001, 1000)))}}
    results = json.loads(client.post("/predict", json=predict_body(large)).data)["results"]
    assert results == [[]]
    assert "Task 9" in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/predict", b"", "Expected a body of JSON"),
        ("/predict", b"{", "Expected a body of JSON"),
        ("/predict", b"[]", "Expected a JSON object"),
        ("/predict", b"{}", '"tasks" to be a list'),
        ("/predict", b'{"tasks": {}}', '"tasks" to be a list'),
        ("/predict", b'{"tasks": []}', '"label_config"'),
        ("/predict", b'{"tasks": [], "label_config": "<View>"}', "not well-formed XML"),
        ("/predict", b'{"tasks": [], "label_config": "<View/>"}', "<Image"),
        ("/setup", b"{}", '"schema"'),
        ("/setup", b'{"schema": "<View>"}', "not well-formed XML"),
    ],
)
def test_wrong_requests_are_400_with_one_sentence(
    client: FlaskClient, path: str, body: bytes, sentence: str
) -> None:
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code == 400
    assert sentence in error_of(response)
    assert "\n" not in response.status


def test_unknown_routes_and_methods_are_json_too(client: FlaskClient) -> None:
    assert client.get("/nope").status_code == 404
    assert client.get("/predict").status_code == 405
    error_of(client.get("/nope"))


def test_a_body_over_the_limit_is_413() -> None:
    client = make_app(max_body_mb=1).test_client()
    response = client.post("/predict", data=b" " * ((1 << 20) + 1))
    assert response.status_code == 413
    assert "MAX_BODY_MB" in error_of(response)


def test_a_request_of_label_studio_that_is_refused_as_a_whole_is_told_on_the_page() -> None:
    client = make_app(max_body_mb=1).test_client()
    body = b" " * ((1 << 20) + 1)
    client.post("/predict", data=body)
    assert client.get("/status").get_json()["errors"] == []
    agent = {"User-Agent": "heartex/1.23.2"}
    assert client.post("/predict", data=body, headers=agent).status_code == 413
    now = client.get("/status").get_json()
    (error,) = now["errors"]
    assert (error["task"], error["reason"]) == (None, "PayloadTooLarge")
    assert "MAX_BODY_MB (1)" in error["sentence"]
    assert "select fewer tasks" in error["sentence"]
    assert (now["failed"], now["projects"]) == (0, [])
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert "select fewer tasks" in page


def test_a_body_that_does_not_arrive_is_408() -> None:
    app = make_app(request_timeout_s=0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as stream:
        theirs.sendall(b'{"tasks"')
        arriving = {"wsgi.input": stream, "CONTENT_LENGTH": "100", "gunicorn.socket": ours}
        environ = create_environ("/predict", method="POST") | arriving
        response = Response.from_app(app, environ)
    assert response.status_code == 408
    assert "REQUEST_TIMEOUT_S (0.2)" in error_of(response)


def test_a_body_of_64_mb_of_old_annotations_is_normal(client: FlaskClient) -> None:
    task = RED | {"annotations": [{"result": [{"value": {"rle": [255] * 100}}]}]}
    body = json.dumps(predict_body(task)).encode()
    padded = body[:-1] + b', "old": "' + b"x" * (64 << 20) + b'"}'
    response = client.post("/predict", data=padded, content_type="application/json")
    assert response.status_code == 200
    assert json.loads(response.data)["results"][0]["result"]


def test_an_unexpected_error_shows_no_traceback(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.web.ml_backend.routes.parse_predict", lambda _: 1 / 0)
    response = client.post("/predict", json=predict_body(RED))
    assert response.status_code == 500
    assert error_of(response) == "Unexpected ZeroDivisionError: see the backend's log."


def test_after_submit_with_a_text_area_the_answer_is_empty(client: FlaskClient) -> None:
    body = predict_body(RED, context={"result": []})
    assert json.loads(client.post("/predict", json=body).data) == {"results": [{"result": []}]}


def test_while_the_model_loads_setup_answers_and_predict_waits() -> None:
    may_load = threading.Event()

    def load() -> Any:
        assert may_load.wait(20)
        return ColourSegmenter()

    engine = Engine(load, lambda: "m")
    engine.start()
    client = make_app(engine).test_client()
    assert json.loads(client.get("/health").data)["state"] == "loading"
    setup = client.post("/setup", json={"schema": brush_config("red")})
    assert setup.status_code == 200
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(client.post("/predict", json=predict_body(RED)))
    )
    waiting.start()
    waiting.join(0.3)
    assert answers == []
    may_load.set()
    waiting.join(20)
    assert answers[0].status_code == 200


def test_once_loading_has_failed_setup_and_predict_say_how_to_help() -> None:
    client = make_app(failing_engine()).test_client()
    sentence = "The weights are not on this machine: bring them"
    for response in (
        client.post("/predict", json=predict_body(RED)),
        client.post("/setup", json={"schema": brush_config("red")}),
    ):
        assert response.status == f"503 {sentence}"  # Label Studio keeps the reason phrase only
        assert error_of(response) == sentence
    assert client.get("/health").status_code == 200
    assert client.get("/versions").status_code == 200


def test_a_reason_phrase_is_one_line_of_ascii() -> None:
    client = make_app(failing_engine("a\nb\r\nSet-Cookie: é " + "x" * 999)).test_client()
    response = client.post("/setup", json={"schema": brush_config("red")})
    assert response.status.startswith("503 a b Set-Cookie: ? x")
    assert len(response.status) < 400


def test_waiting_predictions_leave_threads_for_health_and_setup() -> None:
    segmenter = ColourSegmenter()
    app = make_app(colour_engine(segmenter), threads=4)  # two of them may predict
    segmenter.gate.clear()
    answers: list[Any] = []

    def predict() -> None:
        answers.append(app.test_client().post("/predict", json=predict_body(RED)))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while not answers and time.monotonic() < end:
        time.sleep(0.01)
    assert [answer.status_code for answer in answers] == [429]  # the third, at once
    assert answers[0].headers["Retry-After"]
    assert app.test_client().get("/health").status_code == 200
    setup = app.test_client().post("/setup", json={"schema": brush_config("red")})
    assert setup.status_code == 200
    segmenter.gate.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    assert app.test_client().post("/predict", json=predict_body(RED)).status_code == 200


def test_setup_hands_the_words_on_and_does_not_wait_for_them() -> None:
    segmenter = ColourSegmenter(words_known=False)
    may_embed = threading.Event()
    engine = colour_engine(segmenter)
    segmenter.embed.fault = lambda _: may_embed.wait(20)
    client = make_app(engine).test_client()
    for _ in range(3):
        assert client.post("/setup", json={"schema": brush_config("red")}).status_code == 200
    assert engine.snapshot().vocabularies == 1
    may_embed.set()
    assert client.post("/predict", json=predict_body(RED)).status_code == 200
    assert segmenter.embedded == [("grey",), ("red",)]


def test_basic_auth_guards_every_route_but_health() -> None:
    client = make_app(basic_auth_user="ann", basic_auth_pass="p:ä").test_client()
    right = {"Authorization": "Basic " + base64.b64encode("ann:p:ä".encode()).decode()}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ann:no").decode()}
    assert client.get("/health").status_code == 200
    for headers in ({}, wrong, {"Authorization": "Bearer x"}, {"Authorization": "Basic !!"}):
        for path in ("/setup", "/predict", "/webhook", "/versions", "/jobs", "/jobs/1/pause"):
            response = client.post(path, json=predict_body(RED), headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert client.get("/", headers=headers).status_code == 401
    assert client.get("/", headers=right).status_code == 200
    assert client.post("/predict", json=predict_body(RED), headers=right).status_code == 200


def test_webhooks_of_no_concern_are_accepted(client: FlaskClient) -> None:
    created = {"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 1}]}
    for body in ({"action": "ANNOTATION_CREATED"}, {}, created):
        response = client.post("/webhook", json=body)
        assert response.status_code == 200
        assert json.loads(response.data) == {"status": "ignored"}
    for garbage in (b"", b"[", b"null"):
        assert client.post("/webhook", data=garbage).status_code == 200


@pytest.mark.parametrize(
    ("settings", "config", "queued"),
    [
        ({"auto_prelabel": "7,12"}, "", True),
        ({"auto_prelabel": "all"}, "", True),
        ({"auto_prelabel": "12"}, "", False),
        ({}, brush_config("red"), False),
        ({}, brush_config("red", attributes='prelabel="auto"'), True),
        ({"auto_prelabel": "12"}, brush_config("red", attributes='prelabel="auto"'), True),
    ],
)
def test_new_tasks_are_queued_where_their_project_has_that_switched_on(
    settings: dict[str, str], config: str, queued: bool
) -> None:
    studio = {"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": "a" * 40}
    client = make_app(**studio, **settings).test_client()
    project = {"id": 7, "label_config": config}
    for task in (3, 4):
        body = {"action": "TASKS_CREATED", "project": project, "tasks": [{"id": task}]}
        answer = client.post("/webhook", json=body)
        assert answer.get_json()["status"] == ("queued" if queued else "ignored")
    jobs = JobStore.from_settings(Settings()).list_jobs()
    assert [(job.project, job.tasks) for job in jobs] == ([(7, (3, 4))] if queued else [])


def test_without_a_token_new_tasks_cannot_be_queued() -> None:
    body = {"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 1}]}
    client = make_app(auto_prelabel="all").test_client()
    assert client.post("/webhook", json=body).get_json() == {"status": "ignored"}


def test_no_route_but_health_is_forgotten() -> None:
    """Whatever routes there are: each is asked in each of its methods, and some that are none."""
    app = make_app(basic_auth_user="ann", basic_auth_pass="secret")
    client = app.test_client()
    asked = 0
    for rule in app.url_map.iter_rules():
        path = re.sub("<[^>]+>", "1", rule.rule)
        for method in {"GET", "POST", "OPTIONS", "DELETE", *(rule.methods or ())}:
            if path != "/health":
                assert client.open(path, method=method).status_code == 401
                asked += 1
    assert asked > 20
    for path in ("/health/", "//health", "/health/../", "/HEALTH", "/health;x", "/x", "/webhook/"):
        assert client.get(path).status_code == 401
    assert client.get("/health").status_code == 200


def test_the_webhook_opens_to_its_token_and_nothing_else_does() -> None:
    client = make_app(basic_auth_user="ann", basic_auth_pass="secret").test_client()
    token = hmac.new(b"secret", b"clearclip webhook ann", "sha256").hexdigest()
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.post(f"/webhook?token={token}", json={}).status_code == 200
    assert client.post("/webhook", headers=bearer, json={}).status_code == 200
    for path in ("/predict", "/setup", "/versions", "/", "/webhook/", "/webhook/../predict"):
        assert client.post(f"{path}?token={token}").status_code == 401
        assert client.post(path, headers=bearer).status_code == 401
    for wrong in ("", token[:-1], token.upper(), "secret", "ä"):
        assert client.post("/webhook", query_string={"token": wrong}).status_code == 401


def test_versions_answers_get_and_post(client: FlaskClient) -> None:
    expected = {"versions": ["ViT-B-16/openai clearclip"]}
    assert json.loads(client.get("/versions").data) == expected
    assert json.loads(client.post("/versions", json={"project": "1.7"}).data) == expected


def test_what_setup_sends_opens_pictures_on_that_host_only() -> None:
    from tests.backend.fakes.local_server import Answer, LocalServer

    png = base64.b64decode(data_url(flag("red")).partition(",")[2])
    token = "0123456789abcdef0123456789abcdef01234567"

    def route(asked: Any) -> Answer:
        return Answer(body=png) if asked.authorization == f"Token {token}" else Answer(401)

    with LocalServer(route) as studio, LocalServer(lambda _: Answer(body=png)) as other:
        client = make_app(allowed_hosts="127.0.0.1").test_client()
        client.post(
            "/setup",
            json={"schema": brush_config("red"), "hostname": studio.url, "access_token": token},
        )
        tasks = [{"id": 1, "data": {"image": "/data/upload/1/a.png"}}]
        tasks += [{"id": 2, "data": {"image": f"{other.url}/a.png"}}]
        results = json.loads(client.post("/predict", json=predict_body(*tasks)).data)["results"]
    assert all(results)
    assert [asked.authorization for asked in other.asked] == [None]


def test_a_request_is_one_line_with_its_id(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caplog.handler, "filters", [Facts()])
    caplog.set_level(logging.INFO, "backend")
    client = make_app().test_client()
    caplog.clear()
    response = client.post("/predict", json=predict_body(RED, {"id": 2, "data": {}}))
    records: list[Any] = caplog.records
    assert [record.getMessage().partition(":")[0] for record in records[-1:]] == ["POST /predict"]
    assert {record.facts["request"] for record in records} == {response.headers["X-Request-ID"]}
    assert sorted(record.facts["task"] for record in records[:-1]) == [1, 2]
    assert records[-1].facts["ms"] >= 0
    assert "task" not in records[-1].facts


def test_the_id_of_a_request_may_be_given(client: FlaskClient) -> None:
    given = client.get("/health", headers={"X-Request-ID": "proxy-7.1"})
    assert given.headers["X-Request-ID"] == "proxy-7.1"
    for bad in ("a b", "x" * 65, "é", '"', "a;b"):
        made = client.get("/health", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert made != bad
        assert len(made) == 12


def test_refusals_and_crashes_are_one_line_each(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    client.post("/predict", data=b"{")
    monkeypatch.setattr("backend.web.ml_backend.routes.parse_predict", lambda _: 1 / 0)
    client.post("/predict", json=predict_body(RED))
    refused, crashed = caplog.records
    assert refused.levelname == "WARNING"
    assert refused.getMessage().startswith("POST /predict: 400, Expected a body of JSON")
    assert (crashed.levelname, crashed.getMessage()) == ("ERROR", "POST /predict: 500")
    assert crashed.exc_info


def test_who_watches_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app().test_client()
    caplog.clear()
    caplog.set_level(logging.INFO, "backend")
    for path in ("/health", "/ready", "/status", "/metrics", "/", "/jobs"):
        assert client.get(path).status_code == 200
    assert caplog.records == []
    client.get("/nowhere")
    assert len(caplog.records) == 1


def test_label_studio_is_answered_for_as_many_tasks_as_there_may_be() -> None:
    client = make_app(max_tasks=2).test_client()
    body = predict_body(RED, RED, RED)
    by_studio = client.post("/predict", json=body, headers={"User-Agent": "heartex/1.23.2"})
    assert by_studio.status_code == 200
    entries = json.loads(by_studio.data)["results"]
    assert [bool(entry) for entry in entries] == [True, True, False]
    by_others = client.post("/predict", json=body)
    assert by_others.status_code == 429
    assert by_others.headers["Retry-After"]
    assert "MAX_TASKS" in error_of(by_others)
