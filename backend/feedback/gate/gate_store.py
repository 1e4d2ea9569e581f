"""Keeps acceptance gates and the tasks that they were asked about: one gate for a model version."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    Table,
    Text,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from backend.database.database import MAX_KEYS, METADATA, Database, key_batches
from backend.feedback.annotation_table import ANNOTATIONS, read_in
from backend.feedback.gate.gate import Gate
from backend.feedback.read_annotation import ReadAnnotation

_GATES: Final = Table(
    "gates",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("version", Text, primary_key=True),
    Column("looks", Integer, nullable=False),
    Column("annotations", Integer, nullable=False),
    Column("unscored", Integer, nullable=False),
    Column("gate", Text),  # JSON
    Column("since", Float, nullable=False),
    Column("alarm", Float),
)

_TASKS: Final = Table(
    "gate_tasks",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("task", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Text, nullable=False),
    Column("scores", Text, nullable=False),  # JSON
    Column("passes", Integer, nullable=False),
    Column("audited", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("accepted", Integer, nullable=False),
    Index("ix_gate_tasks_passes", "project", "version", "passes"),
)

#: The advisory lock of PostgreSQL under which gates and their tasks are changed.
_LOCK: Final = 0xC1EA6A7E

_GATE: Final = _GATES.c
_TASK: Final = _TASKS.c
_READ: Final = ANNOTATIONS.c

#: Whether a task is open: taken for one without an annotation. While tasks are being found, those
#: of the last time stay so; what was found joins them when all are, however the search is stopped.
_CLOSED, _OPEN, _FOUND, _FOUND_AGAIN = range(4)
_ARE_OPEN: Final = (_OPEN, _FOUND_AGAIN)

#: Kinds of annotations that nobody has worked on: not read yet, and the gate's own.
_NOBODYS: Final = ("", "converted")

#: Tasks that pass: those that need no look, those that are corrected as before all the same, and
#: those that were turned into annotations.
TaskList = Literal["listed", "audit", "accepted"]


@dataclass(frozen=True)
class StoredGate:
    """The gate of a model version in a project.

    Attributes:
        looks: how many of `backend.feedback.gate.gate.LOOKS` it has reached.
        annotations: compared annotations when it was last asked whether the next look is reached.
        unscored: tasks left out, as their annotations were read before scores were kept.
        gate: as it was made at the last look; None before the first.
        since: from when on audited tasks count, in seconds since the epoch.
        alarm: when the audit has closed it; None where it has not.
    """

    looks: int = 0
    annotations: int = 0
    unscored: int = 0
    gate: Gate | None = None
    since: float = 0.0
    alarm: float | None = None


@dataclass(frozen=True)
class FoundTask:
    """A task without an annotation, whose newest prediction is of the gate's version.

    Attributes:
        task: its id.
        scores: name of each predicted label -> the lowest score of its regions.
        is_audited: whether it is drawn to be corrected as before, should it pass.
    """

    task: int
    scores: Mapping[str, float]
    is_audited: bool


class GateStore:
    """The gates in a database, which backends may share.

    Args:
        database: where they are kept.

    >>> store = GateStore(Database("sqlite://"))
    >>> store.get(7, "v").gate is None, store.count_tasks(7, "v")["listed"]
    (True, 0)
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- gates -------------------------------------------------------------------------------

    def get(self, project: int, version: str) -> StoredGate:
        """Return the gate of a version; an empty one where there is none yet."""
        with self._database.read() as connection:
            row = connection.execute(select(_GATES).where(*_is(project, version))).first()
        if row is None:
            return StoredGate()
        gate = None if row.gate is None else Gate.from_json(json.loads(row.gate))
        return StoredGate(row.looks, row.annotations, row.unscored, gate, row.since, row.alarm)

    def keep(self, project: int, version: str, stored: StoredGate) -> None:
        """Keep what was looked at; where a gate was made, it decides anew which tasks pass.

        Where another backend has come to a later look meanwhile, its gate stays.

        Args:
            project: its id.
            version: the model version.
            stored: with a gate only where it was made now; audited tasks count from now on.
        """
        with self._database.write_exclusively(_LOCK) as connection:
            its = _is(project, version)
            before = connection.execute(select(_GATE.looks).where(*its)).scalar()
            values: dict[str, Any] = {
                "annotations": stored.annotations,
                "unscored": stored.unscored,
            }
            if stored.gate is not None and stored.looks >= (before or 0):
                values |= {"looks": stored.looks, "gate": json.dumps(stored.gate.to_json())}
                values["since"] = self._database.clock()
                passing = [
                    row.task
                    for row in connection.execute(select(_TASKS).where(*_of(project, version)))
                    if stored.gate.passes(json.loads(row.scores))
                ]
                change = update(_TASKS).where(*_of(project, version))
                connection.execute(change.values(passes=0))
                for batch in key_batches(passing):
                    connection.execute(change.where(_TASK.task.in_(batch)).values(passes=1))
            if before is not None:
                connection.execute(update(_GATES).where(*its).values(values))
                return
            row = {"project": project, "version": version, "looks": 0, "since": 0.0}
            connection.execute(insert(_GATES).values(row | values))

    def close(self, project: int, version: str) -> bool:
        """Close a gate, as its audit asks for it; return whether it was open before."""
        return self._set_alarm(project, version, self._database.clock())

    def reopen(self, project: int, version: str) -> bool:
        """Open a gate again and begin its audit anew; return whether it had been closed."""
        return self._set_alarm(project, version, None)

    def _set_alarm(self, project: int, version: str, alarm: float | None) -> bool:
        values = {"alarm": alarm} | ({"since": self._database.clock()} if alarm is None else {})
        is_other = _GATE.alarm.is_not(None) if alarm is None else _GATE.alarm.is_(None)
        with self._database.write_exclusively(_LOCK) as connection:
            change = update(_GATES).where(*_is(project, version), is_other).values(values)
            return bool(connection.execute(change).rowcount)

    def open_gates(self) -> list[tuple[int, str]]:
        """Return project and version of the gates whose audit goes on."""
        query = select(_GATE.project, _GATE.version)
        with self._database.read() as connection:
            rows = connection.execute(query.where(_GATE.gate.is_not(None), _GATE.alarm.is_(None)))
            return [(row.project, row.version) for row in rows]

    def count_again(self, project: int) -> None:
        """Have the pictures of all versions counted at the next report: annotations changed."""
        with self._database.write_exclusively(_LOCK) as connection:
            its = update(_GATES).where(_GATE.project == project)
            connection.execute(its.values(annotations=0))

    def count_closed(self) -> int:
        """Return how many gates their audits have closed."""
        with self._database.read() as connection:
            query = select(func.count()).where(_GATE.alarm.is_not(None))
            return int(connection.execute(query).scalar_one())

    # ---- annotations -------------------------------------------------------------------------

    def compared(self, project: int, version: str) -> Iterator[ReadAnnotation]:
        """Yield the annotations that began with predictions of a version, one by one."""
        query = select(ANNOTATIONS).where(*_compared(project, version))
        with self._database.stream() as connection:
            yield from map(read_in, connection.execute(query.execution_options(yield_per=MAX_KEYS)))

    def audits(self, project: int, version: str, since: float) -> list[ReadAnnotation]:
        """Return the annotations of audited tasks that pass, in the order of their creation."""
        its = (*_of(project, version), _TASK.passes == 1, _TASK.audited == 1)
        drawn = select(_TASK.task).where(*its)
        query = select(ANNOTATIONS).where(
            *_compared(project, version), _READ.created >= since, _READ.task.in_(drawn)
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_READ.created, _READ.annotation))
            return [read_in(row) for row in rows]

    # ---- tasks -------------------------------------------------------------------------------

    def begin_finding(self, project: int, version: str) -> None:
        """Forget what a search has found that was stopped, and let the tasks of the last stay."""
        self._set_open(project, version, _ARE_OPEN)

    def finish_finding(self, project: int, version: str) -> None:
        """Take no task for unannotated any more that was not found since `begin_finding`."""
        self._set_open(project, version, (_FOUND, _FOUND_AGAIN))

    def _set_open(self, project: int, version: str, which: tuple[int, ...]) -> None:
        its = update(_TASKS).where(*_of(project, version))
        with self._database.write_exclusively(_LOCK) as connection:
            open_ = case((_TASK.open.in_(which), _OPEN), else_=_CLOSED)
            connection.execute(its.values(open=open_))

    def add_tasks(
        self,
        project: int,
        version: str,
        tasks: Sequence[FoundTask],
        passes: Callable[[Mapping[str, float]], bool],
    ) -> None:
        """Keep tasks that have no annotation, and whether they pass, for `finish_finding`.

        Args:
            project: its id.
            version: the model version.
            tasks: the tasks.
            passes: whether scores let a task pass.
        """
        rows = [
            {
                "project": project,
                "task": each.task,
                "version": version,
                "scores": json.dumps(dict(each.scores)),
                "passes": int(passes(each.scores)),
                "audited": int(each.is_audited),
                "accepted": 0,
            }
            for each in tasks
        ]
        with self._database.write_exclusively(_LOCK) as connection:
            open_ = set[int]()
            for batch in key_batches([each.task for each in tasks]):
                its = (*_of(project, version), _TASK.task.in_(batch), _TASK.open.in_(_ARE_OPEN))
                open_.update(connection.scalars(select(_TASK.task).where(*its)))
                own = (_TASK.project == project, _TASK.task.in_(batch))
                connection.execute(delete(_TASKS).where(*own))
            for row in rows:
                row["open"] = _FOUND_AGAIN if row["task"] in open_ else _FOUND
            if rows:
                connection.execute(insert(_TASKS), rows)

    def count_tasks(self, project: int, version: str) -> dict[TaskList, int]:
        """Return how many tasks each list has."""
        lists: tuple[TaskList, ...] = ("listed", "audit", "accepted")
        columns = [func.sum(case((_in_list(each), 1), else_=0)) for each in lists]
        query = select(*columns).where(*_of(project, version))
        with self._database.read() as connection:
            counts = connection.execute(query).one()
        return {each: int(count or 0) for each, count in zip(lists, counts, strict=True)}

    def tasks(
        self, project: int, version: str, which: TaskList, limit: int | None = None
    ) -> list[int]:
        """Return the tasks of a list, in ascending order, at most `limit`."""
        query = select(_TASK.task).where(*_of(project, version), _in_list(which))
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(_TASK.task).limit(limit)))

    def versions(self, project: int) -> list[str]:
        """Return the model versions that have a gate; those with accepted tasks stand last."""
        gates = select(_GATE.version).where(_GATE.project == project).order_by(_GATE.version)
        accepted = select(_TASK.version).where(_TASK.project == project, _in_list("accepted"))
        with self._database.read() as connection:
            last = set(connection.scalars(accepted.distinct()))
            return sorted(connection.scalars(gates), key=lambda version: version in last)

    def accept(self, project: int, task: int) -> None:
        """Keep that a task was turned into an annotation."""
        self._change_task(project, task, open=_CLOSED, accepted=1)

    def leave(self, project: int, task: int) -> None:
        """Keep that a task has an annotation of somebody, or another prediction."""
        self._change_task(project, task, open=_CLOSED, accepted=0)

    def take_back(self, project: int, task: int) -> None:
        """Keep that the annotation of an accepted task is deleted."""
        self._change_task(project, task, open=_OPEN, accepted=0)

    def _change_task(self, project: int, task: int, **values: int) -> None:
        own = (_TASK.project == project, _TASK.task == task)
        with self._database.write_exclusively(_LOCK) as connection:
            connection.execute(update(_TASKS).where(*own).values(values))


def _is(project: int, version: str) -> tuple[ColumnElement[bool], ...]:
    return _GATE.project == project, _GATE.version == version


def _of(project: int, version: str) -> tuple[ColumnElement[bool], ...]:
    return _TASK.project == project, _TASK.version == version


def _compared(project: int, version: str) -> tuple[ColumnElement[bool], ...]:
    return _READ.project == project, _READ.version == version, _READ.kind == "compared"


def _in_list(which: TaskList) -> ColumnElement[bool]:
    if which == "accepted":
        return _TASK.accepted == 1
    audited = _TASK.audited == (1 if which == "audit" else 0)
    worked_on = (
        exists()
        .where(_READ.project == _TASK.project, _READ.task == _TASK.task)
        .where(_READ.kind.not_in(_NOBODYS))
        .correlate(_TASKS)
    )
    return (_TASK.passes == 1) & _TASK.open.in_(_ARE_OPEN) & audited & ~worked_on
