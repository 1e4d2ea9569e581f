from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

from backend.errors import Busy, ImageNotFound, ImageRefused, LabelConfigError, ModelUnavailable
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import (
    Context,
    Keypoint,
    PredictRequest,
    Prompt,
    Rectangle,
    Task,
    TypedWords,
)
from backend.prediction.batches import Outcome
from backend.prediction.predictor import Predictor, priority
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from clearclip_core import RGBArray
from tests.backend.fakes.colour_segmenter import ColourSegmenter, brush_config, colour_engine, flag

IMAGES = {
    "flag": flag("red", "white", "blue"),
    "red": flag("red"),
    "wide": flag("red", "blue", size_hw=(10, 200)),
}


def read_image(source: str, task: Task) -> RGBArray:
    if source not in IMAGES:
        raise ImageNotFound(f"There is no image {source}.")
    return IMAGES[source]


def make_predictor(**settings: object) -> Predictor:
    return Predictor(colour_engine(), read_image, Settings(**settings))  # type: ignore[arg-type]


def request(
    config: str, *images: str, context: Context | None = None, first: int = 1
) -> PredictRequest:
    tasks = tuple(Task(i, 1, {"image": image}) for i, image in enumerate(images, first))
    return PredictRequest(tasks, config, 1, context)


def mask_of(region: dict[str, object]) -> npt.NDArray[np.bool_]:
    """Decoded by Label Studio's own converter."""
    flat = np.array(decode_rle(region["value"]["rle"]))  # type: ignore[index]
    shape = (region["original_height"], region["original_width"], 4)
    return flat.reshape(shape)[..., 3] > 127  # type: ignore[no-any-return, arg-type]


def test_each_label_is_one_region_in_its_place() -> None:
    (entry,) = make_predictor().predict(request(brush_config("blue", "red"), "flag"))
    assert isinstance(entry, dict)
    blue, red = entry["result"]
    assert blue["value"]["brushlabels"] == ["blue"]
    assert red["value"]["brushlabels"] == ["red"]
    expected = np.zeros((40, 60), bool)
    expected[:, :20] = True
    assert np.array_equal(mask_of(red), expected)
    assert np.array_equal(mask_of(blue), expected[:, ::-1])


def test_scores_are_means_over_pixels() -> None:
    """The stand-in is 0.75 sure on the left half, 0.5 on the right: red 20 px, blue 20 px."""
    (entry,) = make_predictor().predict(request(brush_config("blue", "red"), "flag"))
    assert isinstance(entry, dict)
    assert [region["score"] for region in entry["result"]] == [0.5, 0.75]
    assert entry["score"] == pytest.approx((0.5 + 0.75) / 2)


def test_every_prediction_is_valid_to_the_sdk() -> None:
    config = (
        '<View><Image name="image" value="$image"/>'
        '<PolygonLabels name="p" toName="image"><Label value="red"/></PolygonLabels>'
        '<BrushLabels name="b" toName="image"><Label value="red"/><Label value="blue"/>'
        "</BrushLabels>"
        '<RectangleLabels name="r" toName="image"><Label value="blue"/></RectangleLabels>'
        '<BitmaskLabels name="m" toName="image"><Label value="white"/></BitmaskLabels></View>'
    )
    (entry,) = make_predictor().predict(request(config, "flag"))
    assert isinstance(entry, dict)
    kinds = [region["type"] for region in entry["result"]]
    assert kinds == ["brushlabels"] * 2 + ["bitmasklabels", "polygonlabels", "rectanglelabels"]
    assert LabelInterface(config).validate_prediction(entry)


def test_one_bad_task_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    entries = make_predictor().predict(request(brush_config("red"), "red", "gone", "flag"))
    assert [bool(entry) for entry in entries] == [True, False, True]
    assert entries[1] == []
    assert "Task 2 has no prediction: There is no image gone." in caplog.text


