"""Request bodies -> typed requests: the only reader of raw dicts.

Label Studio sends along all that it knows of a task. Its annotations, predictions and drafts, tens
of megabytes of masks, are never looked into: a task here is its id, its project and its data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.errors import BadRequest


@dataclass(frozen=True)
class Task:
    """One task: what a log needs to name it, and the data that its label config refers to."""

    id: int | str | None
    project_id: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """What an annotator just drew or typed in the editor, waiting for an answer.

    Attributes:
        regions: how many prompt regions there are; 0 after Submit in a project with a text area,
            where only an empty answer leaves the annotation as it is.
        labels: labels that those regions carry, as the editor writes them, in order.
    """

    regions: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictRequest:
    """Tasks to predict with one label config; `context` is None unless an annotator waits."""

    tasks: tuple[Task, ...]
    label_config: str
    project_id: int | None = None
    context: Context | None = None


@dataclass(frozen=True)
class SetupRequest:
    """A project introduces itself; `hostname` and `access_token` are empty where not sent."""

    label_config: str
    project_id: int | None = None
    hostname: str = ""
    access_token: str = field(default="", repr=False)


def parse_setup(body: bytes) -> SetupRequest:
    """Read the body of ``POST /setup``.

    Raises:
        BadRequest: no JSON object, or no label config in it.

    >>> parse_setup(b'{"project": "7.1700000000", "schema": "<View/>"}').project_id
    7
    """
    message = _json_object(body)
    return SetupRequest(
        label_config=_text(message, "schema"),
        project_id=_project_id(message.get("project")),
        hostname=_optional_text(message, "hostname"),
        access_token=_optional_text(message, "access_token"),
    )


def parse_predict(body: bytes) -> PredictRequest:
    """Read the body of ``POST /predict``.

    Raises:
        BadRequest: no JSON object, or what `predict_request` refuses.

    >>> request = parse_predict(b'{"tasks": [{"id": 1, "data": {}}], "label_config": "<View/>"}')
    >>> request.tasks
    (Task(id=1, project_id=None, data={}),)
    """
    return predict_request(_json_object(body))


def predict_request(message: Mapping[str, Any]) -> PredictRequest:
    """Read a message that has been taken from JSON already.

    A task that is no object, or has no data, is kept with none: it fails alone, when its image is
    looked for.

    Raises:
        BadRequest: tasks that are no list, no label config, or a context that is none.
    """
    tasks = message.get("tasks")
    if not isinstance(tasks, list):
        raise BadRequest(f'Expected "tasks" to be a list, but got {_kind(tasks)}.')
    params = message.get("params")
    return PredictRequest(
        tasks=tuple(map(_task, tasks)),
        label_config=_text(message, "label_config"),
        project_id=_project_id(message.get("project")),
        context=_context(params.get("context") if isinstance(params, dict) else None),
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Expected a body of JSON, but got something else.") from None
    if not isinstance(message, dict):
        raise BadRequest(f"Expected a JSON object, but got {_kind(message)}.")
    return message


def _task(raw: Any) -> Task:
    task = raw if isinstance(raw, dict) else {}
    task_id, data = task.get("id"), task.get("data")
    return Task(
        id=task_id if isinstance(task_id, int | str) else None,
        project_id=_project_id(task.get("project")),
        data=data if isinstance(data, dict) else {},
    )


def _context(raw: Any) -> Context | None:
    if raw is None or raw == {}:
        return None
    regions = raw.get("result") if isinstance(raw, dict) else raw
    if not isinstance(regions, list):
        raise BadRequest(f'Expected "context" to hold a list "result", but got {_kind(regions)}.')
    labels = dict.fromkeys(label for region in regions for label in _region_labels(region))
    return Context(regions=len(regions), labels=tuple(labels))


def _region_labels(region: Any) -> list[str]:
    """The labels of a region stand in its value under its own type: keypointlabels and so on."""
    if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
        return []
    kind = region.get("type")
    if not isinstance(kind, str) or not kind.endswith("labels"):
        return []
    labels = region["value"].get(kind)
    return [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []


def _project_id(raw: Any) -> int | None:
    """Projects are numbers, or "<number>.<time of creation>" in Label Studio's own requests."""
    digits = str(raw).partition(".")[0] if isinstance(raw, int | str) else ""
    return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else None


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise BadRequest(f'Expected "{key}" to be the label config as XML, but got {_kind(value)}.')
    return value


def _optional_text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    return value if isinstance(value, str) else ""


def _kind(value: Any) -> str:
    """A JSON value in words, without its content.

    >>> _kind(None), _kind([]), _kind(True)
    ('nothing', 'a list', 'true or false')
    """
    if value is None:
        return "nothing"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")
