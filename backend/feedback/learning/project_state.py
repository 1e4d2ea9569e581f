"""Lock, change and read the row that says where learning stands in a project."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from backend.errors import LearningRefused
from backend.feedback.learning.tables import EXAMPLES, STATES, in_project
from backend.feedback.learning.versions import LearningState


def lock_state(connection: Connection, project: int, model: str) -> Row[Any]:
    """Lock the row of a project until the transaction ends; insert it where it is missing."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_or_leave
    else:
        from sqlalchemy.dialects.sqlite import (  # type: ignore[assignment]
            insert as insert_or_leave,
        )
    row = {"project": project, "model": model}
    connection.execute(insert_or_leave(STATES).values(row).on_conflict_do_nothing())
    query = select(STATES).where(*in_project(STATES, project, model)).with_for_update()
    return connection.execute(query).one()


def change_state(connection: Connection, project: int, model: str, **changes: Any) -> None:
    """Change columns of a project's row."""
    query = update(STATES).where(*in_project(STATES, project, model))
    connection.execute(query.values(changes))


def read_state(connection: Connection, project: int, model: str) -> LearningState:
    """Read where a project stands; one without a row has learned nothing."""
    query = select(STATES).where(*in_project(STATES, project, model))
    row = connection.execute(query).first()
    if row is None:
        return LearningState(project)
    annotations, pictures = count_examples(connection, project, model)
    return LearningState(
        project,
        row.live,
        bool(row.pinned),
        row.changed,
        bool(row.asked),
        annotations,
        pictures,
        row.trouble,
    )


def count_examples(connection: Connection, project: int, model: str) -> tuple[int, int]:
    """Count the annotations and the images that a project has training examples of."""
    counts = select(func.count(EXAMPLES.c.annotation.distinct()), func.count())
    query = counts.where(*in_project(EXAMPLES, project, model))
    annotations, pictures = connection.execute(query).one()
    return int(annotations), int(pictures)


def check_not_pinned(pinned: bool, project: int) -> None:
    """Refuse to move what a pinned project uses.

    Raises:
        LearningRefused: the project is pinned.
    """
    if pinned:
        raise LearningRefused(f"Project {project} is pinned: unpin it to let it learn.")


def check_step(pinned: bool, pictures: int, project: int) -> None:
    """Refuse a step of a project that cannot make one.

    Raises:
        LearningRefused: the project is pinned, or it has no training examples.
    """
    check_not_pinned(pinned, project)
    if not pictures:
        raise LearningRefused(
            f"Project {project} has no corrections to learn from yet: submit annotations, or "
            "have those that are there read."
        )
