"""Request bodies as Label Studio 1.23 sends them, and wrong ones."""

import json
import time
import tracemalloc
from typing import Any

import pytest

from backend.errors import BadRequest, PayloadTooLarge
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import Context, Keypoint, Phrase, Phrases, Prompt, read_context
from backend.label_studio.region_reader import Rectangle
from backend.label_studio.requests import parse_predict, parse_setup, parse_webhook
from backend.settings import Settings
from clearclip_core import Label
from tests.backend.fakes.colour_segmenter import brush_config

CONFIG = brush_config("red")
SETTINGS = Settings(score="effort")


def _body(**changes: Any) -> bytes:
    message = {
        "tasks": [{"id": 1, "project": 7, "data": {"image": "/data/upload/7/a.png"}}],
        "project": "7.1700000000",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }
    return json.dumps(message | changes).encode()


def test_a_batch_request() -> None:
    task = {"id": 1, "project": 7, "data": {"image": "/data/upload/7/a.png"}}
    old = [{"result": [{"value": {"rle": [1, 2, 3]}}]}]
    with_old = task | {"annotations": old, "predictions": "nonsense", "drafts": None}
    request = parse_predict(_body(tasks=[with_old] * 3), SETTINGS, max_tasks=1)
    assert (request.config, request.project_id) == (parse_label_config(CONFIG, SETTINGS), 7)
    assert (request.event, request.prompt, request.tasks_left_out) == ("", None, 2)
    (read,) = request.tasks
    assert (read.id, read.project_id, read.drawn) == (1, 7, ())
    assert read.data == {"image": "/data/upload/7/a.png"}


@pytest.mark.parametrize(
    "task", [{}, {"id": 10**30}, {"id": 4, "data": "x"}, {"data": {"n": "1e999"}}]
)
def test_a_strange_task_fails_alone(task: Any) -> None:
    good = {"id": 5, "data": {"image": "x"}}
    body = _body(tasks=[task, good]).replace(b'"1e999"', b"1e999")
    first, second = parse_predict(body, SETTINGS).tasks
    assert (first.id in (None, 4), first.data) == (True, {})
    assert second.data == {"image": "x"}


def _context(*regions: Any) -> Context:
    context = read_context({"result": list(regions)})
    assert context is not None
    return context


def test_prompts_as_the_editor_sends_them() -> None:
    """Of words the last count: those before have been answered; the text area keeps them all."""
    place = {"from_name": "click", "to_name": "img", "original_width": 640, "original_height": 480}
    value = {"x": 12.5, "y": 30, "width": 0.4, "keypointlabels": ["sky"]}
    click = {"id": "a", "type": "keypointlabels", "is_positive": True, "value": value, **place}
    newer = {"type": "keypoint", "value": value | {"positive": False}}
    first, second, third = _context(click, click | {"is_positive": False}, newer).prompts
    assert first == Prompt(Keypoint(12.5, 30.0, positive=True), ("sky",), "click", "img", None, "a")
    assert second.shape == third.shape == Keypoint(12.5, 30.0, positive=False)
    value = {"x": 1, "y": 2, "width": 30, "height": 40, "rotation": 15, "rectanglelabels": ["a"]}
    box = {"type": "rectanglelabels", "item_index": 2, "value": value}
    words = {"type": "textarea", "from_name": "w", "value": {"text": ["black cat", "red car, sky"]}}
    assert _context(box, words).prompts == (
        Prompt(Rectangle(1, 2, 30, 40, 15), ("a",), item_index=2),
        Prompt("red car, sky", control="w"),
    )


BOX = {"x": 0, "y": 0, "width": 1, "height": 1}


