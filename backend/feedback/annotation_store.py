"""Annotations that have changed, and what was read of each: a row an annotation.

A webhook only marks: that annotation has changed, whatever of it, so that neither the order in
which they come nor a second one of the same matters. Whoever leases a mark asks Label Studio what
is there now, and takes the mark away if no other has come meanwhile::

    mark ──> marked ──> leased ──> read          `settle`, or `drop` where it is gone
               ^           │
               └───────────┘                     Label Studio was not there; marked again; died

Backends that share a database share the rows; the lease of one that dies ends. Who reads without
anybody to learn from it, as the command line does, leaves the row to be read once more by who has.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Table,
    Text,
    and_,
    cast,
    delete,
    func,
    or_,
    select,
    update,
)

from backend.database.database import METADATA, Database
from backend.database.leases import LEASE_S
from backend.feedback.comparison import LabelDiff

#: How an annotation began, or why there is nothing to compare; see `ReadAnnotation`.
AnnotationOrigin = Literal[
    "compared", "scratch", "copy", "converted", "foreign", "lost", "skipped", "broken"
]

#: Before what could not be read is tried again, in seconds: at first, and at most.
_FIRST_PAUSE_S: Final = 15.0
_LONGEST_PAUSE_S: Final = 3600.0

#: The advisory lock of PostgreSQL that puts changes of annotations one after the other.
_LOCK: Final = 0xC1EAA707

#: As many messages within a second are no annotators' any more, but an import or a bulk action.
_BURST: Final = 20

#: Rows of one turn to write, and keys of one SQL statement.
_BATCH_SIZE: Final = 400

_ANNOTATIONS: Final = Table(
    "annotations",
    METADATA,
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False, index=True),
    # how often it was marked, and how often it had been when it was read
    Column("marked", Integer, nullable=False, default=0),
    Column("seen", Integer, nullable=False, default=0),
    Column("open", Integer, nullable=False, default=1, index=True),
    Column("untaught", Integer, nullable=False, default=1, index=True),
    Column("due", Float, nullable=False, default=0.0),
    Column("tries", Integer, nullable=False, default=0),
    Column("owner", String(128), nullable=False, default=""),
    Column("leased_until", Float, nullable=False, default=0.0),
    # what was read
    Column("kind", String(16), nullable=False, default=""),
    Column("task", BigInteger, nullable=False, default=0, index=True),
    Column("version", Text, nullable=False, default=""),
    Column("annotator", Integer),
    Column("seconds", Float),
    Column("created", Float, nullable=False, default=0.0),
    Column("updated", Float, nullable=False, default=0.0),
    Column("changes", Text, nullable=False, default="[]"),
    Column("reason", Text, nullable=False, default=""),
)

_ROW: Final = _ANNOTATIONS.c


@dataclass(frozen=True)
class ReadAnnotation:
    """What was read of an annotation. Times are in seconds since the epoch.

    Attributes:
        annotation: its id.
        project: its project's.
        task: its task's.
        kind: "compared" with the prediction of ours that it began with. Else it began from
            "scratch", as a "copy" of another annotation, with a "foreign" prediction that is not
            ours, or with one that is "lost", since somebody has deleted it; it is a prediction that
            was "converted" as it is; or it was "skipped", or is "broken".
        version: the ``model_version`` of the prediction that it was compared with.
        annotator: who has made it, by number.
        seconds: how long it took in all, as Label Studio has measured it.
        created: when it was submitted first.
        updated: when it was changed last.
        changes: what became of each label on each picture.
        reason: why it is broken, in a sentence.
    """

    annotation: int
    project: int
    task: int
    kind: AnnotationOrigin
    version: str = ""
    annotator: int | None = None
    seconds: float | None = None
    created: float = 0.0
    updated: float = 0.0
    changes: tuple[LabelDiff, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class PendingAnnotation:
    """An annotation to read.

    Attributes:
        annotation: its id.
        project: its project's, as who marked it said.
        count: how often it has been marked.
        tries: how often it could not be read since it was marked first.
        before: what was read of it last; None where nothing was.
    """

    annotation: int
    project: int
    count: int
    tries: int = 0
    before: ReadAnnotation | None = field(default=None, repr=False, compare=False)


class Annotations:
    """The annotations in a store, for one backend.

    Args:
        store: the database.
        owner: who this is, see `backend.database.leases.new_owner`.

    >>> annotations = Annotations(Database("sqlite://"), "worker")
    >>> annotations.mark(7, [3, 3])
    >>> annotations.mark(7, [3])
    >>> annotations.take(10)
    [PendingAnnotation(annotation=3, project=7, count=2, tries=0)]
    """

    def __init__(self, store: Database, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._marking, self._next = threading.Lock(), threading.Lock()
        self._marked_at: deque[float] = deque(maxlen=_BURST)
        self._held: set[int] = set()  # leases of ours that are renewed

    # ---- who tells of changes ----------------------------------------------------------------

    def mark(self, project: int, annotations: Iterable[int]) -> None:
        """Note that annotations of a project are new, changed or gone."""
        self._marked_at.append(self._store.clock())
        for some in _some(sorted(set(annotations))):
            with self._turn(), self._write() as connection:
                self._mark(connection, project, some)

    @property
    def in_burst(self) -> bool:
        """Whether so many were told of here within a second that reading had better wait.

        Each of them is waited for by Label Studio; what they tell of is not lost.
        """
        first = self._marked_at[0] if len(self._marked_at) == _BURST else 0.0
        return self._store.clock() - first < 1

    def mark_tasks(self, project: int, tasks: Iterable[int]) -> None:
        """Note that tasks have changed or are gone, and so what was read of their annotations."""
        read_first = and_(_ROW.task == 0, _ROW.leased_until > 0)  # just now: may be one of theirs
        for some in _some(sorted(set(tasks))):
            self._again(_ROW.project == project, or_(_ROW.task.in_(some), read_first))

    def mark_all(self, project: int) -> None:
        """Have all annotations of a project that are known read anew."""
        self._again(_ROW.project == project)

    # ---- who reads them ----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The time on the store's clock."""
        return self._store.clock()

    def take(
        self,
        limit: int,
        project: int | None = None,
        untaught: bool = False,
        since: float | None = None,
    ) -> list[PendingAnnotation]:
        """Lease marks, of one project at a time: what is due longest first, then what is newest.

        Args:
            limit: at most so many.
            project: of this one only.
            untaught: those too that were read already, but that nobody has learned from.
            since: only those that were due at that time; by default those that are due now.
        """
        now = self._store.clock()
        due = now if since is None else since
        wanted = or_(_ROW.open == 1, _ROW.untaught == 1) if untaught else _ROW.open == 1
        free = [wanted, _ROW.due <= due, _ROW.leased_until < now]
        if project is not None:
            free.append(_ROW.project == project)
        query = select(_ANNOTATIONS).where(*free).order_by(_ROW.due, _ROW.annotation.desc())
        with self._store.read() as connection:  # most often there is nothing, and nobody waits
            first = connection.execute(query.limit(1)).first()
        if first is None:
            return []
        with self._write() as connection:
            same = query.where(_ROW.project == first.project).limit(limit)
            rows = connection.execute(same).all()
            ids = [row.annotation for row in rows]
            self._set(connection, ids, owner=self._owner, leased_until=now + LEASE_S)
        self._held.update(ids)
        return [
            PendingAnnotation(
                row.annotation, row.project, row.marked, row.tries, _read(row) if row.kind else None
            )
            for row in rows
        ]

    def renew(self) -> None:
        """Keep all our leases for another while.

        Whoever is done with one renews it no more, even if the database does not hear of it: the
        lease ends then, and another may have it.
        """
        until = self._store.clock() + LEASE_S
        ours = (_ROW.owner == self._owner, _ROW.leased_until > 0)
        for some in _some(list(self._held)):
            with self._write() as connection:
                which = (_ROW.annotation.in_(some), *ours)
                connection.execute(update(_ANNOTATIONS).where(*which).values(leased_until=until))

    def settle(self, mark: PendingAnnotation, read: ReadAnnotation, taught: bool = True) -> bool:
        """Keep what was read; whether it was still ours to read.

        The mark goes, if no other has come meanwhile.

        Args:
            mark: what was leased.
            read: what was there.
            taught: whether it was learned from.
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
            "seen": mark.count,
            "tries": 0,
            "owner": "",
            "leased_until": 0.0,
        }
        self._held.discard(mark.annotation)
        with self._write() as connection:
            done = self._own(connection, mark, **values)
            connection.execute(
                update(_ANNOTATIONS)
                .where(_ROW.annotation == mark.annotation, _ROW.seen == _ROW.marked)
                .values(_closed(taught))
            )
        return done

    def drop(self, mark: PendingAnnotation, taught: bool = True) -> bool:
        """Forget an annotation that is gone; whether it was still ours to read.

        Args:
            mark: what was leased.
            taught: whether who learns has forgotten it too; else a row stays, with nothing in it.
        """
        self._held.discard(mark.annotation)
        with self._write() as connection:
            there = self._own(connection, mark, kind="", changes="[]", owner="", leased_until=0.0)
            if there:
                newest = (_ROW.annotation == mark.annotation, _ROW.marked == mark.count)
                closing = delete(_ANNOTATIONS) if taught else update(_ANNOTATIONS).values(open=0)
                connection.execute(closing.where(*newest))
        return there

    def postpone(self, mark: PendingAnnotation) -> None:
        """Let what was read but not learned from wait, longer each time, up to days."""
        tried = {"due": self._store.clock() + _pause(mark.tries), "tries": mark.tries + 1}
        nobodys = (_ROW.open == 0, _ROW.untaught == 1, _ROW.owner == "")
        with self._write() as connection:
            which = (_ROW.annotation == mark.annotation, *nobodys)
            connection.execute(update(_ANNOTATIONS).where(*which).values(tried))

    def put_back(
        self, marks: Sequence[PendingAnnotation], failed: PendingAnnotation | None = None
    ) -> None:
        """Give leases back; the one that has failed waits longer each time."""
        now = self._store.clock()
        self._held.difference_update(mark.annotation for mark in marks)
        with self._write() as connection:
            for mark in marks:
                pause = min(_pause(mark.tries), _LONGEST_PAUSE_S)
                later = {"due": now + pause, "tries": mark.tries + 1} if mark == failed else {}
                self._own(connection, mark, owner="", leased_until=0.0, **later)

    # ---- who looks at them -------------------------------------------------------------------

    def read(self, project: int) -> list[ReadAnnotation]:
        """All that was read of a project's annotations, in the order in which they were made."""
        return list(self.stream(project))

    def stream(self, project: int) -> Iterator[ReadAnnotation]:
        """The same, one by one: of 100,000, all at once take 1 GB."""
        query = select(_ANNOTATIONS).where(_ROW.project == project, _ROW.kind != "")
        ordered = query.order_by(_ROW.created, _ROW.annotation)
        with self._store.read() as connection:
            yield from map(
                _read, connection.execute(ordered.execution_options(yield_per=_BATCH_SIZE))
            )

    def revision(self, project: int) -> tuple[Any, ...]:
        """A value that is another one once anything was read or dropped, not when it is marked."""
        ids, times = func.sum(cast(_ROW.annotation, Float)), func.sum(_ROW.seen)
        to_learn = func.sum(_ROW.untaught * (1 - _ROW.open))  # is read once more, without a mark
        query = select(func.count(), ids, times, to_learn)
        with self._store.read() as connection:
            row = connection.execute(query.where(_ROW.project == project, _ROW.kind != "")).one()
        return tuple(row)

    def tasks(self, annotations: Iterable[int]) -> list[int]:
        """The tasks of annotations, as far as these were read, in ascending order."""
        found: set[int] = set()
        with self._store.read() as connection:
            for some in _some(sorted(set(annotations))):
                query = select(_ROW.task).where(_ROW.annotation.in_(some), _ROW.task > 0)
                found.update(connection.scalars(query))
        return sorted(found)

    def count_open(self, project: int | None = None) -> int:
        """How many wait to be read."""
        query = select(func.count()).where(_ROW.open == 1)
        if project is not None:
            query = query.where(_ROW.project == project)
        with self._store.read() as connection:
            return int(connection.execute(query).scalar_one())

    def projects(self) -> list[int]:
        """The projects of which anything was read, in ascending order."""
        query = select(_ROW.project).where(_ROW.kind != "").distinct().order_by(_ROW.project)
        with self._store.read() as connection:
            return list(connection.scalars(query))

    # ---- inside ------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Who marks, one at a time: SQLite lets writers that meet wait by chance, and rather long.

        Thousands are marked in many turns, and whoever waits meanwhile has the next one.
        """
        with self._next:  # held by who waits, or else who has just had a turn might have it again
            self._marking.acquire()
        try:
            yield
        finally:
            self._marking.release()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """A transaction that changes rows: one at a time, so that no two wait for each other."""
        with self._store.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def _mark(self, connection: Connection, project: int, ids: Sequence[int]) -> None:
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        statement = insert(_ANNOTATIONS).on_conflict_do_update(
            index_elements=[_ROW.annotation],
            set_={"marked": _ROW.marked + 1, "open": 1, "untaught": 1, "due": 0.0},
        )
        rows = [{"annotation": id_, "project": project, "marked": 1} for id_ in ids]
        connection.execute(statement, rows)

    def _again(self, *which: Any) -> None:
        with self._turn(), self._write() as connection:
            connection.execute(
                update(_ANNOTATIONS)
                .where(*which)
                .values(marked=_ROW.marked + 1, open=1, untaught=1, due=0.0)
            )

    def _set(self, connection: Connection, ids: Sequence[int], **values: Any) -> None:
        for some in _some(ids):
            connection.execute(update(_ANNOTATIONS).where(_ROW.annotation.in_(some)).values(values))

    def _own(self, connection: Connection, mark: PendingAnnotation, **values: Any) -> bool:
        """Change a row that we have leased; whether it is still ours."""
        ours = (_ROW.annotation == mark.annotation, _ROW.owner == self._owner)
        return bool(connection.execute(update(_ANNOTATIONS).where(*ours).values(values)).rowcount)


def _pause(tries: int) -> float:
    """How long to wait after so many failures, in seconds: twice as long as the last time."""
    return _FIRST_PAUSE_S * 2.0 ** min(tries, 15)


def _closed(taught: bool) -> dict[str, int]:
    return {"open": 0, "untaught": 0} if taught else {"open": 0}


def _read(row: Row[Any]) -> ReadAnnotation:
    changes = tuple(LabelDiff.from_json(each) for each in json.loads(row.changes))
    return ReadAnnotation(
        annotation=row.annotation,
        project=row.project,
        task=row.task,
        kind=row.kind,
        version=row.version,
        annotator=row.annotator,
        seconds=row.seconds,
        created=row.created,
        updated=row.updated,
        changes=changes,
        reason=row.reason,
    )


def _some(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    """Ids in lists that one statement can hold."""
    return (ids[start : start + _BATCH_SIZE] for start in range(0, len(ids), _BATCH_SIZE))
