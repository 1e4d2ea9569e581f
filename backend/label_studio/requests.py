"""Parse the bodies of Label Studio's requests; no other module reads their raw dicts.

Label Studio sends a task with its annotations, predictions and drafts, which may be tens of
megabytes of masks. A `Task` keeps its id, its project and its data. Where an annotator waits for an
answer, it also keeps the regions that are drawn already, unread, for `region_reader.drawn_areas`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, convert
from msgspec.json import Decoder

from backend.errors import BadRequest, PayloadTooLarge

#: A percentage or an angle.
_Number = Annotated[float, Meta(gt=-1e6, lt=1e6)]


def read_texts(given: Any) -> list[str]:
    """Read the texts of a list; other items and blank ones are left out."""
    given = given if isinstance(given, list) else []
    return [text for text in given if isinstance(text, str) and text.strip()]


def read_item_index(region: Mapping[str, Any]) -> int | None:
    """Read which image of a list a region is on; None where the region does not say."""
    index = region.get("item_index")
    return index if type(index) is int and index >= 0 else None


def read_project_id(raw: Any) -> int | None:
    """Read the id of a project, which Label Studio also sends as "<id>.<time of creation>".

    >>> read_project_id("7.1700000000"), read_project_id("seven")
    (7, None)
    """
    digits = str(raw).partition(".")[0] if isinstance(raw, int | str) else ""
    return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else None


def read_text(message: Mapping[str, Any], key: str) -> str:
    """Read a text; empty where there is another value."""
    value = message.get(key)
    return value if isinstance(value, str) else ""


_T = TypeVar("_T")

#: Largest value of an id column of Label Studio's database.
_LARGEST_ID = (1 << 63) - 1
#: Keys of geometry, one of which the value of every region with a place has.
_GEOMETRY_KEYS = {"x", "points", "rle", "imageDataURL"}
#: Letters that are read of a text that an annotator types.
_LONGEST_TEXT = 1000

#: Boxes and words of one context, each of which is answered by masks of its own; of clicks, a few
#: count (`backend.prediction.masks`).
_MAX_PROMPTS: Final = 500

#: Values in the data of all tasks, in a context, or in what is drawn on an open task, whose brush
#: strokes are lists of numbers.
_MAX_VALUES: Final = 16_000_000

#: Escapes in JSON, and among them those of surrogates that are no pair.
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
#: Objects in a body, beside one for each 64 bytes of it.
_MAX_OBJECTS: Final = 1_000_000

_NULL: Final = Raw(b"null")


class _Task(Struct, gc=False):
    """What is read of a task. All else, such as old predictions, is skipped unread."""

    id: int | str | None = None
    project: int | str | None = None
    data: Raw = _NULL
    drafts: Raw = _NULL
    annotations: Raw = _NULL


class _Params(Struct):
    context: Raw = _NULL


class _Predict(Struct):
    tasks: list[_Task]
    label_config: str
    project: int | str | None = None
    params: _Params | None = None


class _Setup(Struct):
    schema: str
    project: int | str | None = None
    hostname: str | None = None
    access_token: str | None = None


class _Drawing(Struct):
    """A draft or an annotation."""

    result: Raw = _NULL
    was_cancelled: bool | None = None
    updated_at: str | None = None


class _Project(Struct):
    id: int


class _Webhook(Struct):
    project: _Project


_PREDICT: Final = Decoder(_Predict)
_SETUP: Final = Decoder(_Setup)
_WEBHOOK: Final = Decoder(_Webhook)
_DRAWINGS: Final = Decoder(list[_Drawing])
_PARTS: Final = Decoder(list[Raw])
_DATA: Final = Decoder(dict[str, Any])
_ANY: Final = Decoder(Any)


def decode_body(body: bytes, decoder: Decoder[_T]) -> _T:
    """Decode the body of a request, see `decode_json`.

    Raises:
        BadRequest: it is no JSON, too deeply nested, or of another type.
        PayloadTooLarge: it has too many objects.
    """
    if body.count(b"{") > _MAX_OBJECTS + len(body) / 64:
        raise PayloadTooLarge("The body has too many objects for its size.")
    try:
        return decode_json(body, decoder)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except ValidationError as error:
        raise BadRequest(f"The body has another form than Label Studio's: {error}.") from None
    except DecodeError:
        raise BadRequest("Expected a body of JSON, but got something else.") from None


def decode_json(content: bytes, decoder: Decoder[_T]) -> _T:
    """Decode JSON; what the type of the decoder does not name is skipped unread.

    Surrogates that are no pair become question marks: a text that was cut in an emoji has one.

    Raises:
        msgspec.DecodeError: it is no JSON, or of another type.
        RecursionError: it is too deeply nested.
    """
    try:
        return decoder.decode(content)
    except ValidationError:
        raise
    except (DecodeError, UnicodeDecodeError):
        mended = _ESCAPES.sub(lambda found: b"?" if found[1] else found[0], content)
        try:
            return decoder.decode(mended)
        except UnicodeDecodeError as error:
            raise DecodeError(str(error)) from None


def _decode_part(part: Raw, decoder: Decoder[_T]) -> _T:
    """Decode a part of a body."""
    _check_values(part)
    return decode_body(bytes(part), decoder)


def _check_values(*parts: Raw) -> None:
    """Refuse parts of a body that would take much memory; commas in texts count, too."""
    if sum(part.count(b",") + part.count(b"[") for part in map(bytes, parts)) > _MAX_VALUES:
        raise PayloadTooLarge(f"A part of the body has more than {_MAX_VALUES} values.")


@dataclass(frozen=True)
class Task:
    """A task: its ids, and the data that the label config refers to.

    Attributes:
        id: a number in Label Studio's own requests.
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