@pytest.mark.parametrize(
    "region",
    [
        "nonsense",
        {},
        {"type": "keypointlabels"},
        {"type": "keypointlabels", "value": {"x": True, "y": 1}},
        {"type": "keypointlabels", "value": {"x": 10**400, "y": 1}},
        {"type": "rectanglelabels", "value": BOX | {"width": None}},
        {"type": "rectanglelabels", "value": BOX | {"height": -1}},
        {"type": "textarea", "value": {"text": [" "]}},
        {"type": "textarea", "value": BOX | {"text": ["describes a region"]}},
        {"type": "textarea", "value": {"points": [[1, 1], [2, 1], [2, 2]], "text": ["a note"]}},
        {"type": "textarea", "value": {"format": "rle", "rle": [1, 2], "text": ["a note"]}},
        {"type": "brushlabels", "value": {"rle": [], "brushlabels": ["dog"]}},
        {"type": ["textarea"], "value": {}},
    ],
)
def test_what_is_no_prompt_costs_no_other(region: Any) -> None:
    words = {"type": "textarea", "value": {"text": "cat"}}
    assert _context(region, words).prompts == (Prompt("cat"),)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"\xff\xfe", "Expected a body of JSON"),
        (b'{"tasks": [{"old": ' + b"[" * 200_000, "nested too deeply"),
        (_body()[:-1], "Expected a body of JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (_body(tasks=[{}, 3]), r"Expected `object`, got `int` - at `\$.tasks\[1\]`"),
        (_body(label_config=None), "label_config"),
        (_body(params={"context": "x"}), '"context" to hold a list "result"'),
        (_body(params={"context": {"result": 1}}), 'hold a list "result"'),
        (_body(params={"context": [1e300]}).replace(b"e+300", b"e999"), "Number out of range"),
    ],
)
def test_wrong_predict_requests(body: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        parse_predict(body, SETTINGS)


def test_setup() -> None:
    place = {"hostname": "http://studio:8080", "access_token": "c" * 40, "extra_params": None}
    message = {"project": "7.1700000000", "schema": CONFIG} | place
    request = parse_setup(json.dumps(message).encode())
    assert (request.label_config, request.project_id) == (CONFIG, 7)
    assert (request.hostname, request.access_token) == ("http://studio:8080", "c" * 40)
    assert "cccc" not in repr(request)
    with pytest.raises(BadRequest):
        parse_setup(b'{"schema": 1}')


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"action": "MADE", "tasks": [{"id": "x"}], "project": {"id": 7}}', (7, "MADE")),
        *((b'{"project": {"id": 7}}', (7, "")), (b'{"project": {"id": "7"}}', (None, ""))),
        *((b'{"project": {"id": 7}', (None, "")), (b"[" * 100_000, (None, ""))),
    ],
)
def test_a_webhook_names_its_project(body: bytes, read: tuple[int | None, str]) -> None:
    assert parse_webhook(body) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [("a" * 100_000, "a" * 1000), ("half \ud83d of a letter", "half ? of a letter")],
)
def test_what_is_typed_can_be_tokenized(text: str, read: str) -> None:
    region = {"type": "textarea", "value": {"text": [text]}}
    request = parse_predict(_body(params={"context": {"result": [region]}}), SETTINGS)
    assert request.prompt.query == Phrases((Phrase((read,), Label("red")),))


def test_a_context_has_a_bounded_number_of_boxes_and_words() -> None:
    click = {"type": "keypointlabels", "value": {"x": 1, "y": 2}}
    box = {"type": "rectanglelabels", "value": {"x": 1, "y": 2, "width": 3, "height": 4}}
    found = _context(*[box] * 500, *[click] * 501, *["no prompt"] * 500)
    assert len(found.prompts) == 1001
    with pytest.raises(BadRequest, match="501 boxes and words, more than 500"):
        _context(*[box] * 501)


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": [{}] * 70_000},
        {"tasks": [{"data": {"a": [1] * 500}}] * 3},
        {"params": {"context": [0] * 1001}},
    ],
    ids=["tasks", "data", "context"],
)
def test_much_memory_is_refused(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_studio.requests._MAX_OBJECTS", 60_000)
    monkeypatch.setattr("backend.label_studio.requests._MAX_VALUES", 1000)
    with pytest.raises(PayloadTooLarge):
        parse_predict(_body(**change), SETTINGS)


def test_old_annotations_are_skipped_in_time_and_without_memory() -> None:
    old = b'{"id": 1, "data": {"image": "x"}, "annotations": [{"rle": [%s1]}]}' % (
        b"1," * 5_000_000
    )
    start = json.dumps({"label_config": CONFIG})[:-1].encode()
    body = b'%s, "tasks": [%s]}' % (start, b",".join([old] * 3))
    tracemalloc.start()
    try:
        began = time.process_time()
        assert len(parse_predict(body, SETTINGS).tasks) == 3
        assert time.process_time() - began < 3, "it takes 0.1 s on a quiet machine"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ud83d\u0041"])
def test_half_an_emoji_costs_nothing_else(half: str) -> None:
    """Neither in what is skipped nor in what is read; whole ones and backslashes stay."""
    body = _body(
        tasks=[
            {"id": 1, "data": {"image": "half", "whole": "\U0001f600 \\ud83d"}, "old": "half"},
            {"id": 2, "data": {"image": "x"}, "annotations": [{"result": 10**18, "n": 10**400}]},
        ]
    )
    first, second = parse_predict(body.replace(b"half", half.encode()), SETTINGS).tasks
    assert first.data["whole"] == "\U0001f600 \\ud83d"
    assert first.data["image"][0] == "?"
    assert second.data == {"image": "x"}
