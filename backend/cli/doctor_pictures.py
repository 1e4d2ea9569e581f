"""The check of pictures: one of each kind of address that the tasks of a project have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from backend.cli.doctor_context import CheckContext, CheckFailed
from backend.errors import BackendError
from backend.label_studio.label_config import ImageTag
from backend.label_studio.requests import Task
from backend.label_studio_services import LabelStudioServices

#: Kinds of address of which a picture is read.
_MOST_KINDS: Final = 12

#: What addresses of one kind begin with: a scheme and a host or bucket, or a path's first folders.
_KIND: Final = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]*://[^/?]*/?|/[^/?]*/[^/?]*/?")

#: A variable that the data manager can filter by: the key of a task's data, and no path in it.
_KEY: Final = re.compile(r"\$(\w+)")


@dataclass(frozen=True)
class _Example:
    """A picture of a task, whose address is the first of its kind."""

    kind: str
    source: str
    task: Task


def kind_of(source: str) -> str:
    """Return what all addresses of one kind begin with; the address itself where it is of none.

    >>> kind_of("https://host:81/a/b.png"), kind_of("s3://bucket/a.png"), kind_of("a.png")
    ('https://host:81/', 's3://bucket/', 'a.png')
    >>> kind_of("/data/upload/7/a.png"), kind_of("/data/local-files/?d=a.png")
    ('/data/upload/', '/data/local-files/')
    """
    found = _KIND.match(source)
    return found[0] if found else source


def check_images(context: CheckContext) -> str:
    """Check that a picture of each kind of address in the project can be read."""
    read: list[str] = []
    failures: list[str] = []
    images = LabelStudioServices(context.settings).images
    for example in _examples(context):
        task = example.task
        try:
            rgb = images.read(example.source, task)
        except BackendError as error:
            failures.append(f"Task {task.id}: {error}")
            continue
        if not read:
            context.task = {"id": task.id, "project": context.project_id, "data": dict(task.data)}
        read.append(f"{example.kind} (task {task.id}, {rgb.shape[1]} x {rgb.shape[0]} px)")
    if failures:
        which = f"{len(failures)} of {len(read) + len(failures)} kinds of address cannot be read. "
        raise CheckFailed(
            (which if len(read) + len(failures) > 1 else "") + " ".join(failures),
            "The backend cannot read it either.",
        )
    return f"A picture of each kind of address can be read: {', '.join(read)}."


def _examples(context: CheckContext) -> Iterator[_Example]:
    """Yield a picture of each kind of address, of each image tag; at most `_MOST_KINDS`.

    Raises:
        CheckFailed: the project has no task, or the first one has no address of a picture.
    """
    assert context.config is not None
    kinds: dict[str, None] = {}
    for tag in context.config.images:
        known: list[str] = []
        while len(kinds) < _MOST_KINDS and (task := _task_without(context, tag, known)) is not None:
            found = _new_examples(tag, task, known)
            if not found:  # all that is left is of a kind that is known
                break
            known += [example.kind for example in found]
            yield from (example for example in found if example.kind not in kinds)
            kinds |= dict.fromkeys(known)
            if _KEY.fullmatch(tag.value) is None:
                break


def _new_examples(tag: ImageTag, task: Task, known: list[str]) -> list[_Example]:
    """Return the first picture of a task of each kind of address that is not known yet."""
    try:
        sources = tag.sources(task.data)
    except BackendError as error:
        if known:  # other tasks have shown that the label config fits the project
            return []
        raise CheckFailed(
            f"Task {task.id}: {error}", "The backend cannot read it either."
        ) from None
    first: dict[str, _Example] = {}
    for source in map(str.strip, sources):
        kind = kind_of(source)
        if kind not in known:
            first.setdefault(kind, _Example(kind, source, task))
    return list(first.values())


def _task_without(context: CheckContext, tag: ImageTag, known: list[str]) -> Task | None:
    """Return the first task whose address is of no known kind; None where there is none.

    Raises:
        CheckFailed: the project has no task at all.
    """
    query: dict[str, Any] = {"ordering": ["tasks:id"]}
    if known:
        column = f"filter:tasks:data.{tag.value[1:]}"
        other = {"filter": column, "operator": "not_contains", "type": "String"}
        items = [other | {"value": kind} for kind in known]
        query["filters"] = {"conjunction": "and", "items": items}
    rows = context.ask(
        lambda studio: (
            studio.tasks.list(
                project=context.project_id,
                page_size=1,
                fields="task_only",
                resolve_uri=False,
                query=json.dumps(query),
            ).items
        ),
        "a task",
        "The token's user must be a member of the project.",
    )
    if rows:
        return Task(rows[0].id, context.project_id, rows[0].data or {})
    if known:
        return None
    raise CheckFailed("The project has no task yet.", "Import pictures, and run this again.")
