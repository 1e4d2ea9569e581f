"""Parse the bodies of Label Studio's requests; no other module reads their raw dicts.

Label Studio sends a task with its annotations, predictions and drafts, which may be tens of
megabytes of masks. A `Task` keeps its id, its project and its data. Where an annotator waits for an
answer, it also keeps the regions that are drawn already, unread, for `region_reader.drawn_areas`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Final

from backend.errors import BadRequest
from backend.label_studio.json_fields import (
    describe_type,
    read_item_index,
    read_label_config,
    read_number,
    read_project_id,
    read_text,
    read_texts,
)
from backend.label_studio.json_shapes import Items, Shape, Whole
from backend.label_studio.json_stream import parse_stream

#: Largest values of the id columns of Label Studio's database.
_LARGEST_PROJECT = (1 << 31) - 1
_LARGEST_ID = (1 << 63) - 1
#: Action of a webhook -> key of the objects in its body.
_EVENT_KEYS = {
    "TASKS_CREATED": "tasks",
    "TASKS_DELETED": "tasks",
    "ANNOTATION_CREATED": "annotation",
    "ANNOTATIONS_CREATED": "annotation",
    "ANNOTATION_UPDATED": "annotation",
    "ANNOTATIONS_DELETED": "annotations",
}
#: Keys of geometry, one of which the value of every region with a place has.
_GEOMETRY_KEYS = {"x", "points", "rle", "imageDataURL"}
#: Letters that are read of a text that an annotator types.
_LONGEST_TEXT = 1000

#: Boxes and words of one context, each of which is answered by masks of its own; of clicks, a few
#: count (`backend.prediction.interactive`).
_MAX_PROMPTS: Final = 500

#: What is read of the bodies. All else, such as old annotations, is skipped while they are parsed.
_IDS: Final[Shape] = Items({"id": Whole.KEPT})
_WEBHOOK: Final[Shape] = {
    "action": Whole.KEPT,
    "project": {"id": Whole.KEPT, "label_config": Whole.KEPT},
    "tasks": _IDS,
    "annotation": Items({"id": Whole.KEPT}, or_one=True),
    "annotations": _IDS,
}
_SETUP: Final[Shape] = dict.fromkeys(("schema", "project", "hostname", "access_token"), Whole.KEPT)
_TASK: Final = dict.fromkeys(("id", "project", "data"), Whole.KEPT)
#: What is read of a draft or an annotation, where an annotator waits.
_VERSIONS: Final[Shape] = Items(
    dict.fromkeys(("result", "was_cancelled", "updated_at"), Whole.KEPT)
)


@dataclass(frozen=True)
class Task:
    """A task: its ids, and the data that the label config refers to.

    Attributes:
        id: a number in Label Studio's own requests.
        project_id: id of its project.
        data: values of the label config's variables.
        drawn: regions of the open draft or annotation, as they came; see `drawn_areas`. Empty
            unless an annotator waits.
        is_draft: whether `drawn` is the draft of that annotator; else it is the task's only
            annotation, which may be another annotator's.
    """

    id: int | str | None
    project_id: int | None
    data: Mapping[str, Any]
    drawn: Sequence[Any] = field(default=(), repr=False, compare=False)
    is_draft: bool = field(default=True, repr=False, compare=False)


@dataclass(frozen=True)
class Keypoint:
    """A click, in percent of the upright image's width and height."""

    x_percent: float
    y_percent: float
    positive: bool = True


@dataclass(frozen=True)
class Rectangle:
    """A box, in percent of the upright image's width and height; no side is negative.

    Attributes:
        x_percent: x of its top left corner.
        y_percent: y of its top left corner.
        width_percent: its width before the rotation.
        height_percent: its height before the rotation.
        rotation_degrees: clockwise, about the top left corner.
    """

    x_percent: float
    y_percent: float
    width_percent: float
    height_percent: float
    rotation_degrees: float = 0.0


@dataclass(frozen=True)
class Words:
    """The last text that an annotator has typed."""

    text: str