def test_a_crash_of_one_picture_stays_with_it(caplog: pytest.LogCaptureFixture) -> None:
    entries = make_predictor().predict(request(brush_config("red", "crash"), "red", "flag"))
    assert entries == [[], []]
    assert "Task 1 has no prediction" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_several_images_and_lists_keep_their_places() -> None:
    config = (
        '<View><Image name="one" value="$a.front"/><Image name="many" valueList="$pages"/>'
        '<BrushLabels name="m" toName="many"><Label value="blue"/></BrushLabels>'
        '<BrushLabels name="o" toName="one"><Label value="red"/></BrushLabels></View>'
    )
    data = {"a": {"front": "red"}, "pages": ["red", "flag", "wide"]}
    (entry,) = make_predictor().predict(PredictRequest((Task(1, 1, data),), config))
    assert isinstance(entry, dict)
    places = [(r["to_name"], r.get("item_index"), r["original_width"]) for r in entry["result"]]
    assert places == [("one", None, 60), ("many", 1, 60), ("many", 2, 200)]


TWO_TAGS = (
    '<View><Image name="one" value="$front"/><Image name="many" valueList="$pages"/>'
    '<BrushLabels name="m" toName="one,many"><Label value="red"/></BrushLabels>'
    '<TextArea name="words" toName="many"/></View>'
)


