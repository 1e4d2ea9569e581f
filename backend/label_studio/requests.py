"""Parse the bodies of Label Studio's requests; `prompts` reads what an annotator asks.

Label Studio sends a task with its annotations, predictions and drafts, which may be tens of
megabytes of masks. A `Task` keeps its id, its project and its data. Where an annotator waits for an
answer, it also keeps the regions that are drawn already, unread, for `region_reader.drawn_areas`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder

from backend.errors import BadRequest, PayloadTooLarge
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prompts import PromptRequest, parse_prompt, read_context
from backend.settings import Settings


def read_project_id(raw: Any) -> int | None:
    """Read the id of a project, which Label Studio also sends as "<id>.<time of creation>".

    >>> read_project_id("7.1700000000"), read_project_id("seven")
    (7, None)
    """
    digits = str(raw).partition(".")[0] if isinstance(raw, int | str) else ""
    return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else None


_T = TypeVar("_T")

_LARGEST_ID = (1 << 63) - 1  # largest value of an id column of Label Studio's database

#: Values in the data of all tasks, in a context, or in what is drawn on an open task, whose brush
#: strokes are lists of numbers.
_MAX_VALUES: Final = 16_000_000

#: Escapes in JSON, and among them those of surrogates that are no pair.
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_MAX_OBJECTS: Final = 1_000_000  # objects in a body, beside one for each 64 bytes of it

_NULL: Final = Raw(b"null")


class _Task(Struct, gc=False):
    """What is read of a task. All else, such as old predictions, is skipped unread."""

    id: int | str | None = None
    project: int | str | None = None
    data: Raw = _NULL
    drafts: Raw = _NULL
    annotations: Raw = _NULL
    predictions: Raw = _NULL


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
    """A draft, an annotation or a prediction."""

    id: int | None = None
    result: Raw = _NULL
    was_cancelled: bool | None = None
    updated_at: str | None = None


class _RegionId(Struct):
    id: str | None = None


class _Project(Struct):
    id: int


class _Webhook(Struct):
    project: _Project
    action: str = ""


_PREDICT: Final = Decoder(_Predict)
_SETUP: Final = Decoder(_Setup)
_WEBHOOK: Final = Decoder(_Webhook)
_DRAWINGS: Final = Decoder(list[_Drawing])
_PARTS: Final = Decoder(list[Raw])
_IDS: Final = Decoder(list[_RegionId])
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
    _check_values(part)
    return decode_body(bytes(part), decoder)


def _check_values(*parts: Raw) -> None:
    """Refuse parts of a body that would take much memory; commas in texts count, too."""
    if sum(part.count(b",") + part.count(b"[") for part in map(bytes, parts)) > _MAX_VALUES:
        raise PayloadTooLarge(f"A part of the body has more than {_MAX_VALUES} values.")


@dataclass(frozen=True)
class Task:
    """A task: its ids, and the data that the labeling config refers to."""

    id: int | str | None
    project_id: int | None
    data: Mapping[str, Any]  # values of the labeling config's variables
    #: Regions of the open draft or annotation, as they came, if an annotator waits.
    drawn: Sequence[Any] = field(default=(), repr=False, compare=False)
    #: Whether `drawn` is that annotator's draft; else the task's only annotation, by whomever.
    is_draft: bool = field(default=True, repr=False, compare=False)
    #: Regions with the id of a predicted one that the annotator sees, as they came: of the draft;
    #: where nobody has annotated the task, of its newest prediction.
    predicted: Sequence[Any] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class PredictRequest:
    """Tasks to predict with one labeling config."""

    tasks: tuple[Task, ...]  # the tasks that have been read, the first ones of the request
    config: LabelConfig
    project_id: int | None = None
    event: str = ""  # see `Context.event`; empty unless an annotator waits
    prompt: PromptRequest | None = None  # None where nothing is asked for that can be answered
    tasks_left_out: int = 0  # number of the tasks that follow, which were only counted
    waited_s: float = 0.0  # how long it has waited in line, in seconds


@dataclass(frozen=True)
class SetupRequest:
    """A project connects; `hostname` and `access_token` are empty where not sent."""

    label_config: str
    project_id: int | None = None
    hostname: str = ""
    access_token: str = field(default="", repr=False)


def parse_webhook(body: bytes) -> tuple[int | None, str]:
    """Read the project that the body of ``POST /webhook`` is about, if any, and its action.

    >>> parse_webhook(b'{"action": "TASKS_CREATED", "project": {"id": 7}, "tasks": [{"id": 3}]}')
    (7, 'TASKS_CREATED')
    """
    try:
        message = decode_body(body, _WEBHOOK)
    except (BadRequest, PayloadTooLarge):
        return None, ""
    return message.project.id, message.action


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


def parse_predict(body: bytes, settings: Settings, max_tasks: int | None = None) -> PredictRequest:
    """Read the body of ``POST /predict``; tasks beyond `max_tasks` are only counted.

    A task without data is kept: it fails alone, when its image is read.

    Raises:
        LabelConfigError: the labeling config has nothing to draw.
        PayloadTooLarge: the tasks have too many values, or from `decode_body`.
    """
    message = decode_body(body, _PREDICT)
    tasks = message.tasks[:max_tasks]
    _check_values(*(task.data for task in tasks))
    config = parse_label_config(message.label_config, settings)
    context = read_context(_decode_part(message.params.context, _ANY) if message.params else None)
    return PredictRequest(
        tasks=tuple(_read_task(task, with_drawn=context is not None) for task in tasks),
        config=config,
        project_id=read_project_id(message.project),
        event="" if context is None else context.event,
        prompt=None if context is None else parse_prompt(context, config),
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
        predicted=_read_predicted(raw, drawn if is_draft else None) if with_drawn else (),
    )


def _read_predicted(task: _Task, draft: Sequence[Any] | None) -> Sequence[Any]:
    predictions = _read_drawings(task.predictions)
    if draft is None:  # which of several annotations is open, Label Studio does not tell
        newest = max(predictions, key=lambda each: each.id or 0, default=None)
        return _read_regions(newest) if newest and not _read_drawings(task.annotations) else ()
    ids: set[str | None] = set()
    for each in predictions:
        with suppress(BadRequest):
            ids.update(region.id for region in decode_body(bytes(each.result), _IDS))
    return [each for each in draft if isinstance(each, dict) and each.get("id") in ids]


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
