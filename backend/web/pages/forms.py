"""What pages are asked: for which project, and by which form or JSON body."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qs

import msgspec

from backend.errors import BadRequest, NotFound, StudioRefused, StudioUnreachable
from backend.jobs.job_store import Only
from backend.label_studio.client import LabelStudioClient, token_sentence

#: A part of a rule for a number from 1 on that a database can hold.
URL_NUMBER: Final = "int(min=1, max=2147483647)"

#: The start of each rule of a project's pages; routes are given its number as `project`.
PROJECT: Final = f"/projects/<{URL_NUMBER}:project>"


def no_key(client: LabelStudioClient | None, use: str) -> str:
    """Return what a page tells people who cannot use it: empty where there is a token."""
    return token_sentence(use) if client is None else ""


def missing_project(project: int) -> NotFound:
    """Return the error that says that Label Studio has no such project."""
    return NotFound(
        f"Label Studio has no project {project}, or does not show it to the backend's user."
    )


@dataclass(frozen=True, eq=False)
class ProjectCheck:
    """Asks Label Studio for a project while somebody waits; without a token it refuses none."""

    page_client: LabelStudioClient | None

    def check(self, project: int) -> None:
        """Refuse a project that Label Studio says is not there.

        Where it is away, or refuses the token, what was asked for is started: it waits, or says so.

        Raises:
            NotFound: Label Studio has no such project, or does not show it to the token.
        """
        if not self._may_be_there(project):
            raise missing_project(project)

    def _may_be_there(self, project: int) -> bool:
        try:
            return self.page_client is None or self.page_client.has_project(project)
        except (StudioRefused, StudioUnreachable):
            return True


#: The type of a body that a browser sends for a form.
FORM_TYPE = "application/x-www-form-urlencoded"

MAX_FORM_BYTES = 1 << 16  # largest form, or JSON in its place, in bytes: it holds a few numbers
_MAX_FIELDS = 20  # most fields that are read of a form

Form = Mapping[str, list[str]]

_Number = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
_NumberOrZero = Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]

_Asked = TypeVar("_Asked")


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a job; see `backend.jobs.job_store.Job` for the fields."""

    project: _Number
    only: Only = msgspec.field(default="unlabeled", name="filter")
    view: _Number | None = None
    limit: _Number | None = None


class ActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of an action on what a project has learned."""

    number: _NumberOrZero | None = None  # the version to use; 0 for the words alone
    label: str = ""  # the label that keeps its words, or learns again
    person: str = ""  # key or name of whom to learn without, or with again


class RowRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The row of a trial, whose words are to be used."""

    row: _NumberOrZero


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An annotation, and the time of its last change in seconds since the epoch."""

    annotation: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    updated: float = 0.0


def last_values(form: Form) -> dict[str, Any]:
    """Return the last value of each field of a form.

    >>> last_values({"formats": ["coco", "yolo"]})
    {'formats': 'yolo'}
    """
    return {name: values[-1] for name, values in form.items()}


def parse_fields(
    body: bytes,
    is_form: bool,
    kind: type[_Asked],
    fields_of: Callable[[Form], dict[str, Any]] = last_values,
) -> _Asked:
    """Parse a JSON object, or the fields of a form; an empty body has none.

    Raises:
        BadRequest: the body is neither, lacks a field, or has a value that is not allowed.

    >>> parse_fields(b"project=7&filter=all", True, JobRequest)
    JobRequest(project=7, only='all', view=None, limit=None)
    """
    try:
        if is_form:
            form = {name: [each.strip() for each in own] for name, own in read_form(body).items()}
            return msgspec.convert(fields_of(form), kind, strict=False)
        return msgspec.json.decode(body or b"{}", type=kind, strict=False)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        sentence = str(error)
        expected = "" if sentence.startswith("Expected") else "Expected other fields: "
        raise BadRequest(f"{expected}{sentence}.") from None


def read_form(body: bytes) -> dict[str, list[str]]:
    """Parse an HTML form: the values of each field; an empty field is left out.

    Raises:
        BadRequest: the body is no form, or has too many fields.

    >>> read_form(b"formats=coco&formats=yolo&split=")
    {'formats': ['coco', 'yolo']}
    """
    try:
        return parse_qs(body.decode(), max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadRequest("Expected a body of form fields, but got something else.") from None