@pytest.mark.parametrize(
    ("data", "places", "reason", "sentence"),
    [
        (
            {"front": "red", "pages": ["red", "gone", "flag"]},
            [("one", None), ("many", 0), ("many", 2)],
            "ImageNotFound",
            "Predicted without 1 of 4 pictures: There is no image gone.",
        ),
        (
            {"front": "gone", "pages": ["red", "gone"]},
            [("many", 0)],
            "ImageNotFound",
            "Predicted without 2 of 3 pictures: There is no image gone.",
        ),
        (
            {"pages": ["red"]},
            [("many", 0)],
            "DataKeyError",
            'Predicted without 1 of 2 pictures: The label config asks for "$front", but the '
            "task's data has only: pages.",
        ),
    ],
)
def test_a_missing_picture_costs_no_other_of_its_task(
    data: dict[str, Any],
    places: list[tuple[str, int | None]],
    reason: str,
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = TaskTracker()
    predictor = Predictor(colour_engine(), read_image, Settings(), tracker=tracker)
    (entry,) = predictor.predict(PredictRequest((Task(5, 1, data),), TWO_TAGS))
    assert isinstance(entry, dict)
    assert [(r["to_name"], r.get("item_index")) for r in entry["result"]] == places
    (record,) = tracker.failures
    assert (record.task, record.reason, record.sentence) == (5, reason, sentence)
    assert (record.failed, record.pictures) == (False, len(places))
    assert (tracker.done, tracker.failed, tracker.projects) == (1, 0, {None: (1, 0)})
    assert sentence in caplog.text


def test_words_are_answered_on_the_pictures_that_are_there() -> None:
    task = Task(1, 1, {"front": "red", "pages": ["gone", "flag"]})
    words = Context((Prompt(TypedWords("red"), control="words", image="many"),))
    (entry,) = make_predictor().predict(PredictRequest((task,), TWO_TAGS, 1, words))
    assert isinstance(entry, dict)
    assert [r["item_index"] for r in entry["result"]] == [1]


def test_a_task_without_any_of_its_pictures_fails() -> None:
    task = Task(1, 1, {"front": "gone", "pages": ["gone"]})
    tracker = TaskTracker()
    predictor = Predictor(colour_engine(), read_image, Settings(), tracker=tracker)
    assert predictor.predict(PredictRequest((task,), TWO_TAGS)) == [[]]
    (record,) = tracker.failures
    assert (record.failed, record.sentence) == (True, "There is no image gone.")


def read_or_refuse(source: str, task: Task) -> RGBArray:
    if source == "away":
        raise ImageRefused("The host of away cannot be reached.")
    return read_image(source, task)


@pytest.mark.parametrize("priority", [Priority.BATCH, Priority.OPENED])
def test_a_refused_picture_costs_no_other_of_its_task(priority: Priority) -> None:
    tracker = TaskTracker()
    predictor = Predictor(colour_engine(), read_or_refuse, Settings(), tracker=tracker)
    spec = predictor.spec(parse_label_config(TWO_TAGS), priority, 1, None)
    data = {"front": "away", "pages": ["away", "red"]}
    outcome = predictor.outcome(Task(1, 1, data), spec)
    assert isinstance(outcome.entry, dict)
    assert [(r["to_name"], r["item_index"]) for r in outcome.entry["result"]] == [("many", 1)]
    sentence = "Predicted without 2 of 3 pictures: The host of away cannot be reached."
    assert (outcome.reason, outcome.may_pass, outcome.missing) == ("", False, sentence)
    (record,) = tracker.failures
    assert (record.reason, record.sentence, record.failed) == ("ImageRefused", sentence, False)


@pytest.mark.parametrize("pages", [["away"], ["gone", "away"]])
def test_a_task_whose_pictures_are_all_refused_or_missing_is_asked_for_again(
    pages: list[str],
) -> None:
    predictor = Predictor(colour_engine(), read_or_refuse, Settings())
    spec = predictor.spec(parse_label_config(TWO_TAGS), Priority.BATCH, 1, None)
    outcome = predictor.outcome(Task(1, 1, {"front": "gone", "pages": pages}), spec)
    assert outcome == Outcome([], "The host of away cannot be reached.", may_pass=True)


def test_the_version_is_the_one_of_the_predictions() -> None:
    predictor = make_predictor()
    config = brush_config("red")
    (entry,) = predictor.predict(request(config, "red"))
    assert isinstance(entry, dict)
    assert entry["model_version"] == predictor.versions.current(parse_label_config(config))


def test_a_config_with_nothing_to_draw_is_refused() -> None:
    with pytest.raises(LabelConfigError, match="BrushLabels"):
        make_predictor().predict(request('<View><Image name="i" value="$image"/></View>', "red"))


def test_a_model_that_failed_costs_the_request_not_the_tasks() -> None:
    def load() -> None:
        raise FileNotFoundError("no weights")

    engine = Engine(load, lambda: "m", retry_after_s=60)  # type: ignore[arg-type]
    engine.start()
    with pytest.raises(ModelUnavailable):
        Predictor(engine, read_image, Settings()).predict(request(brush_config("red"), "red"))
    engine.stop()


def test_who_waits_decides_the_urgency() -> None:
    config = brush_config("red")
    click = Context((Prompt(Keypoint(50, 50), ("red",)),))
    assert priority(request(config, "red", context=click)) is Priority.INTERACTIVE
    assert priority(request(config, "red")) is Priority.OPENED
    assert priority(request(config, "red", "flag")) is Priority.BATCH


def test_a_slow_picture_holds_up_no_other_of_its_batch() -> None:
    others_done = threading.Event()
    read: list[str] = []

    def slow_first(source: str, task: Task) -> RGBArray:
        read.append(source)
        if len(read) == 12:
            others_done.set()
        if source == "1":
            assert others_done.wait(20)
        return flag("red", size_hw=(2, int(source)))

    predictor = Predictor(colour_engine(), slow_first, Settings())
    entries = predictor.predict(request(brush_config("red"), *map(str, range(1, 13))))
    assert all(entries)


def test_a_batch_gets_through_a_queue_of_one_beside_others() -> None:
    predictor = Predictor(colour_engine(queue_size=1), read_image, Settings())
    images = ["red", "flag", "wide"] * 7
    bodies = [request(brush_config("red"), *images, first=100 * number) for number in range(5)]
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda body=body: answers.append(predictor.predict(body)))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(answer) for answer in answers] == [21] * 5
    assert all(all(answer) for answer in answers)


