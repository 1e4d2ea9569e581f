"""Marks annotations as changed: they are to be read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, select, update

from backend.database.database import Database, key_batches, unindexed
from backend.feedback.annotation_table import ANNOTATIONS, write_annotations

#: So many messages within a second come from an import or a bulk action, not from annotators.
_BURST: Final = 20

_ROW: Final = ANNOTATIONS.c


class AnnotationMarks:
    """Marks annotations of a database, from any number of threads.

    Args:
        database: where the annotations are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._marking, self._next_marker = threading.Lock(), threading.Lock()
        self._marked_at: deque[float] = deque(maxlen=_BURST)

    def mark(self, project: int, annotations: Iterable[int]) -> None:
        """Mark annotations of a project that are new, changed or gone."""
        self._marked_at.append(self._database.clock())
        for batch in key_batches(sorted(set(annotations))):
            with self._alone(), write_annotations(self._database) as connection:
                self._mark(connection, project, batch)

    @property
    def in_burst(self) -> bool:
        """Whether so many messages came within a second that reading had better wait.

        Label Studio waits for the answer to each message; what they mark is not lost.
        """
        first = self._marked_at[0] if len(self._marked_at) == _BURST else 0.0
        return self._database.clock() - first < 1

    def mark_tasks(self, project: int, tasks: Iterable[int]) -> None:
        """Mark the annotations of tasks that have changed or are gone."""
        ours = unindexed(_ROW.project) == project  # a task's annotations are few
        # one that is read for the first time now may belong to one of the tasks
        read_first = (_ROW.project == project, _ROW.task == 0, _ROW.leased_until > 0)
        for batch in key_batches(sorted(set(tasks))):
            self._mark_again((ours, _ROW.task.in_(batch)), read_first)

    def mark_different(self, project: int, found: Mapping[int, Mapping[int, float]]) -> int:
        """Mark annotations that are in another state than the one that was read, or are gone.

        Those that are marked already are left as they are.

        Args:
            project: its id.
            found: id of a task -> id of each annotation that it has -> time of its last change, in
                seconds since the epoch.

        Returns:
            The number of annotations that were marked.
        """
        now = {id_: updated for each in found.values() for id_, updated in each.items()}
        known = self._known(project, found, now)
        gone = {row.annotation for row in known if row.task in found and row.kind} - set(now)
        read = {row.annotation for row in known if row.updated == now.get(row.annotation)}
        marked = {row.annotation for row in known if row.open}
        different = (set(now) - read | gone) - marked
        if different:
            self.mark(project, different)
        return len(different)

    def _known(self, project: int, tasks: Iterable[int], ids: Iterable[int]) -> list[Row[Any]]:
        """Read the rows of annotations that are of some tasks, or have some ids."""
        columns = (_ROW.annotation, _ROW.task, _ROW.updated, _ROW.open, _ROW.kind)
        conditions = [_ROW.task.in_(batch) for batch in key_batches(sorted(tasks))]
        conditions += [_ROW.annotation.in_(batch) for batch in key_batches(sorted(ids))]
        rows: list[Row[Any]] = []
        with self._database.read() as connection:
            for condition in conditions:
                query = select(*columns).where(unindexed(_ROW.project) == project, condition)
                rows += connection.execute(query)
        return rows

    def mark_all(self, project: int) -> None:
        """Mark all known annotations of a project."""
        self._mark_again((_ROW.project == project,))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread mark at a time: SQLite lets writers that meet wait by chance, and long.

        Thousands are marked in many transactions; a thread that waits has the next one.
        """
        with self._next_marker:  # held while waiting, so that the last thread cannot overtake
            self._marking.acquire()
        try:
            yield
        finally:
            self._marking.release()

    def _mark(self, connection: Connection, project: int, ids: Sequence[int]) -> None:
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        statement = insert(ANNOTATIONS).on_conflict_do_update(
            index_elements=[_ROW.annotation],
            set_={"marked": _ROW.marked + 1, "open": 1, "untaught": 1, "due": 0.0},
        )
        rows = [{"annotation": id_, "project": project, "marked": 1} for id_ in ids]
        connection.execute(statement, rows)

    def _mark_again(self, *which: tuple[ColumnElement[bool], ...]) -> None:
        """Mark the rows of each of some conditions, no two of which match the same row.

        Each has a statement of its own: joined by OR, SQLite would read all rows of the project.
        """
        with self._alone(), write_annotations(self._database) as connection:
            for conditions in which:
                connection.execute(
                    update(ANNOTATIONS)
                    .where(*conditions)
                    .values(marked=_ROW.marked + 1, open=1, untaught=1, due=0.0)
                )
