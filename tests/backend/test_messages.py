"""Request bodies as Label Studio 1.23 sends them, and wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.errors import BadRequest
from backend.messages import Context, parse_predict, parse_setup

CONFIG = '<View><Image name="i" value="$image"/></View>'


def _body(**changes: Any) -> bytes:
    message = {
        "tasks": [{"id": 1, "project": 7, "data": {"image": "/data/upload/7/a.png"}}],
        "project": "7.1700000000",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }
    return json.dumps(message | changes).encode()


def test_a_batch_request() -> None:
    request = parse_predict(_body())
    assert request.label_config == CONFIG
    assert request.project_id == 7
    assert request.context is None
    (task,) = request.tasks
    assert (task.id, task.project_id) == (1, 7)
    assert task.data == {"image": "/data/upload/7/a.png"}


def test_old_annotations_are_left_behind() -> None:
    old = [{"result": [{"value": {"rle": [1, 2, 3]}}]}]
    task = {"id": 1, "data": {}, "annotations": old, "predictions": "nonsense", "drafts": None}
    (parsed,) = parse_predict(_body(tasks=[task])).tasks
    assert "rle" not in repr(parsed)


@pytest.mark.parametrize("task", [None, 3, [], {}, {"id": None}, {"id": 4, "data": "x"}])
def test_a_strange_task_fails_alone(task: Any) -> None:
    good = {"id": 5, "data": {"image": "x"}}
    first, second = parse_predict(_body(tasks=[task, good])).tasks
    assert first.data == {}
    assert second.data == {"image": "x"}


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ({"type": "keypointlabels", "value": {"x": 1, "keypointlabels": ["sky"]}}, ("sky",)),
        ({"type": "rectanglelabels", "value": {"rectanglelabels": ["a", "b"]}}, ("a", "b")),
        ({"type": "brushlabels", "value": {"rle": [], "brushlabels": ["dog"]}}, ("dog",)),
        ({"type": "textarea", "value": {"text": ["black cat"]}}, ()),
        ({"type": "keypointlabels", "value": {"keypointlabels": "sky"}}, ()),
        ({"type": "keypointlabels"}, ()),
        ("nonsense", ()),
    ],
)
def test_labels_of_the_context(value: Any, labels: tuple[str, ...]) -> None:
    request = parse_predict(_body(params={"context": {"result": [value, value]}}))
    assert request.context == Context(regions=2, labels=labels)


def test_the_empty_context_after_submit() -> None:
    assert parse_predict(_body(params={"context": {"result": []}})).context == Context(regions=0)


@pytest.mark.parametrize("params", [None, [], {}, {"context": None}, {"context": {}}])
def test_no_context(params: Any) -> None:
    assert parse_predict(_body(params=params)).context is None


def test_ids_may_be_words() -> None:
    request = parse_predict(_body(project="none", tasks=[{"id": "t1", "data": {}}]))
    assert request.project_id is None
    assert request.tasks[0].id == "t1"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "Expected a body of JSON"),
        (b"\xff\xfe", "Expected a body of JSON"),
        (b"tasks=1", "Expected a body of JSON"),
        (b"[" * 100_000, "Expected a body of JSON"),
        (b"[]", "Expected a JSON object, but got a list"),
        (b"null", "Expected a JSON object, but got nothing"),
        (_body(tasks={}), '"tasks" to be a list, but got an object'),
        (_body(tasks=None), '"tasks" to be a list, but got nothing'),
        (_body(label_config=None), '"label_config" to be the label config as XML'),
        (_body(params={"context": "x"}), '"context" to hold a list "result", but got a string'),
        (_body(params={"context": {"result": 1}}), "but got a number"),
    ],
)
def test_wrong_predict_requests(body: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        parse_predict(body)


def test_setup() -> None:
    message = {
        "project": "7.1700000000",
        "schema": CONFIG,
        "hostname": "http://studio:8080",
        "access_token": "c" * 40,
        "extra_params": None,
    }
    request = parse_setup(json.dumps(message).encode())
    assert (request.label_config, request.project_id) == (CONFIG, 7)
    assert (request.hostname, request.access_token) == ("http://studio:8080", "c" * 40)
    assert "cccc" not in repr(request)


def test_setup_without_credentials() -> None:
    request = parse_setup(json.dumps({"schema": CONFIG, "access_token": None}).encode())
    assert (request.hostname, request.access_token, request.project_id) == ("", "", None)


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"schema": 1}'])
def test_wrong_setup_requests(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_setup(body)