@dataclass(frozen=True)
class Prompt:
    """One region of a context that asks for an answer.

    Attributes:
        shape: the click, the box or the text.
        labels: labels as the editor writes them: aliases where there are some.
        control: name of the control that it was made with; empty where it is not given.
        image: name of the image that it is on; empty where it is not given.
        item_index: index in a list of images; None where it is not given.
        id: id of the region.
    """

    shape: Keypoint | Rectangle | Words
    labels: tuple[str, ...] = ()
    control: str = ""
    image: str = ""
    item_index: int | None = None
    id: str = ""


@dataclass(frozen=True)
class Context:
    """What an annotator's editor asks.

    Attributes:
        prompts: prompts in their order. Empty after Submit in a project with a text area, after
            the last click was undone, and where all regions were made with other tools; only an
            empty answer then leaves the annotation as it is.
        event: ``predict`` answers the prompts. An editor may send other events, such as
            ``capabilities`` and ``prewarm``, or such as only trackers of videos know.
    """

    prompts: tuple[Prompt, ...] = ()
    event: str = "predict"


@dataclass(frozen=True)
class PredictRequest:
    """Tasks to predict with one label config.

    Attributes:
        tasks: the tasks that have been read, the first ones of the request.
        label_config: the label config as XML.
        project_id: id of their project.
        context: None unless an annotator waits.
        tasks_left_out: number of the tasks that follow, which were only counted.
        waited_s: how long it has waited in line, in seconds.
        is_gone: tells whether its client has closed the connection, so that nobody reads an answer.
    """

    tasks: tuple[Task, ...]
    label_config: str
    project_id: int | None = None
    context: Context | None = None
    tasks_left_out: int = 0
    waited_s: float = 0.0
    is_gone: Callable[[], bool] = field(default=lambda: False, compare=False, repr=False)


@dataclass(frozen=True)
class SetupRequest:
    """A project connects; `hostname` and `access_token` are empty where not sent."""

    label_config: str
    project_id: int | None = None
    hostname: str = ""
    access_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class TasksCreated:
    """A project has new tasks; `label_config` is empty where not sent."""

    project_id: int
    task_ids: tuple[int, ...]
    label_config: str = ""


@dataclass(frozen=True)
class AnnotationsChanged:
    """Annotations of a project were created, changed or deleted; Label Studio knows which."""

    project_id: int
    annotation_ids: tuple[int, ...]


@dataclass(frozen=True)
class TasksDeleted:
    """Tasks of a project were deleted, and their annotations with them."""

    project_id: int
    task_ids: tuple[int, ...]


#: Events of a webhook that the backend acts on.
WebhookEvent = TasksCreated | AnnotationsChanged | TasksDeleted


def parse_webhook(body: bytes | BinaryIO) -> WebhookEvent | None:
    """Read the body of ``POST /webhook``; None for an event that the backend does not act on.

    Label Studio does not read the answer, so that a broken body is no error.

    Raises:
        PayloadTooLarge: from `parse_stream`.

    >>> parse_webhook(b'{"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 3}]}')
    TasksCreated(project_id=7, task_ids=(3,), label_config='')
    >>> parse_webhook(b'{"action": "ANNOTATION_UPDATED", "project": {"id": 7}, '
    ...               b'"annotation": {"id": 5}}')
    AnnotationsChanged(project_id=7, annotation_ids=(5,))
    """
    try:
        message, _ = _parse(body, _WEBHOOK)
    except BadRequest:
        return None
    project, action = message.get("project"), message.get("action")
    if not isinstance(project, dict) or not isinstance(action, str):
        return None
    key = _EVENT_KEYS.get(action, "")
    objects = message.get(key)
    ids = _read_ids([objects] if key == "annotation" and isinstance(objects, dict) else objects)
    project_id = read_project_id(project.get("id"))
    if project_id is None or not 0 < project_id <= _LARGEST_PROJECT or not ids:
        return None
    if action == "TASKS_CREATED":
        return TasksCreated(project_id, ids, read_text(project, "label_config"))
    if action == "TASKS_DELETED":
        return TasksDeleted(project_id, ids)
    return AnnotationsChanged(project_id, ids)


