"""Parse the forms and JSON bodies that the pages send."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args
from urllib.parse import parse_qs

from backend.errors import BadRequest
from backend.jobs.job_store import Only
from backend.label_studio.requests import parse_object, read_count

#: The type of a body that a browser sends for a form.
FORM_TYPE = "application/x-www-form-urlencoded"

#: Largest form, or JSON in its place, in bytes: it holds a few numbers.
MAX_FORM_BYTES = 1 << 16

#: Most fields that are read of a form.
_MAX_FIELDS = 20


@dataclass(frozen=True)
class JobRequest:
    """Ask for a job; see `backend.jobs.job.Job` for the fields."""

    project: int
    only: Only = "unlabeled"
    view: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ActionRequest:
    """The parameters of an action on what a project has learned.

    Attributes:
        number: the version to use; 0 for the words alone, None for the version before the live
            one.
        keep_evidence: for a reset, whether the training examples stay.
        label: the label that keeps its words, or learns again.
    """

    number: int | None = None
    keep_evidence: bool = False
    label: str = ""


def parse_job(body: bytes, is_form: bool = False) -> JobRequest:
    """Parse the body of ``POST /jobs``. An empty field counts as missing.

    Args:
        body: a JSON object, or an encoded form.
        is_form: whether it is a form.

    Raises:
        BadRequest: the body is neither, names no project, or has a value that is not allowed.

    >>> parse_job(b"project=7&filter=all", is_form=True)
    JobRequest(project=7, only='all', view=None, limit=None)
    """
    fields = _form(body) if is_form else parse_object(body)
    unknown = sorted(fields.keys() - {"project", "filter", "view", "limit"})
    if unknown:
        raise BadRequest(f"Expected project, filter, view and limit, but got {unknown[0][:50]!r}.")
    project = read_count(fields, "project")
    if project is None:
        raise BadRequest('Expected "project" to be the number of a project, but it is missing.')
    given = fields.get("filter") or "unlabeled"
    if given not in get_args(Only):
        raise BadRequest('Expected "filter" to be unlabeled or all, but got something else.')
    only = cast(Only, given)
    return JobRequest(project, only, read_count(fields, "view"), read_count(fields, "limit"))


def parse_action(body: bytes, is_form: bool = False) -> ActionRequest:
    """Parse the body of ``POST /projects/<id>/learning/<action>``, which may be empty.

    Args:
        body: a JSON object, or an encoded form.
        is_form: whether it is a form.

    Raises:
        BadRequest: the body is neither, or has a value that is not allowed.

    >>> parse_action(b"number=3", is_form=True), parse_action(b"").number
    (ActionRequest(number=3, keep_evidence=False, label=''), None)
    """
    fields = {} if not body else _form(body) if is_form else parse_object(body)
    unknown = sorted(fields.keys() - {"number", "keep_evidence", "label"})
    if unknown:
        raise BadRequest(f"Expected number, keep_evidence and label, but got {unknown[0][:50]!r}.")
    keep = fields.get("keep_evidence") or False
    if keep not in (True, False, "true", "on"):
        raise BadRequest('Expected "keep_evidence" to be true or false, but got something else.')
    label = fields.get("label") or ""
    if not isinstance(label, str):
        raise BadRequest('Expected "label" to be a name, but got something else.')
    return ActionRequest(read_count(fields, "number", least=0), bool(keep), label)


def parse_row(body: bytes, is_form: bool = False) -> int:
    """Parse the body of ``POST /projects/<id>/words/<run>/use``: the row of a trial.

    Raises:
        BadRequest: the body has no such number.

    >>> parse_row(b"row=2", is_form=True)
    2
    """
    fields = _form(body) if is_form else parse_object(body)
    row = read_count(fields, "row", least=0)
    if row is None or fields.keys() != {"row"}:
        raise BadRequest('Expected "row" to be the number of a trial, and nothing else.')
    return row


def parse_confirmation(body: bytes, is_form: bool = False) -> tuple[int, float]:
    """Parse the body of ``POST /projects/<id>/label-errors/confirm`` and ``.../take-back``.

    Args:
        body: a JSON object, or an encoded form.
        is_form: whether it is a form.

    Returns:
        The annotation, and the time of its last change in seconds since the epoch; 0 where the
        body names none.

    Raises:
        BadRequest: the body has no annotation, or a value that is not allowed.

    >>> parse_confirmation(b"annotation=12&updated=5.5", is_form=True)
    (12, 5.5)
    """
    fields = _form(body) if is_form else parse_object(body)
    annotation, given = read_count(fields, "annotation"), fields.get("updated", 0.0)
    if annotation is None or fields.keys() - {"annotation", "updated"}:
        raise BadRequest('Expected "annotation" to be the number of one, and "updated" its time.')
    try:
        updated = float(given)
    except (OverflowError, TypeError, ValueError):
        updated = math.nan
    if not math.isfinite(updated):
        raise BadRequest('Expected "updated" to be a time in seconds.')
    return annotation, updated


def parse_project(query: Mapping[str, str]) -> int | None:
    """Return the project that the query of ``GET /jobs`` names; None if it names none.

    Raises:
        BadRequest: the value is not the number of a project.
    """
    return read_count(query, "project")


def _form(body: bytes) -> dict[str, Any]:
    """Parse an HTML form; of a field that comes several times, the last value counts."""
    return {**last_values(read_form(body))}


def last_values(form: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the last value of each field of a form.

    >>> last_values({"formats": ["coco", "yolo"]})
    {'formats': 'yolo'}
    """
    return {name: values[-1] for name, values in form.items()}


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
