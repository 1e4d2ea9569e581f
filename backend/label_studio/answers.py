"""Check every answer of Label Studio's API, before anything is concluded from it.

A login or maintenance page, or a proxy, may answer in Label Studio's place, even with HTTP 200. The
SDK checks no types: of ``{}`` it makes a project whose label config is None.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

import httpx
from msgspec import Struct
from msgspec.json import Decoder, encode
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from backend.errors import BadRequest, PayloadTooLarge
from backend.label_studio.requests import decode

#: Bytes of one annotation or prediction: parsing JSON stalls all threads, for a second where it has
#: this size. A hundred painted regions of a large photograph have a tenth of it.
_MAX_BYTES: Final = 64 << 20
_OF_REGIONS: Final = re.compile(r".*/api/(annotations|predictions)/\d+/?")

#: Bytes of all annotations of one task, which Label Studio sends together.
_MAX_BYTES_OF_TASK: Final = 256 << 20
_OF_TASK: Final = re.compile(r".*/api/tasks/\d+/annotations/?")


#: Bytes of the predictions of one task. Label Studio sends all together, with their regions and
#: without pages: a prediction of each version that there ever was.
_MAX_BYTES_OF_PREDICTIONS: Final = 256 << 20
_OF_PREDICTIONS: Final = re.compile(r".*/api/predictions/?")

#: Headers of the bytes that an answer is sent as.
_OF_THE_WIRE: Final = ("content-encoding", "content-length", "transfer-encoding")

#: Refusals that a proxy may send as a page for people. What they mean does not depend on the body.
_UNCHECKED_REFUSALS: Final = (401, 403, 408, 413, 425, 429)


class ForeignAnswerError(Exception):
    """An answer is not one of Label Studio's API; the message goes on after "Label Studio"."""


class _Checked(BaseModel):
    """The fields of an answer that the backend reads; others may have any value."""

    model_config = ConfigDict(strict=True)


class _Id(_Checked):
    id: int


class _Project(_Id):
    label_config: str


class _ProjectTitle(_Id):
    title: str | None = None


class _ProjectPage(_Checked):
    results: list[_ProjectTitle]


class _TaskRow(_Id):
    data: dict[str, Any]
    total_predictions: int | None = None
    predictions_model_versions: str | None = None
    total_annotations: int | None = None
    cancelled_annotations: int | None = None
    predictions_score: float | None = None


class _TaskPage(_Checked):
    tasks: list[_TaskRow]
    total: int


class _StoredPrediction(_Id):
    model_version: str | None = None
    created_at: datetime = Field(strict=False)  # text in JSON


class _Prediction(_Id):
    model_version: str | None = None


class _Annotation(_Id):
    task: int | None
    project: int | None


class _User(_Id):
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None


class _Backend(_Id):
    url: str | None = None
    created_at: datetime | None = Field(None, strict=False)


class _PredictionRow(Struct):
    """What is kept of each of a list of predictions, before it is checked."""

    id: Any = None
    model_version: Any = None
    created_at: Any = None


_PREDICTION_ROWS: Final = Decoder(list[_PredictionRow])


class _Import(_Checked):
    created: int


class _AccessToken(_Checked):
    access: str


#: Method and end of the path -> what the answer must hold. Other answers must be JSON.
_ANSWERS: Final = [
    (re.compile(pattern), TypeAdapter[Any](kind))
    for pattern, kind in (
        (r"GET .*/api/projects/?", _ProjectPage),
        (r"GET .*/api/projects/\d+/?", _Project),
        (r"GET .*/api/tasks/?", _TaskPage),
        (r"GET .*/api/predictions/?", list[_StoredPrediction]),
        (r"GET .*/api/predictions/\d+/?", _Prediction),
        (r"GET .*/api/annotations/\d+/?", _Annotation),
        (r"GET .*/api/tasks/\d+/annotations/?", list[_Annotation]),
        (r"GET .*/api/users/?", list[_User]),
        (r"GET .*/api/ml/?", list[_Backend]),
        (r"POST .*/import/predictions/?", _Import),
        (r"POST .*/api/predictions/?", _Id),
        (r"POST .*/api/token/refresh/?", _AccessToken),
    )
]


def read_answer(response: httpx.Response) -> httpx.Response:
    """Read an answer that is a stream; annotations, and one prediction, within limits.

    Of a list of predictions only the fields of `_PredictionRow` are kept.

    Returns:
        The answer with its content.

    Raises:
        BadRequest: it is an annotation or a prediction, or holds the annotations or predictions of
            a task, and is too large to be read.
        ForeignAnswerError: it should be a list of predictions, and is no JSON.
        httpx.HTTPError: the connection has ended, or the content is damaged.
    """
    path = response.request.url.path
    if _OF_REGIONS.fullmatch(path):
        content = _read_within(_MAX_BYTES, response, "regions")
    elif _OF_TASK.fullmatch(path):
        content = _read_within(_MAX_BYTES_OF_TASK, response, "annotations")
    elif _OF_PREDICTIONS.fullmatch(path) and response.is_success and _is_get(response):
        content = _read_prediction_rows(response)
    else:
        response.read()
        return response
    # Those of the answer are of the bytes on the wire, which may be compressed.
    headers = [each for each in response.headers.multi_items() if each[0] not in _OF_THE_WIRE]
    return httpx.Response(
        response.status_code, headers=headers, content=content, request=response.request
    )


def _is_get(response: httpx.Response) -> bool:
    return response.request.method == "GET"


def _read_within(limit: int, response: httpx.Response, whose: str) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise BadRequest(f"Its {whose} take more than {limit >> 20} MB of JSON.")
    return b"".join(parts)


def _read_prediction_rows(response: httpx.Response) -> bytes:
    """Read a list of predictions and leave their regions out unread."""
    content = _read_within(_MAX_BYTES_OF_PREDICTIONS, response, "predictions")
    try:
        return encode(decode(content, _PREDICTION_ROWS))
    except PayloadTooLarge:
        raise BadRequest("Its predictions have too many values to be read.") from None
    except BadRequest:
        raise _no_json(response) from None


def check_answer(response: httpx.Response) -> None:
    """Refuse an answer that Label Studio's API does not give to such a request.

    Raises:
        ForeignAnswerError: it is no JSON, or lacks what the backend reads of it; or it is a
            refusal that Label Studio has not made itself.
    """
    if response.is_client_error and response.status_code not in _UNCHECKED_REFUSALS:
        _read_json(response)
    if not response.is_success or response.status_code == 204:
        return
    answer = _read_json(response)
    asked = f"{response.request.method} {response.request.url.path}"
    if response.request.method == "DELETE":  # of what is deleted, only HTTP 204 tells
        raise ForeignAnswerError(f"answers HTTP {response.status_code} where it should delete")
    for pattern, kind in _ANSWERS:
        if pattern.fullmatch(asked):
            _check(kind, answer, response)


def _read_json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise _no_json(response) from None


def _no_json(response: httpx.Response) -> ForeignAnswerError:
    return ForeignAnswerError(
        f"answers HTTP {response.status_code} with what is no JSON: it may be a login or "
        "maintenance page, or LABEL_STUDIO_URL may be the address of something else"
    )


def _check(kind: TypeAdapter[Any], answer: Any, response: httpx.Response) -> None:
    try:
        kind.validate_python(answer)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the whole answer"
        raise ForeignAnswerError(
            f"answers HTTP {response.status_code} for {response.request.url.path} with JSON that "
            f"its API does not send: {place[:100]} is missing or of a wrong type"
        ) from None