def parse_setup(body: bytes | BinaryIO) -> SetupRequest:
    """Read the body of ``POST /setup``.

    Raises:
        BadRequest: no JSON object, or no label config in it.
        PayloadTooLarge: from `parse_stream`.

    >>> parse_setup(b'{"project": "7.1700000000", "schema": "<View/>"}').project_id
    7
    """
    message, _ = _parse(body, _SETUP)
    return SetupRequest(
        label_config=read_label_config(message, "schema"),
        project_id=read_project_id(message.get("project")),
        hostname=read_text(message, "hostname"),
        access_token=read_text(message, "access_token"),
    )


def parse_predict(body: bytes | BinaryIO, max_tasks: int = 10_000) -> PredictRequest:
    """Read the body of ``POST /predict``.

    Only where an annotator waits, it is read again for the regions that are drawn already.

    Args:
        body: what Label Studio sends.
        max_tasks: the number of tasks that are read; those that follow are counted.

    Raises:
        BadRequest: no JSON object, or what `read_predict_request` refuses.
        PayloadTooLarge: from `parse_stream`.

    >>> request = parse_predict(b'{"tasks": [{"id": 1, "data": {}}], "label_config": "<View/>"}')
    >>> request.tasks
    (Task(id=1, project_id=None, data={}),)
    """
    file = io.BytesIO(body) if isinstance(body, bytes) else body
    message, left_out = _parse(file, _predict_shape(max_tasks))
    request = replace(read_predict_request(message), tasks_left_out=left_out)
    if request.context is None:
        return request
    message, _ = _parse(file, _predict_shape(max_tasks, with_drawn=True))
    return replace(read_predict_request(message), tasks_left_out=left_out)


def _predict_shape(max_tasks: int, with_drawn: bool = False) -> Shape:
    drawn = dict.fromkeys(("drafts", "annotations"), _VERSIONS) if with_drawn else {}
    return {
        "tasks": Items(_TASK | drawn, max_tasks),
        "label_config": Whole.KEPT,
        "project": Whole.KEPT,
        "params": {"context": Whole.KEPT},
    }


def _parse(body: bytes | BinaryIO, shape: Shape) -> tuple[dict[str, Any], int]:
    """Parse a body that holds a JSON object; return it, and the number of items left out."""
    parsed = parse_stream(io.BytesIO(body) if isinstance(body, bytes) else body, shape)
    if not isinstance(parsed.value, dict):
        raise BadRequest(f"Expected a JSON object, but got {describe_type(parsed.value)}.")
    return parsed.value, parsed.items_left_out


def read_predict_request(message: Mapping[str, Any]) -> PredictRequest:
    """Read the message of ``POST /predict``, parsed from JSON already.

    A task that is no object, or has no data, is kept without data: it fails alone, when its image
    is read.

    Raises:
        BadRequest: no list of tasks, no label config, or a context without a list of regions.
    """
    tasks = message.get("tasks")
    if not isinstance(tasks, list):
        raise BadRequest(f'Expected "tasks" to be a list, but got {describe_type(tasks)}.')
    params = message.get("params")
    context = _read_context(params.get("context") if isinstance(params, dict) else None)
    return PredictRequest(
        tasks=tuple(_read_task(task, with_drawn=context is not None) for task in tasks),
        label_config=read_label_config(message, "label_config"),
        project_id=read_project_id(message.get("project")),
        context=context,
    )


def _read_ids(given: Any) -> tuple[int, ...]:
    """Read the ids of objects; ids that no database has are left out."""
    objects = given if isinstance(given, list) else []
    ids = [entry.get("id") for entry in objects if isinstance(entry, dict)]
    return tuple(id_ for id_ in ids if type(id_) is int and 0 < id_ <= _LARGEST_ID)


def _read_task(raw: Any, with_drawn: bool = False) -> Task:
    task = raw if isinstance(raw, dict) else {}
    task_id, data = task.get("id"), task.get("data")
    if isinstance(task_id, int) and abs(task_id) > _LARGEST_ID:
        task_id = None  # no database holds it
    drawn, is_draft = _read_drawn(task) if with_drawn else ((), True)
    return Task(
        id=task_id if isinstance(task_id, int | str) else None,
        project_id=read_project_id(task.get("project")),
        data=data if isinstance(data, dict) else {},
        drawn=drawn,
        is_draft=is_draft,
    )


