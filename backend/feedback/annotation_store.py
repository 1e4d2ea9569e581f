"""Annotations that have changed, and what was read of each: one row for each annotation.

A webhook or a poll marks an annotation as changed and says no more, so that neither the order of
messages nor a repeated one matters. A reader leases the annotation, asks Label Studio for its
present state, and completes it unless it was marked again meanwhile::

    mark ──> pending ──> leased ──> read         `complete`, or `discard` where it is gone
                ^          │
                └──────────┘                     Label Studio was away; marked again; reader died

Backends that share a database share the rows; the lease of a backend that dies ends. A reader
without a learner, such as the command line, leaves the row for a reader that has one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, select, update

from backend.database.database import Database, key_batches
from backend.database.leases import RELEASED, is_free, is_owned_by, leased_to, renewed
from backend.feedback.annotation_marks import AnnotationMarks
from backend.feedback.annotation_queries import AnnotationQueries
from backend.feedback.annotation_table import ANNOTATIONS, read_in, write_annotations
from backend.feedback.read_annotation import ReadAnnotation
from backend.feedback.sum_store import change_sums, recount_sums

#: Before an annotation that could not be read is tried again, in seconds: at first, and at most.
_FIRST_RETRY_S: Final = 15.0
_LONGEST_RETRY_S: Final = 3600.0

#: How often sums are counted anew where annotations come meanwhile.
_RECOUNTS: Final = 3

_ROW: Final = ANNOTATIONS.c


@dataclass(frozen=True)
class PendingAnnotation:
    """An annotation that is leased to be read.

    Attributes:
        annotation: its id.
        project: the id of its project, as the message said that marked it.
        count: how often it has been marked.
        tries: how often it could not be read since it was marked first.
        before: what was read of it last; None where nothing was.
    """

    annotation: int
    project: int
    count: int
    tries: int = 0
    before: ReadAnnotation | None = field(default=None, repr=False, compare=False)


class AnnotationStore(AnnotationMarks, AnnotationQueries):
    """The annotations in a database, for one backend.

    Args:
        database: where they are kept.
        owner: the name of this backend, see `backend.database.leases.new_owner`.

    >>> annotations = AnnotationStore(Database("sqlite://"), "worker")
    >>> annotations.mark(7, [3, 3])
    >>> annotations.mark(7, [3])
    >>> annotations.lease(10)
    [PendingAnnotation(annotation=3, project=7, count=2, tries=0)]
    """

    def __init__(self, database: Database, owner: str) -> None:
        super().__init__(database)
        self._owner = owner
        self._leased: set[int] = set()  # ids of annotations whose leases are renewed

    @property
    def now(self) -> float:
        """The time on the database's clock, in seconds since the epoch."""
        return self._database.clock()

    def lease(
        self,
        limit: int,
        project: int | None = None,
        unlearned: bool = False,
        since: float | None = None,
    ) -> list[PendingAnnotation]:
        """Lease annotations of one project: the longest due first, then the newest.

        Args:
            limit: at most so many.
            project: of this project only.
            unlearned: lease annotations too that were read already but not learned from.
            since: only those that were due at that time, in seconds since the epoch; now by
                default.
        """
        now = self._database.clock()
        due = now if since is None else since
        flags = (_ROW.open, _ROW.untaught) if unlearned else (_ROW.open,)
        query = select(ANNOTATIONS).where(_ROW.due <= due, is_free(ANNOTATIONS, now))
        queries = [query.where(flag == 1) for flag in flags]
        of = () if project is None else (_ROW.project == project,)
        with self._database.read() as connection:  # most often nothing is due: no lock
            first = _first_due(connection, [each.where(*of) for each in queries], 1)
        if not first:
            return []
        with write_annotations(self._database) as connection:
            same = [each.where(_ROW.project == first[0].project) for each in queries]
            rows = _first_due(connection, same, limit)
            ids = [row.annotation for row in rows]
            self._update(connection, ids, **leased_to(self._owner, now))
        self._leased.update(ids)
        return [
            PendingAnnotation(
                row.annotation,
                row.project,
                row.marked,
                row.tries,
                read_in(row) if row.kind else None,
            )
            for row in rows
        ]

    def renew(self) -> None:
        """Renew the leases of this backend for another `LEASE_S`.

        A lease that was given up here is not renewed, even if the database could not be told: it
        ends then, and another backend may take it.
        """
        values = renewed(self._database.clock())
        ours = (is_owned_by(ANNOTATIONS, self._owner), _ROW.leased_until > 0)
        for batch in key_batches(self._leased):
            with write_annotations(self._database) as connection:
                which = (_ROW.annotation.in_(batch), *ours)
                connection.execute(update(ANNOTATIONS).where(*which).values(values))

    def complete(
        self, pending: PendingAnnotation, read: ReadAnnotation, learned: bool = True
    ) -> bool:
        """Keep what was read; return whether the lease was still held.

        The annotation is pending no more, unless it was marked again meanwhile.

        Args:
            pending: from `lease`.
            read: what was read.
            learned: whether it was learned from.
        """
        values = {
            "project": read.project,
            "kind": read.kind,
            "task": read.task,
            "version": read.version,
            "annotator": read.annotator,
            "seconds": read.seconds,
            "created": read.created,
            "updated": read.updated,
            "changes": json.dumps([change.to_json() for change in read.changes]),
            "reason": read.reason,
            "seen": pending.count,
            "tries": 0,
            **RELEASED,
        }
        self._leased.discard(pending.annotation)
        with write_annotations(self._database) as connection:
            before = self._read_before(connection, pending)
            done = self._update_leased(connection, pending, **values)
            if done:
                change_sums(connection, before, read)
            connection.execute(
                update(ANNOTATIONS)
                .where(_ROW.annotation == pending.annotation, _ROW.seen == _ROW.marked)
                .values(_closed(learned))
            )
        return done

    def discard(self, pending: PendingAnnotation, learned: bool = True) -> bool:
        """Forget an annotation that is gone; return whether the lease was still held.

        Args:
            pending: from `lease`.
            learned: whether the learner has forgotten it too; otherwise an empty row stays.
        """
        self._leased.discard(pending.annotation)
        with write_annotations(self._database) as connection:
            before = self._read_before(connection, pending)
            there = self._update_leased(connection, pending, kind="", changes="[]", **RELEASED)
            if there:
                change_sums(connection, before, None)
                newest = (_ROW.annotation == pending.annotation, _ROW.marked == pending.count)
                closing = delete(ANNOTATIONS) if learned else update(ANNOTATIONS).values(open=0)
                connection.execute(closing.where(*newest))
        return there

    def postpone(self, pending: PendingAnnotation) -> None:
        """Postpone an annotation that was read but not learned from, longer each time."""
        due = self._database.clock() + _retry_delay_s(pending.tries)
        tried = {"due": due, "tries": pending.tries + 1}
        unleased = (_ROW.open == 0, _ROW.untaught == 1, _ROW.owner == "")
        with write_annotations(self._database) as connection:
            which = (_ROW.annotation == pending.annotation, *unleased)
            connection.execute(update(ANNOTATIONS).where(*which).values(tried))

    def release(
        self, leased: Sequence[PendingAnnotation], failed: PendingAnnotation | None = None
    ) -> None:
        """Give leases back; the annotation that could not be read waits longer each time."""
        now = self._database.clock()
        self._leased.difference_update(each.annotation for each in leased)
        with write_annotations(self._database) as connection:
            for each in leased:
                due = now + min(_retry_delay_s(each.tries), _LONGEST_RETRY_S)
                later = {"due": due, "tries": each.tries + 1} if each == failed else {}
                self._update_leased(connection, each, **RELEASED, **later)

    def recount(self, project: int) -> bool:
        """Add up all that was read of a project anew; return whether it could be written.

        A backend of an earlier release that goes on while the database is upgraded does not keep
        the sums. Where annotations come all the time, none of the tries may succeed.
        """
        return any(recount_sums(self._database, project) for _ in range(_RECOUNTS))

    # ---- inside ------------------------------------------------------------------------------

    def _read_before(
        self, connection: Connection, pending: PendingAnnotation
    ) -> ReadAnnotation | None:
        """Return what was read of an annotation so far: since its lease, another may have done."""
        query = select(ANNOTATIONS).where(_ROW.annotation == pending.annotation, _ROW.kind != "")
        row = connection.execute(query).first()
        return None if row is None else read_in(row)

    def _update(self, connection: Connection, ids: Sequence[int], **values: Any) -> None:
        for batch in key_batches(ids):
            connection.execute(update(ANNOTATIONS).where(_ROW.annotation.in_(batch)).values(values))

    def _update_leased(
        self, connection: Connection, pending: PendingAnnotation, **values: Any
    ) -> bool:
        """Change a row that is leased here; return False where the lease has gone to another."""
        ours = (_ROW.annotation == pending.annotation, is_owned_by(ANNOTATIONS, self._owner))
        return bool(connection.execute(update(ANNOTATIONS).where(*ours).values(values)).rowcount)


def _first_due(
    connection: Connection, queries: Sequence[Select[Any]], limit: int
) -> list[Row[Any]]:
    """Read the first rows that queries for annotations find: the longest due, then the newest.

    An index serves each; as one query, joined by OR, SQLite would read all rows of a project.
    """
    found: dict[int, Row[Any]] = {}
    for query in queries:
        ordered = query.order_by(_ROW.due, _ROW.annotation.desc()).limit(limit)
        found.update((row.annotation, row) for row in connection.execute(ordered))
    return sorted(found.values(), key=lambda row: (row.due, -row.annotation))[:limit]


def _retry_delay_s(tries: int) -> float:
    """Return the retry delay after so many failures: twice as long each time, up to days."""
    return _FIRST_RETRY_S * 2.0 ** min(tries, 15)


def _closed(learned: bool) -> dict[str, int]:
    return {"open": 0, "untaught": 0} if learned else {"open": 0}
