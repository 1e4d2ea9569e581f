"""Annotations that have changed, and what was read of each: one row for each annotation.

A poll marks an annotation as changed and says no more, so that a repeated mark does not matter. A
reader leases the annotation, asks Label Studio for its present state, and completes it unless it
was marked again meanwhile, or releases it. A reader without a learner, such as the command line,
leaves the row for one that has one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec, TypeVar

import sqlalchemy as sa
from msgspec import DecodeError
from msgspec.json import Decoder, encode

from backend.database.database import Database, insert_on_conflict, key_batches, unindexed
from backend.database.leases import (
    FINISHED,
    RELEASED,
    Deaths,
    Leases,
    is_due,
    is_hopeless,
)
from backend.feedback.annotation_table import ANNOTATIONS, AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.sums import (
    GroupSums,
    ProjectSums,
    change_sums,
    read_sums,
    read_totals,
    sum_again,
)
from backend.label_studio.records import SummaryRow

log = logging.getLogger(__name__)

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")

_ROW: Final = ANNOTATIONS.c
_CHANGES: Final = Decoder(tuple[LabelDiff, ...])
_REGIONS: Final = Decoder(dict[str, dict[str, int]])
_READ: Final = tuple(field.name for field in fields(ReadAnnotation))

#: The advisory lock of PostgreSQL under which annotations are changed: of two writers, none is
#: stopped by a deadlock.
_LOCK: Final = 0xC1EAA707

#: Before an annotation that could not be read is tried again, in seconds: at first, and at most.
_FIRST_RETRY_S: Final = 15.0
LONGEST_RETRY_S: Final = 3600.0

_LONGEST_DOUBLINGS: Final = 15  # of the retry delay of what is learned from later: days


@dataclass(frozen=True)
class PendingAnnotation:
    """An annotation that is leased to be read."""

    annotation: int
    project: int  # the id of its project, as the message said that marked it
    count: int
    tries: int = 0  # how often it could not be read since it was marked first
    task: int = 0  # 0: it is not known yet
    has_killed: bool = False  # whether a process has ended while it read this one, or one beside it
    is_deadly: bool = False  # whether that has happened so often that it is not read again
    before: ReadAnnotation | None = field(default=None, repr=False, compare=False)  # as read last


def _mended(
    method: Callable[Concatenate[AnnotationStore, _Asked], _Answer],
) -> Callable[Concatenate[AnnotationStore, _Asked], _Answer]:
    """Return a method that sums up anew, once, what another version has stored otherwise."""

    @wraps(method)
    def call(store: AnnotationStore, /, *args: _Asked.args, **named: _Asked.kwargs) -> _Answer:
        try:
            return method(store, *args, **named)
        except DecodeError as error:
            log.warning("What was read of annotations is summed up anew: %s", error)
            store.sum_again()
            return method(store, *args, **named)

    return call


class WorkTime(NamedTuple):
    """How long an annotation took in all, in seconds, and when it was submitted first."""

    seconds: float
    created: float  # in seconds since the epoch


class KnownAnnotation(NamedTuple):
    """What is known of an annotation without asking Label Studio."""

    annotation: int
    kind: AnnotationOrigin | Literal[""]  # empty where it was never read
    version: str  # the ``model_version`` of the prediction that it was compared with
    reason: str  # why there is nothing to compare, of a broken one
    updated: float  # when it was changed last before it was read, in seconds since the epoch
    is_open: bool  # whether it is still to be read, or to be read again


class AnnotationStore:
    """The annotations in a database, for one backend; safe to share between threads.

    >>> annotations = AnnotationStore(Database("sqlite://"), "worker")
    >>> annotations.mark(7, [3, 3])
    >>> annotations.mark(7, [3])
    >>> (pending,) = annotations.lease(10)
    >>> pending.annotation, pending.count
    (3, 2)
    """

    def __init__(self, database: Database, owner: str = "") -> None:  # "" leases nothing
        self._database = database
        self.leases = Leases(database, ANNOTATIONS, owner, _LOCK)

    @property
    def now(self) -> float:
        """The time on the database's clock, in seconds since the epoch."""
        return self._database.clock()

    # ---- marks ---------------------------------------------------------------------------------

    def mark(
        self, project: int, annotations: Iterable[int], tasks: Mapping[int, int] | None = None
    ) -> None:
        """Mark annotations of a project that are new, changed or gone; `tasks` are theirs."""
        for batch in key_batches(sorted(set(annotations))):
            with self._database.write_exclusively(_LOCK) as connection:
                of = {id_: (tasks or {}).get(id_, 0) for id_ in batch}
                self._mark(connection, project, of)

    def mark_tasks(self, project: int, tasks: Iterable[int]) -> None:
        """Mark the annotations of tasks that have changed or are gone."""
        ours = unindexed(_ROW.project) == project  # a task's annotations are few
        for batch in key_batches(sorted(set(tasks))):
            self._mark_again(ours, _ROW.task.in_(batch))

    def mark_different(self, project: int, found: Mapping[int, Mapping[int, float]]) -> int:
        """Mark annotations that are in another state than the one that was read, or are gone.

        Those that are marked already stay. `found` is task -> annotation -> time of its last
        change, in seconds since the epoch. Return how many were marked.
        """
        now = {id_: updated for each in found.values() for id_, updated in each.items()}
        tasks = {id_: task for task, each in found.items() for id_ in each}
        known = self._known(project, found, now)
        different = _differing(known, found, now)
        if different:
            self.mark(project, different, tasks)
        return len(different)

    def _known(self, project: int, tasks: Iterable[int], ids: Iterable[int]) -> list[sa.Row[Any]]:
        """Read the rows of annotations that are of some tasks, or have some ids."""
        known = sa.select(_ROW.annotation, _ROW.task, _ROW.updated, _ROW.open, _ROW.kind)
        conditions = [_ROW.task.in_(batch) for batch in key_batches(sorted(tasks))]
        conditions += [_ROW.annotation.in_(batch) for batch in key_batches(sorted(ids))]
        rows: list[sa.Row[Any]] = []
        with self._database.read() as connection:
            for condition in conditions:
                query = known.where(unindexed(_ROW.project) == project, condition)
                rows += connection.execute(query)
        return rows

    def mark_all(self, project: int) -> None:
        self._mark_again(_ROW.project == project)

    def _mark(self, connection: sa.Connection, project: int, tasks: Mapping[int, int]) -> None:
        statement = insert_on_conflict(connection, ANNOTATIONS).on_conflict_do_update(
            index_elements=[_ROW.annotation],
            set_={"marked": _ROW.marked + 1, "open": 1, "untaught": 1, "due": 0.0},
        )
        more = {"project": project, "marked": 1}
        rows = [{"annotation": id_, "task": task} | more for id_, task in tasks.items()]
        connection.execute(statement, rows)

    def _mark_again(self, *conditions: sa.ColumnElement[bool]) -> None:
        again = sa.update(ANNOTATIONS).where(*conditions)
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(again.values(marked=_ROW.marked + 1, open=1, untaught=1, due=0.0))

    # ---- what was read ---------------------------------------------------------------------------

    @_mended
    def sums(self, project: int) -> ProjectSums:
        """Return the sums of a project, in a time that does not grow with its annotations."""
        with self._database.read() as connection:
            return read_sums(connection, project)

    def region_counts(self, project: int) -> SummaryRow:
        """Count the regions of all annotations that were read, also of those imported with tasks.

        Annotations that version 0.2 has read count once they are read again.
        """
        return SummaryRow.of(self.sums(project).all.regions)

    def project_tasks(self, project: int) -> list[int]:
        """Return the tasks of a project with an annotation that was read, in ascending order."""
        query = sa.select(_ROW.task).where(_ROW.project == project, _ROW.kind != "", _ROW.task > 0)
        return sorted(task for (task,) in self._database.rows(query.distinct()))

    def annotated(self, project: int, tasks: Collection[int]) -> set[int]:
        """Return those of some tasks that have an annotation, be it read or still to be read."""
        found: set[int] = set()
        for some in key_batches(tasks):
            query = sa.select(_ROW.task).where(_ROW.project == project, _ROW.task.in_(some))
            its = query.where(sa.or_(_ROW.kind != "", _ROW.open == 1)).distinct()
            found |= {row.task for row in self._database.rows(its)}
        return found

    def of_task(self, project: int, task: int) -> list[KnownAnnotation]:
        """Return what is known of the annotations of a task, by ascending id."""
        query = sa.select(
            _ROW.annotation, _ROW.kind, _ROW.version, _ROW.reason, _ROW.updated, _ROW.open
        ).where(_ROW.project == project, _ROW.task == task)
        return [
            KnownAnnotation(
                annotation=row.annotation,
                kind=row.kind,
                version=row.version,
                reason=row.reason,
                updated=row.updated,
                is_open=bool(row.open),
            )
            for row in self._database.rows(query.order_by(_ROW.annotation))
        ]

    def count_tasks(self, project: int, since: float) -> int:
        """Count the tasks with an annotation changed since a time on Label Studio's clock.

        Skipped and broken annotations do not count.
        """
        query = sa.select(sa.func.count(_ROW.task.distinct())).where(
            _ROW.project == project,
            _ROW.updated > since,
            _ROW.kind.not_in(("", "skipped", "broken")),
        )
        return int(self._database.scalar(query))

    def newest_times(
        self, project: int, kinds: Sequence[AnnotationOrigin], limit: int
    ) -> list[WorkTime]:
        """Return how long the newest measured annotations of some kinds took, newest first."""
        times = sa.select(_ROW.seconds, _ROW.created)
        times = times.where(_ROW.project == project, _ROW.kind.in_(kinds), _ROW.seconds > 0)
        newest = times.order_by(_ROW.created.desc()).limit(limit)
        return [WorkTime(row.seconds, row.created) for row in self._database.rows(newest)]

    @_mended
    def newest_reads(
        self, project: int, kinds: Sequence[AnnotationOrigin], limit: int
    ) -> list[ReadAnnotation]:
        """Return what was read of the newest annotations of some kinds, the newest first."""
        of_kinds = sa.select(ANNOTATIONS).where(_ROW.project == project, _ROW.kind.in_(kinds))
        newest = of_kinds.order_by(_ROW.created.desc()).limit(limit)
        with self._database.read() as connection:
            return [read_in(row) for row in connection.execute(newest)]

    def count_open(self, project: int | None = None) -> int:
        """Return how many annotations are still to be read."""
        query = sa.select(sa.func.count()).where(_ROW.open == 1)
        if project is not None:
            query = query.where(_ROW.project == project)
        return int(self._database.scalar(query))

    @_mended
    def totals(self) -> dict[int, GroupSums]:
        """Return the sums of each project with annotations that were read, by ascending project."""
        with self._database.read() as connection:
            return read_totals(connection)

    # ---- work under a lease ----------------------------------------------------------------------

    @_mended
    def lease(
        self,
        limit: int,
        project: int | None = None,
        unlearned: bool = False,
        since: float | None = None,
    ) -> list[PendingAnnotation]:
        """Lease annotations of one project: the longest due first, then the newest.

        With `unlearned` also those that were read but not learned from; with `since` only those
        that were due then, in seconds since the epoch.
        """
        due = self._database.clock() if since is None else since
        flags = (_ROW.open, _ROW.untaught) if unlearned else (_ROW.open,)
        leased: list[PendingAnnotation] = []

        def find(connection: sa.Connection, free: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
            query = sa.select(ANNOTATIONS).where(_is_due(due), free)
            queries = [query.where(flag == 1) for flag in flags]
            of = () if project is None else (_ROW.project == project,)
            first = _first_due(connection, [each.where(*of) for each in queries], 1)
            same = [each.where(_ROW.project == row.project) for row in first for each in queries]
            return _first_due(connection, same, limit)

        def keep(row: sa.Row[Any], deaths: Deaths) -> dict[str, Any]:
            pending = PendingAnnotation(
                annotation=row.annotation,
                project=row.project,
                count=row.marked,
                tries=row.tries,
                task=row.task,
                has_killed=bool(deaths),
                is_deadly=is_hopeless(deaths),
                before=read_in(row) if row.kind else None,
            )
            leased.append(pending)
            return {}

        self.leases.take(find, keep)
        return self._keep_apart(leased)

    def _keep_apart(self, leased: list[PendingAnnotation]) -> list[PendingAnnotation]:
        """Give back those at which a process has ended, or all but one: it is read alone."""
        kept = [each for each in leased if not each.has_killed] or leased[:1]
        others = [each for each in leased if each not in kept]
        if others:
            self.release(others)
        return kept

    def has_due(self) -> bool:
        """Whether an annotation is due or leased, to be read or to be learned from."""
        query = sa.select(ANNOTATIONS).where(_is_due(self._database.clock()))
        queries = [query.where(flag == 1) for flag in (_ROW.open, _ROW.untaught)]
        with self._database.read() as connection:
            return bool(_first_due(connection, queries, 1))

    @_mended
    def complete(
        self,
        pending: PendingAnnotation,
        read: ReadAnnotation | None,
        learned: bool = True,
        retry: bool = False,
    ) -> None:
        """Keep what was read, or that the annotation is gone, if the lease is still held.

        The annotation is pending no more, unless it was marked again meanwhile. Where another
        backend has the lease, or had it, that may have read an older state: it is marked again.

        What is not `learned`, or forgotten where it is gone, stays for a reader with a learner,
        which with `retry` waits, longer each time.
        """
        self.leases.let_go(pending.annotation)
        its = _ROW.annotation == pending.annotation
        kept = {"kind": "", "changes": "[]", "regions": "{}"} if read is None else _values(read)
        with self._database.write_exclusively(_LOCK) as connection:
            # Since the lease, another may have read it.
            query = sa.select(ANNOTATIONS).where(its, _ROW.kind != "")
            row = connection.execute(query).first()
            done = {"seen": pending.count, "tries": 0, **FINISHED}
            if not self.leases.change(connection, pending.annotation, **kept, **done):
                self._mark(connection, pending.project, {pending.annotation: pending.task})
                return
            change_sums(connection, None if row is None else read_in(row), read)
            closed: dict[str, Any] = {"open": 0, "untaught": int(not learned)}
            if retry:
                due = self._database.clock() + retry_delay_s(pending.tries)
                closed |= {"due": due, "tries": pending.tries + 1}
            is_gone = read is None and learned
            end = sa.delete(ANNOTATIONS) if is_gone else sa.update(ANNOTATIONS).values(closed)
            connection.execute(end.where(its, _ROW.seen == _ROW.marked))

    def release(
        self, leased: Sequence[PendingAnnotation], failed: PendingAnnotation | None = None
    ) -> None:
        """Give leases back; the annotation that could not be read waits longer each time."""
        now = self._database.clock()
        for each in leased:
            self.leases.let_go(each.annotation)
        with self._database.write_exclusively(_LOCK) as connection:
            for each in leased:
                due = now + min(retry_delay_s(each.tries), LONGEST_RETRY_S)
                later = {"due": due, "tries": each.tries + 1} if each == failed else {}
                self.leases.change(connection, each.annotation, **RELEASED, **later)

    def sum_again(self) -> None:
        """Sum up all that was read; annotations whose differences cannot be read are read again."""
        with self._database.write_exclusively(_LOCK) as connection:
            rows = connection.execute(sa.select(ANNOTATIONS).where(_ROW.kind != "")).all()
            again = [row.annotation for row in rows if _is_unreadable(row)]
            self._update(connection, again, changes="[]", marked=_ROW.marked + 1, open=1, due=0.0)
            known = connection.execute(sa.select(ANNOTATIONS).where(_ROW.kind != ""))
            sum_again(connection, map(read_in, known))

    # ---- inside ------------------------------------------------------------------------------

    def _update(self, connection: sa.Connection, ids: Sequence[int], **values: Any) -> None:
        for batch in key_batches(ids):
            connection.execute(
                sa.update(ANNOTATIONS).where(_ROW.annotation.in_(batch)).values(values)
            )


def _first_due(
    connection: sa.Connection, queries: Sequence[sa.Select[Any]], limit: int
) -> list[sa.Row[Any]]:
    """Read the first rows that queries for annotations find: the longest due, then the newest.

    An index serves each; as one query, joined by OR, SQLite would read all rows of a project.
    """
    found: dict[int, sa.Row[Any]] = {}
    for query in queries:
        ordered = query.order_by(_ROW.due, _ROW.annotation.desc()).limit(limit)
        found.update((row.annotation, row) for row in connection.execute(ordered))
    return sorted(found.values(), key=lambda row: (row.due, -row.annotation))[:limit]


def _differing(
    known: Iterable[sa.Row[Any]],
    found: Mapping[int, Mapping[int, float]],
    now: Mapping[int, float],
) -> set[int]:
    """Return the annotations that are not as they are known, but those that are marked already.

    Args:
        known: the rows of annotations that are of the tasks, or have the ids.
        found: task -> annotation -> time of its last change.
        now: annotation -> time of its last change.
    """
    different = set(now)
    for row in known:
        is_there = row.annotation in now
        if is_there and (row.open or row.updated == now[row.annotation]):
            different.discard(row.annotation)
        elif not is_there and row.task in found and row.kind and not row.open:
            different.add(row.annotation)
    return different


def retry_delay_s(tries: int) -> float:
    """Return the retry delay after a number of failures: twice as long each time, up to days."""
    return _FIRST_RETRY_S * 2.0 ** min(tries, _LONGEST_DOUBLINGS)


def _is_due(now: float) -> sa.ColumnElement[bool]:
    doublings = sa.case((_ROW.tries > _LONGEST_DOUBLINGS, _LONGEST_DOUBLINGS), else_=_ROW.tries)
    return is_due(_ROW.due, now, _FIRST_RETRY_S * sa.literal(1).bitwise_lshift(doublings))


def read_in(row: sa.Row[Any]) -> ReadAnnotation:
    """Return what was read, from a row with all columns."""
    values = {name: row._mapping[name] for name in _READ}
    decoded = {"changes": _CHANGES.decode(row.changes), "regions": _REGIONS.decode(row.regions)}
    return ReadAnnotation(**values | decoded)


def _is_unreadable(row: sa.Row[Any]) -> bool:
    try:
        _CHANGES.decode(row.changes)
    except DecodeError:
        return True
    return False


def _values(read: ReadAnnotation) -> dict[str, Any]:
    values = {name: getattr(read, name) for name in _READ}
    encoded = {name: encode(values[name]).decode() for name in ("changes", "regions")}
    return values | encoded
