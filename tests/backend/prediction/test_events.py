"""What an editor may ask beside predictions: what there is, and to be ready for a click."""

from __future__ import annotations

import threading

from backend.errors import ImageNotFound
from backend.inference.feature_cache import FeatureCache
from backend.label_studio.requests import Context, PredictRequest, Task
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.waiting import wait_for
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def asked(event: str, *images: str, config: str = brush_config("red", "blue")) -> PredictRequest:
    tasks = tuple(Task(i, 1, {"image": image}) for i, image in enumerate(images, 1))
    return PredictRequest(tasks, config, 1, Context(event=event))


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
    predictor = Predictor(colour_engine(), lambda *_: flag("red"), Settings())
    assert len(predictor.predict(asked("capabilities", config="<View/>"))) == 1
    polygons = brush_config("red").replace("BrushLabels", "PolygonLabels")
    (entry,) = predictor.predict(asked("capabilities", config=polygons))
    assert [each["output"] for each in entry["result"][0]["value"]["targets"]] == ["polygon"]


def test_events_of_trackers_are_answered_with_an_empty_result() -> None:
    client = make_app().test_client()
    click = {"type": "keypointlabels", "value": {"x": 20, "y": 50, "keypointlabels": ["red"]}}
    for event in ("track", "something new"):
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
    wait_for(lambda: engine.snapshot().done == 1)
    encoded = engine.snapshot().windows
    assert encoded > 0
    predictor.predict(PredictRequest((Task(1, 1, {"image": "a"}),), brush_config("red"), 1))
    assert engine.snapshot().windows == encoded


def test_prewarm_keeps_the_picture_of_the_first_click() -> None:
    client = make_app().test_client()
    body = predict_body({"id": 1, "data": {"image": data_url(flag("red"))}})
    prewarm = body | {"params": {"context": {"event": "prewarm", "frame": 0}}}
    assert client.post("/predict", json=prewarm).get_json() == {"results": [{"result": []}]}
    wait_for(lambda: client.get("/status").get_json()["caches"]["pictures"]["misses"] == 1)


def test_prewarms_that_fail_cost_nothing_and_of_very_many_some_are_left_out() -> None:
    engine, tried, may_read = colour_engine(), list[str](), threading.Event()

    def read(source: str, task: Task) -> RGBArray:
        tried.append(source)
        assert may_read.wait(20)
        if source == "gone":
            raise ImageNotFound("There is no image.")
        if source == "broken":
            raise ZeroDivisionError
        return flag("red")

    predictor = Predictor(engine, read, Settings())
    predictor.predict(asked("prewarm", *map(str, range(40))))
    may_read.set()
    wait_for(lambda: engine.snapshot().done == 16)
    assert len(tried) == 16
    answer = predictor.predict(asked("prewarm", "gone", "broken", "there"))
    assert answer == [{"result": []}] * 3
    wait_for(lambda: engine.snapshot().done == 17)
    assert sorted(tried[16:]) == ["broken", "gone", "there"]