def _read_drawn(task: Mapping[str, Any]) -> tuple[Sequence[Any], bool]:
    """Return the regions of the newest draft, else of the only annotation; and if it is a draft.

    Label Studio sends the drafts of the annotator who asks, but the annotations of all annotators,
    and does not tell which of them is open. Nobody has accepted a prediction yet.
    """
    if drafts := _read_versions(task, "drafts"):
        newest = max(drafts, key=lambda draft: read_text(draft, "updated_at"))
        return newest["result"], True
    annotations = _read_versions(task, "annotations")
    return (annotations[0]["result"] if len(annotations) == 1 else ()), False


def _read_versions(task: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    given = task.get(key)
    return [
        version
        for version in (given if isinstance(given, list) else [])
        if isinstance(version, dict)
        and isinstance(version.get("result"), list)
        and not version.get("was_cancelled")
    ]


def _read_context(raw: Any) -> Context | None:
    if raw is None or raw == {}:
        return None
    event = read_text(raw, "event") if isinstance(raw, dict) else ""
    regions = raw.get("result") if isinstance(raw, dict) else raw
    if regions is None and event:
        regions = []  # only prompts have some
    if not isinstance(regions, list):
        raise BadRequest(
            f'Expected "context" to hold a list "result", but got {describe_type(regions)}.'
        )
    prompts = tuple(prompt for region in regions if (prompt := _read_prompt(region)) is not None)
    answered = sum(not isinstance(prompt.shape, Keypoint) for prompt in prompts)
    if answered > _MAX_PROMPTS:
        raise BadRequest(
            f"The context has {answered} boxes and words, more than {_MAX_PROMPTS}: accept or "
            "reject some suggestions first."
        )
    return Context(prompts, event or "predict")


def _read_prompt(region: Any) -> Prompt | None:
    """Read a prompt; None where the region is none, which leaves the other prompts valid."""
    if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
        return None
    kind, value = region.get("type"), region["value"]
    shape: Keypoint | Rectangle | Words | None = None
    if kind in ("keypointlabels", "keypoint"):
        shape = _read_keypoint(value, is_positive=region.get("is_positive") is not False)
    elif kind in ("rectanglelabels", "rectangle"):
        shape = _read_rectangle(value)
    elif kind == "textarea":
        shape = _read_words(value)
    if shape is None:
        return None
    return Prompt(
        shape=shape,
        # of a tool beside <Labels>, the labels have that key
        labels=tuple(read_texts(value.get(kind)) or read_texts(value.get("labels"))),
        control=read_text(region, "from_name"),
        image=read_text(region, "to_name"),
        item_index=read_item_index(region),
        id=read_text(region, "id"),
    )


def _read_keypoint(value: Mapping[str, Any], is_positive: bool) -> Keypoint | None:
    """Read a click; newer editors write ``positive`` into the value beside the region's own."""
    x, y = (read_number(value.get(key)) for key in ("x", "y"))
    if x is None or y is None:
        return None
    return Keypoint(x, y, positive=is_positive and value.get("positive") is not False)


def _read_rectangle(value: Mapping[str, Any]) -> Rectangle | None:
    x, y, width, height = (read_number(value.get(key)) for key in ("x", "y", "width", "height"))
    if x is None or y is None or width is None or height is None or min(width, height) < 0:
        return None
    return Rectangle(x, y, width, height, read_number(value.get("rotation")) or 0.0)


def _read_words(value: Mapping[str, Any]) -> Words | None:
    """Read the last text, as those before it are answered. Text with geometry is a description."""
    given = value.get("text")
    texts = read_texts([given] if isinstance(given, str) else given)
    return Words(_clean_text(texts[-1])) if texts and not _GEOMETRY_KEYS & value.keys() else None


def _clean_text(text: str) -> str:
    """Shorten a text, and replace lone surrogates, which no tokenizer takes."""
    return text[:_LONGEST_TEXT].encode("utf-8", "replace").decode()
