"""The routes as Label Studio calls them."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from label_studio_sdk.converter.brush import decode_rle

from backend.inference.engine import Engine
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.web.requests_to_app import RED, error_of, failing_engine, make_app, predict_body


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


def test_several_tasks_are_answered_while_the_database_is_away() -> None:
    app = make_app(database_url="postgresql+psycopg://ann@127.0.0.1:9/name")
    one, *_ = predict_body(RED)["tasks"]
    body = predict_body(RED) | {"tasks": [one | {"id": number} for number in (1, 2, 3)]}
    response = app.test_client().post("/predict", json=body)
    entries = json.loads(response.data)["results"]
    assert [len(entry["result"]) for entry in entries] == [1, 1, 1]


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
        ("/predict", b"[]", "Expected `object`"),
        ("/predict", b"{}", "required field `tasks`"),
        ("/predict", b'{"tasks": {}}', "`$.tasks`"),
        ("/predict", b'{"tasks": []}', "required field `label_config`"),
        ("/predict", b'{"tasks": [], "label_config": "<View>"}', "not well-formed XML"),
        ("/predict", b'{"tasks": [], "label_config": "<View/>"}', "<Image"),
        ("/setup", b"{}", "required field `schema`"),
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


def test_waiting_predictions_leave_threads_for_health_and_setup() -> None:
    segmenter = ColourSegmenter()
    app = make_app(colour_engine(segmenter), threads=4)  # 64 more may wait
    segmenter.gate.clear()
    answers: list[Any] = []

    def predict() -> None:
        answers.append(app.test_client().post("/predict", json=predict_body(RED)))

    threads = [threading.Thread(target=predict) for _ in range(69)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while not answers and time.monotonic() < end:
        time.sleep(0.01)
    assert [answer.status_code for answer in answers] == [429]  # the last, at once
    assert answers[0].headers["Retry-After"]
    assert app.test_client().get("/health").status_code == 200
    setup = app.test_client().post("/setup", json={"schema": brush_config("red")})
    assert setup.status_code == 200
    segmenter.gate.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [200] * 68 + [429]
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