class Keypoint(Struct, frozen=True, rename={"x_percent": "x", "y_percent": "y"}):
    """A click, in percent of the upright image's width and height."""

    x_percent: _Number
    y_percent: _Number
    positive: bool = True


class Rectangle(Struct, frozen=True, rename=lambda name: name.rpartition("_")[0]):
    """A box, in percent of the upright image's width and height; no side is negative.

    Attributes:
        width_percent: its width before the rotation.
        height_percent: its height before the rotation.
        rotation_degrees: clockwise, about the top left corner.
    """

    x_percent: _Number
    y_percent: _Number
    width_percent: Annotated[float, Meta(ge=0, lt=1e6)]
    height_percent: Annotated[float, Meta(ge=0, lt=1e6)]
    rotation_degrees: _Number = 0.0


@dataclass(frozen=True)
class TypedWords:
    """The last text that an annotator has typed."""

    text: str


@dataclass(frozen=True)
class Prompt:
    """One region of a context that asks for an answer.

    Attributes:
        labels: labels as the editor writes them: aliases where there are some.
        control: name of the control that it was made with; empty where it is not given.
        image: name of the image that it is on; empty where it is not given.
    """

    shape: Keypoint | Rectangle | TypedWords
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
            ``capabilities``, or such as only trackers of videos know.
    """

    prompts: tuple[Prompt, ...] = ()
    event: str = "predict"


@dataclass(frozen=True)
class PredictRequest:
    """Tasks to predict with one label config.

    Attributes:
        tasks: the tasks that have been read, the first ones of the request.
        context: None unless an annotator waits.
        tasks_left_out: number of the tasks that follow, which were only counted.
        waited_s: how long it has waited in line, in seconds.
    """

    tasks: tuple[Task, ...]
    label_config: str
    project_id: int | None = None
    context: Context | None = None
    tasks_left_out: int = 0
    waited_s: float = 0.0


@dataclass(frozen=True)
class SetupRequest:
    """A project connects; `hostname` and `access_token` are empty where not sent."""

    label_config: str
    project_id: int | None = None
    hostname: str = ""
    access_token: str = field(default="", repr=False)


def parse_webhook(body: bytes) -> int | None:
    """Read the project that the body of ``POST /webhook`` is about; None where it names none.

    >>> parse_webhook(b'{"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 3}]}')
    7
    """
    try:
        return decode_body(body, _WEBHOOK).project.id
    except (BadRequest, PayloadTooLarge):
        return None


def parse_setup(body: bytes) -> SetupRequest:
    """Read the body of ``POST /setup``.

    >>> parse_setup(b'{"project": "7.1700000000", "schema": "<View/>"}').project_id
    7
    """
    message = decode_body(body, _SETUP)
    return SetupRequest(
        label_config=message.schema,
        project_id=read_project_id(message.project),
        hostname=message.hostname or "",
        access_token=message.access_token or "",
    )


def parse_predict(body: bytes, max_tasks: int | None = None) -> PredictRequest:
    """Read the body of ``POST /predict``.

    A task without data is kept: it fails alone, when its image is read.

    Args:
        max_tasks: the number of tasks that are read, by default all; those that follow are counted.

    Raises:
        PayloadTooLarge: the tasks have too many values, or from `decode_body`.

    >>> request = parse_predict(b'{"tasks": [{"id": 1, "data": {}}], "label_config": "<View/>"}')
    >>> request.tasks
    (Task(id=1, project_id=None, data={}),)
    """
    message = decode_body(body, _PREDICT)
    tasks = message.tasks[:max_tasks]
    _check_values(*(task.data for task in tasks))
    context = _read_context(_decode_part(message.params.context, _ANY) if message.params else None)
    return PredictRequest(
        tasks=tuple(_read_task(task, with_drawn=context is not None) for task in tasks),
        label_config=message.label_config,
        project_id=read_project_id(message.project),
        context=context,
        tasks_left_out=len(message.tasks) - len(tasks),
    )


def _read_task(raw: _Task, with_drawn: bool) -> Task:
    task_id, data = raw.id, {}
    with suppress(BadRequest):
        data = decode_body(bytes(raw.data), _DATA)
    if isinstance(task_id, int) and abs(task_id) > _LARGEST_ID:
        task_id = None  # no database holds it
    drawn, is_draft = _read_drawn(raw) if with_drawn else ((), True)
    return Task(
        id=task_id,
        project_id=read_project_id(raw.project),
        data=data,
        drawn=drawn,
        is_draft=is_draft,
    )


def _read_drawn(task: _Task) -> tuple[Sequence[Any], bool]:
    """Return the regions of the newest draft, else of the only annotation; and if it is a draft.

    Label Studio sends the drafts of the annotator who asks, but the annotations of all annotators,
    and does not tell which of them is open. Nobody has accepted a prediction yet.
    """
    if drafts := _read_drawings(task.drafts):
        newest = max(drafts, key=lambda draft: draft.updated_at or "")
        return _read_regions(newest), True
    annotations = _read_drawings(task.annotations)
    return (_read_regions(annotations[0]) if len(annotations) == 1 else ()), False


def _read_drawings(given: Raw) -> list[_Drawing]:
    with suppress(BadRequest):
        drawings = decode_body(bytes(given), _DRAWINGS)
        return [each for each in drawings if not each.was_cancelled and each.result != _NULL]
    return []


def _read_regions(drawing: _Drawing) -> list[Any]:
    """Read the regions of a draft or an annotation; a broken one costs no other."""
    regions: list[Any] = []
    with suppress(BadRequest):
        for region in _decode_part(drawing.result, _PARTS):
            with suppress(BadRequest):
                regions.append(decode_body(bytes(region), _ANY))
    return regions


def _read_context(raw: Any) -> Context | None:
    if raw is None or raw == {}:
        return None
    event = read_text(raw, "event") if isinstance(raw, dict) else ""
    regions = raw.get("result") if isinstance(raw, dict) else raw
    if regions is None and event:
        regions = []  # only prompts have some
    if not isinstance(regions, list):
        raise BadRequest('Expected "context" to hold a list "result".')
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
    kind, value, shape = region.get("type"), region["value"], _read_shape(region)
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


def _read_shape(region: Mapping[str, Any]) -> Keypoint | Rectangle | TypedWords | None:
    kind, value = region.get("type"), region["value"]
    with suppress(ValidationError):
        if kind in ("keypointlabels", "keypoint"):
            # Newer editors write ``positive`` into the value beside the region's own.
            negative = {"positive": False} if region.get("is_positive") is False else {}
            return convert(value | negative, Keypoint)
        if kind in ("rectanglelabels", "rectangle"):
            return convert(value, Rectangle)
    return _read_words(value) if kind == "textarea" else None


def _read_words(value: Mapping[str, Any]) -> TypedWords | None:
    """Read the last text, as those before it are answered. Text with geometry is a description."""
    given = value.get("text")
    texts = read_texts([given] if isinstance(given, str) else given)
    if not texts or _GEOMETRY_KEYS & value.keys():
        return None
    return TypedWords(texts[-1][:_LONGEST_TEXT])
