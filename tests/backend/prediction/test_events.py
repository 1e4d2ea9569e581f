"""What an editor may ask beside predictions: what there is, and to be ready for a click."""

from __future__ import annotations

import threading
import time
from typing import Any

from backend.errors import ImageNotFound
from backend.inference.feature_cache import FeatureCache
from backend.label_studio.requests import Context, PredictRequest, Task
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def asked(event: str, *images: str, config: str = brush_config("red", "blue")) -> PredictRequest:
    tasks = tuple(Task(i, 1, {"image": image}) for i, image in enumerate(images, 1))
    return PredictRequest(tasks, config, 1, Context(event=event))


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_capabilities_name_what_is_asked_with_and_drawn() -> None:
    client = make_app(model="demo").test_client()
    context = {"event": "capabilities"}
    response = client.post("/predict", json=predict_body(RED, context=context))
    assert response.status_code == 200
    (entry,) = response.get_json()["results"]
    (region,) = entry["result"]
    assert region["type"] == "capabilities"
    assert region["value"] == {
        "prompts": ["point", "box"],
        "targets": [
            {"tag": "BitmaskLabels", "output": "mask"},
            {"tag": "RectangleLabels", "output": "bbox"},
            {"tag": "PolygonLabels", "output": "polygon"},
        ],
        "model_info": {"name": "ClearCLIP", "version": "demo clearclip"},
    }


def test_capabilities_need_no_task_and_name_what_the_config_has() -> None:
    predictor = Predictor(colour_engine(), lambda *_: flag("red"), Settings())
    assert len(predictor.predict(asked("capabilities", config="<View/>"))) == 1
    polygons = brush_config("red").replace("BrushLabels", "PolygonLabels")
    (entry,) = predictor.predict(asked("capabilities", config=polygons))
    assert [each["output"] for each in entry["result"][0]["value"]["targets"]] == ["polygon"]


def test_events_of_trackers_are_answered_with_an_empty_result() -> None:
    client = make_app().test_client()
    click = {"type": "keypointlabels", "value": {"x": 20, "y": 50, "keypointlabels": ["red"]}}
    for event in ("track", "track_progress", "track_cancel", "release", "something new"):
        for context in ({"event": event, "session_id": "a"}, {"event": event, "result": [click]}):
            response = client.post("/predict", json=predict_body(RED, context=context))
            assert response.get_json() == {"results": [{"result": []}]}, event


def test_prewarm_answers_at_once_and_the_click_finds_the_features() -> None:
    engine = colour_engine(cache=FeatureCache(1 << 24))
    may_read, reads = threading.Event(), []

    def read(source: str, task: Task) -> RGBArray:
        assert may_read.wait(20)
        reads.append(source)
        return flag("red", "blue")

    predictor = Predictor(engine, read, Settings())
    assert predictor.predict(asked("prewarm", "a")) == [{"result": []}]
    assert reads == []
    may_read.set()
    until(lambda: engine.snapshot().done == 1)
    assert engine.snapshot().windows > 0
    encoded = engine.snapshot().windows
    predictor.predict(PredictRequest((Task(1, 1, {"image": "a"}),), brush_config("red"), 1))
    assert engine.snapshot().windows == encoded


def test_prewarm_keeps_the_picture_of_the_first_click() -> None:
    app = make_app()
    client = app.test_client()
    body = predict_body({"id": 1, "data": {"image": data_url(flag("red"))}})
    prewarm = body | {"params": {"context": {"event": "prewarm", "frame": 0}}}
    assert client.post("/predict", json=prewarm).get_json() == {"results": [{"result": []}]}
    until(lambda: client.get("/status").get_json()["caches"]["pictures"]["misses"] == 1)


def test_a_prewarm_that_fails_costs_nothing() -> None:
    engine, tried = colour_engine(), []

    def read(source: str, task: Task) -> RGBArray:
        tried.append(source)
        if source == "gone":
            raise ImageNotFound("There is no image.")
        if source == "broken":
            raise ZeroDivisionError
        return flag("red")

    predictor = Predictor(engine, read, Settings())
    answer = predictor.predict(asked("prewarm", "gone", "broken", "there"))
    assert answer == [{"result": []}] * 3
    until(lambda: engine.snapshot().done == 1)
    assert sorted(tried) == ["broken", "gone", "there"]


def test_of_very_many_prewarms_some_are_left_out() -> None:
    may_read, begun = threading.Event(), []

    def read(source: str, task: Task) -> RGBArray:
        begun.append(source)
        assert may_read.wait(20)
        return flag("red")

    engine = colour_engine()
    predictor = Predictor(engine, read, Settings())
    predictor.predict(asked("prewarm", *map(str, range(40))))
    may_read.set()
    until(lambda: engine.snapshot().done == 16)
    assert len(begun) == 16
    predictor.predict(asked("prewarm", "later"))
    until(lambda: engine.snapshot().done == 17)