def test_a_full_queue_is_no_empty_prediction() -> None:
    segmenter = ColourSegmenter()
    engine = colour_engine(segmenter, queue_size=1)
    predictor = Predictor(engine, read_image, Settings())
    click = Context((Prompt(Keypoint(10, 50), ("red",)),))

    def ask(picture: str) -> None:
        predictor.predict(request(brush_config("red"), picture, context=click))

    segmenter.gate.clear()
    holding = threading.Thread(target=ask, args=["red"], daemon=True)
    holding.start()
    assert segmenter.started.acquire(timeout=20)
    with pytest.raises(Busy, match="try again"):
        ask("flag")
    segmenter.gate.set()
    holding.join(20)


def test_priming_embeds_the_words_of_a_config_once() -> None:
    segmenter = ColourSegmenter(words_known=False)
    engine = colour_engine(segmenter)
    predictor = Predictor(engine, read_image, Settings())
    for _ in range(3):
        predictor.warm_up(parse_label_config(brush_config("red", "blue")))
    predictor.predict(request(brush_config("red", "blue"), "red"))
    assert segmenter.embedded == [("grey",), ("red",), ("blue",)]


LABELS = '<Label value="red"/><Label value="blue"/>'


def three_controls(brush: str = "", polygon: str = "", rectangle: str = "") -> str:
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="b" toName="image" {brush}>{LABELS}</BrushLabels>'
        f'<PolygonLabels name="p" toName="image" {polygon}>{LABELS}</PolygonLabels>'
        f'<RectangleLabels name="r" toName="image" {rectangle}>{LABELS}</RectangleLabels></View>'
    )


def kinds_of(entry: object) -> list[str]:
    assert isinstance(entry, dict)
    return [region["type"] for region in entry["result"]]


def test_a_prompt_is_answered_in_one_form_by_a_control_that_is_predicted_if_there_is_one() -> None:
    off = 'prelabel="no"'
    config = three_controls(polygon=off, rectangle=off)
    predictor = make_predictor()
    (opened,) = predictor.predict(request(config, "flag"))
    assert kinds_of(opened) == ["brushlabels"] * 2
    batch = predictor.predict(request(config, "flag", "red"))
    assert list(map(kinds_of, batch)) == [["brushlabels"] * 2, ["brushlabels"]]
    click = Prompt(Keypoint(10, 50), ("red",), image="image")
    box = Prompt(Rectangle(0, 0, 40, 100), ("red",), image="image")
    for prompt in (click, box, Prompt(TypedWords("red")), Prompt(TypedWords("red all"))):
        (answer,) = predictor.predict(request(config, "flag", context=Context((prompt,))))
        assert kinds_of(answer) == ["brushlabels"], prompt
    alone = three_controls(brush=off, polygon=off, rectangle=off)
    (answer,) = predictor.predict(request(alone, "flag", context=Context((click,))))
    assert kinds_of(answer) == ["brushlabels"], "the first that has the label"


def test_labels_that_are_not_predicted_compete_nevertheless() -> None:
    config = (
        '<View><Image name="image" value="$image"/>'
        '<BrushLabels name="b" toName="image"><Label value="red"/></BrushLabels>'
        '<BrushLabels name="n" toName="image" prelabel="no"><Label value="blue"/></BrushLabels>'
        "</View>"
    )
    (entry,) = make_predictor(score="effort").predict(request(config, "flag"))
    (alone,) = make_predictor().predict(request(brush_config("red", "blue"), "flag"))
    assert isinstance(entry, dict)
    assert isinstance(alone, dict)
    (red,) = entry["result"]
    assert red["value"] == alone["result"][0]["value"]
    assert 0 <= entry["score"] <= 1


def test_a_picture_of_which_nothing_is_predicted_is_not_read() -> None:
    predictor = make_predictor()
    config = brush_config("red", attributes='prelabel="no"')
    (entry,) = predictor.predict(request(config, "gone"))
    assert isinstance(entry, dict)
    assert entry["result"] == []
    assert entry["model_version"] == predictor.versions.current(parse_label_config(config))
