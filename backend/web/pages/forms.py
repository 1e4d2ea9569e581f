"""Parse the forms and JSON bodies that the pages send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args
from urllib.parse import parse_qs

from backend.errors import BadRequest
from backend.jobs.job_store import Only
from backend.label_studio.json_fields import parse_object, read_count


@dataclass(frozen=True)
class JobRequest:
    """A project to prelabel, see `backend.jobs.job_store.Job`."""

    project: int
    only: Only = "unlabeled"
    view: int | None = None
    limit: int | None = None


def parse_job(body: bytes, is_form: bool = False) -> JobRequest:
    """Read the body of ``POST /jobs``: JSON, or what a form sends. Empty fields are not given.

    Raises:
        BadRequest: not such a body, no project, or a value that cannot be.

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


@dataclass(frozen=True)
class ActionRequest:
    """What somebody wants of a project that learns; each is for some turns only.

    Attributes:
        number: a version to go back to, 0 for the words alone; None where it is not given.
        keep_evidence: whether what corrections have taught stays.
    """

    number: int | None = None
    keep_evidence: bool = False


def parse_action(body: bytes, is_form: bool = False) -> ActionRequest:
    """Read the body of ``POST /projects/<id>/learning/<turn>``, which may be empty.

    Raises:
        BadRequest: not such a body, or a value that cannot be.

    >>> parse_action(b"number=3", is_form=True), parse_action(b"").number
    (ActionRequest(number=3, keep_evidence=False), None)
    """
    fields = {} if not body else _form(body) if is_form else parse_object(body)
    unknown = sorted(fields.keys() - {"number", "keep_evidence"})
    if unknown:
        raise BadRequest(f"Expected number and keep_evidence, but got {unknown[0][:50]!r}.")
    keep = fields.get("keep_evidence") or False
    if keep not in (True, False, "true", "on"):
        raise BadRequest('Expected "keep_evidence" to be true or false, but got something else.')
    return ActionRequest(read_count(fields, "number", least=0), bool(keep))


def parse_project(query: Mapping[str, str]) -> int | None:
    """The project that the query of ``GET /jobs`` asks for; None where it names none.

    Raises:
        BadRequest: it is no number of a project.
    """
    return read_count(query, "project")


def _form(body: bytes) -> dict[str, Any]:
    """The fields of an HTML form; the last value of each."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=20)
    except ValueError:
        raise BadRequest("Expected a body of form fields, but got something else.") from None
    return {name: values[-1] for name, values in fields.items()}
