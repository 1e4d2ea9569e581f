"""The routes as Label Studio calls them."""

import base64
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from label_studio_sdk.converter.brush import decode_rle

from backend.errors import Busy, ModelUnavailable
from backend.inference.engine import Engine
from backend.label_studio.requests import PredictRequest
from backend.prediction.predictor import Predictor
from backend.web import ml_backend
from backend.web.middleware.guards import RequestSlots, Slots
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    brush_config,
    colour_engine,
    data_url,
    flag,
)
from tests.backend.fakes.local_server import Answer, LocalServer
from tests.backend.fakes.waiting import wait_for
from tests.backend.web.browser import RED, error_of, make_app, predict_body


def predicted(client: FlaskClient, *tasks: Any, **body: Any) -> Any:
    response = client.post("/predict", json=predict_body(*tasks, **body))
    assert response.status_code == 200
    return response.get_json(force=True)["results"]


def test_masks_are_answered_in_their_place_under_the_version_of_setup() -> None:
    client = make_app(score="effort").test_client()
    setup = client.post("/setup", json={"project": "1.7", "schema": brush_config("red")})
    (other,) = predicted(client, RED, config=brush_config("blue"))
    assert [region["value"]["brushlabels"] for region in other["result"]] == [["blue"]]
    (entry,) = predicted(client, RED)
    assert setup.get_json(force=True) == {"model_version": entry["model_version"]}
    (region,) = entry["result"]
    mask = np.array(decode_rle(region["value"]["rle"])).reshape(40, 60, 4)[..., 3]
    assert (mask[:, :30] == 255).all()
    assert (mask[:, 30:] == 0).all()


def test_several_tasks_are_answered_while_the_database_is_away() -> None:
    client = make_app(database_url="postgresql+psycopg://ann@127.0.0.1:9/name").test_client()
    entries = predicted(client, *(RED | {"id": number} for number in (1, 2, 3)))
    assert [len(entry["result"]) for entry in entries] == [1, 1, 1]


@pytest.mark.parametrize(
    "image",
    [
        "/nowhere",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        data_url(flag("red"))[:-40],
        data_url(flag("red", size_hw=(1001, 1000))),  # over the limit
        7,
        None,
    ],
)
def test_a_bad_task_has_an_empty_entry_beside_a_good_one(
    caplog: pytest.LogCaptureFixture, image: str | int | None
) -> None:
    client = make_app(max_image_megapixels=1).test_client()
    bad, good = predicted(client, {"id": 9, "data": {"image": image} if image else {}}, RED)
    assert bad == []
    assert good["result"]
    assert "Task 9" in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/predict", b"", "Expected a body of JSON"),
        ("/predict", b"{", "Expected a body of JSON"),
        ("/predict", b"{}", "required field `tasks`"),
        ("/predict", b'{"tasks": []}', "required field `label_config`"),
        ("/predict", b'{"tasks": [], "label_config": "<View/>"}', "<Image"),
        ("/setup", b"{}", "required field `schema`"),
        ("/setup", b'{"schema": "<View>"}', "not well-formed XML"),
    ],
)
def test_wrong_requests_are_400(client: FlaskClient, path: str, body: bytes, sentence: str) -> None:
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
    (error,) = client.get("/status").get_json()["errors"]
    assert error["task"] is None
    assert "MAX_BODY_MB (1)" in error["sentence"]
    assert "select fewer tasks" in error["sentence"]
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert "select fewer tasks" in page


def test_after_submit_with_a_text_area_the_answer_is_empty(client: FlaskClient) -> None:
    assert predicted(client, RED, context={"result": []}) == [{"result": []}]


def test_once_loading_has_failed_setup_and_predict_say_how_to_help() -> None:
    sentence = "The weights are not on this machine: bring them"

    def load() -> Any:
        raise FileNotFoundError(sentence)

    engine = Engine(load, lambda: "m", retry_after_s=60)
    with engine, suppress(ModelUnavailable):
        engine.segmenter()
    client = make_app(engine).test_client()
    for response in (
        client.post("/predict", json=predict_body(RED)),
        client.post("/setup", json={"schema": brush_config("red")}),
    ):
        assert response.status == f"503 {sentence}"  # Label Studio keeps the reason phrase only
        assert error_of(response) == sentence
    assert client.get("/health").status_code == 200
    versions = {"versions": ["ViT-B-16/openai clearclip"]}
    assert client.get("/versions").get_json() == client.post("/versions").get_json() == versions


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
    wait_for(lambda: answers)
    assert [answer.status_code for answer in answers] == [429]  # the last, at once
    assert answers[0].headers["Retry-After"]
    assert app.test_client().get("/health").status_code == 200
    setup = app.test_client().post("/setup", json={"schema": brush_config("red")})
    assert setup.status_code == 200
    segmenter.gate.set()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.status_code for answer in answers) == [200] * 68 + [429]
    assert app.test_client().post("/predict", json=predict_body(RED)).status_code == 200


def test_what_setup_sends_opens_pictures_on_that_host_only() -> None:
    png = base64.b64decode(data_url(flag("red")).partition(",")[2])
    token = "0123456789abcdef0123456789abcdef01234567"

    def route(asked: Any) -> Answer:
        return Answer(body=png) if asked.authorization == f"Token {token}" else Answer(401)

    with LocalServer(route) as studio, LocalServer(lambda _: Answer(body=png)) as other:
        client = make_app(allowed_hosts="127.0.0.1").test_client()
        reach = {"hostname": studio.url, "access_token": token}
        client.post("/setup", json={"schema": brush_config("red")} | reach)
        tasks = [{"id": 1, "data": {"image": "/data/upload/1/a.png"}}]
        tasks += [{"id": 2, "data": {"image": f"{other.url}/a.png"}}]
        assert all(predicted(client, *tasks))
    assert [asked.authorization for asked in other.asked] == [None]


def test_tasks_over_the_limit_wait(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml_backend, "MAX_TASKS", 2)
    first, second, *others = predicted(client, *(RED | {"id": number} for number in range(4)))
    assert all((first["result"], second["result"]))
    assert others == [[], []]


def test_who_waits_too_long_for_a_slot_is_told_so() -> None:
    slots = Slots(1, waiting=1)
    with slots.hold(0), pytest.raises(Busy), slots.hold(0.01):
        pass


@pytest.mark.parametrize("threads", [4, 256])
def test_all_others_find_a_thread_while_all_slots_are_taken(threads: int) -> None:
    slots = RequestSlots(threads)
    held = (slots.bodies, slots.annotators, slots.batches)
    assert slots.threads > sum(each.places for each in held), "one more is refused"


@pytest.mark.parametrize(("count", "is_click"), [(1, True), (2, False)])
def test_what_somebody_waits_for_is_computed_in_the_threads_for_it(
    monkeypatch: pytest.MonkeyPatch, count: int, is_click: bool
) -> None:
    computed_in: list[str] = []

    def predict(_self: Predictor, asked: PredictRequest) -> list[Any]:
        computed_in.append(threading.current_thread().name)
        return [[] for _ in asked.tasks]

    monkeypatch.setattr(Predictor, "predict", predict)
    predicted(make_app().test_client(), *[RED] * count)
    assert [name.startswith("click") for name in computed_in] == [is_click]
