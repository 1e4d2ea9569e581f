"""The outbox: predictions that Label Studio does not have yet, and the claims on those being made.

A result is known by its task, the task's data, and the ``model_version``. Its state moves one way::

    work ──> ready ──> writing ──> written     through Label Studio's API
                │         │
                │         └──────> ready       Label Studio could not be reached
                └────────────────> handed      in the answer of a /predict

There is one row for each result in a database: the backend that claims it makes it. A claim is a
lease, see `backend.database.leases`: one that is not renewed ends, and another backend may take it
over. A backend that is done with a claim stops to renew it before it writes that down, so that the
claim ends even if the database cannot be reached just then.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from backend.database.database import METADATA, Database, key_batches
from backend.database.leases import (
    RELEASED,
    ended,
    is_free,
    is_orphaned,
    is_owned_by,
    lease_columns,
    leased_to,
    renewed,
)
from backend.label_studio.requests import Task

#: The rows that can be written: what was asked for without a project stays in the outbox.
_OF_A_PROJECT: Final = text("project IS NOT NULL")

_RESULTS: Final = Table(
    "results",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("task", BigInteger, nullable=False, index=True),
    Column("project", Integer),
    Column("version", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("entry", LargeBinary),
    Column("bytes", Integer, nullable=False, default=0),
    Column("begun", Float, nullable=False),
    Column("changed", Float, nullable=False, index=True),
    Column("due", Float, nullable=False, default=0.0),
    *lease_columns(),
    # what is written next, of all projects and of one, stands in the order in which it is due
    Index(
        "ix_results_state_due",
        "state",
        "due",
        sqlite_where=_OF_A_PROJECT,
        postgresql_where=_OF_A_PROJECT,
    ),
    Index("ix_results_project_due", "project", "state", "version", "due"),
)

#: The most results that are kept, however small.
MAX_COUNT: Final = 200_000

_DELIVERED: Final = ("handed", "written")

#: Time from Label Studio's choice of a request's tasks, those without a prediction, until the
#: request is read here, in seconds; a busy machine takes that long.
_CHOOSING_S: Final = 1.0

Prediction = dict[str, Any]


@dataclass(frozen=True)
class OutboxItem:
    """A prediction on its way to Label Studio's API.

    Attributes:
        key: the result's key.
        task: the task's id.
        project: the task's project.
        version: the ``model_version``.
        prediction: as Label Studio takes it.
        begun: when it was claimed, in seconds since the epoch.
    """

    key: str
    task: int
    project: int
    version: str
    prediction: Prediction
    begun: float


class PredictionOutbox:
    """The results in a database, as one backend uses them.

    Args:
        database: any number of backends may share it.
        owner: the owner of the leases, see `backend.database.leases.new_owner`.
        max_mb: the most space of all results, in MiB. Delivered ones are deleted first, then the
            oldest.
        max_count: the most results.
        trim_every: how many results are added between two checks of these limits.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        *,
        max_mb: int = 512,
        max_count: int = MAX_COUNT,
        trim_every: int = 64,
    ) -> None:
        self._database = database
        self._owner = owner
        self._max_bytes = max_mb << 20
        self._max_count = max_count
        self._trim_every = trim_every
        self._added = count()
        self._held: set[str] = set()  # keys of our leases that are renewed

    @property
    def now(self) -> float:
        """The time on the database's clock, in seconds since the epoch."""
        return self._database.clock()

    # ---- requests that make predictions ----------------------------------------------------------

    def claim(self, tasks: Mapping[str, Task], project: int | None, version: str) -> set[str]:
        """Claim results that no backend makes or has made.

        Args:
            tasks: key -> task, see `result_key`.
            project: the tasks' project, where they do not name one.
            version: the ``model_version``.

        Returns:
            The keys of the results that this backend has to make.
        """
        claimed: set[str] = set()
        for keys in key_batches(tasks):
            with self._database.write() as connection:
                now = self.now
                columns = (_RESULTS.c.key, and_(*_expired(now)).label("expired"))
                query = select(*columns).where(_RESULTS.c.key.in_(keys))
                known = {row.key: row.expired for row in connection.execute(query)}
                expired = [key for key in keys if known.get(key)]
                claimed.update(self._take_over(connection, expired, now))
                rows = [
                    self._row(key, tasks[key], project, version, now)
                    for key in keys
                    if key not in known
                ]
                claimed.update(_insert(connection, rows))
        self._held.update(claimed)
        return claimed

    def find_made(self, keys: Iterable[str]) -> set[str]:
        """Return the keys of the results that are made, delivered or not."""
        made: set[str] = set()
        for batch in key_batches(keys):
            with self._database.read() as connection:
                query = select(_RESULTS.c.key)
                query = query.where(_RESULTS.c.key.in_(batch), _RESULTS.c.state != "work")
                made.update(connection.scalars(query))
        return made

    def take(self, keys: Iterable[str], asked: float, whole: bool = False) -> dict[str, Prediction]:
        """Take results for the answer of a request; they are not written through the API then.

        What was handed out since the request came, or written since Label Studio chose its tasks,
        is there already: a second time, it would be stored twice. As JSON, the results of one
        answer take half of `max_mb` at most (and one more): the rest stays for the next answer.

        Args:
            keys: keys of results.
            asked: when the request came, in seconds since the epoch.
            whole: take all of them, however large they are.

        Returns:
            key -> prediction.
        """
        handed, written = (_RESULTS.c.state == state for state in _DELIVERED)
        free = (
            (_RESULTS.c.state == "ready")
            | (handed & (_RESULTS.c.changed < asked))
            | (written & (_RESULTS.c.changed < asked - _CHOOSING_S))
        )
        query = select(_RESULTS.c.key, _RESULTS.c.entry).where(free).with_for_update()
        query = query.order_by(_RESULTS.c.state != "ready", _RESULTS.c.key)
        taken: dict[str, Prediction] = {}
        free_bytes = math.inf if whole else self._max_bytes // 2
        for batch in key_batches(self.find_made(keys)):
            with self._database.write() as connection:
                for row in connection.execute(query.where(_RESULTS.c.key.in_(batch))):
                    if free_bytes <= 0:
                        break
                    text = zlib.decompress(row.entry)
                    free_bytes -= len(text)
                    taken[row.key] = json.loads(text)
                self._set_state(connection, [key for key in batch if key in taken], "handed")
        return taken

    def add(self, key: str, prediction: Prediction, due: float) -> None:
        """Add the prediction that was made of a claim, unless another backend has taken that over.

        Args:
            key: the result's key.
            prediction: as Label Studio takes it.
            due: the time from which it may be written through the API, in seconds since the epoch;
                a time that has passed: at once. Until then, it may still be taken for the answer
                of the request.
        """
        self._held.discard(key)
        now = self.now
        packed = zlib.compress(json.dumps(prediction, separators=(",", ":")).encode(), 1)
        changes = {
            "state": "ready",
            "entry": packed,
            "bytes": len(packed),
            "due": max(due, now),  # results that are due at once come in turn, too
            "changed": now,
            **ended(),
        }
        with self._database.write() as connection:
            ours = update(_RESULTS).where(_RESULTS.c.key == key, *self._ours("work"))
            connection.execute(ours.values(changes))
            if next(self._added) % self._trim_every == 0:
                self._trim(connection)

    def discard(self, keys: Iterable[str]) -> None:
        """Delete claims of which no prediction was made."""
        for batch in self._stop_renewing(keys):
            with self._database.write() as connection:
                connection.execute(
                    delete(_RESULTS).where(_RESULTS.c.key.in_(batch), *self._ours("work"))
                )

    def abandon(self, keys: Iterable[str]) -> None:
        """End claims now, as if this backend had died: see `orphans`."""
        for batch in self._stop_renewing(keys):
            with self._database.write() as connection:
                connection.execute(
                    update(_RESULTS)
                    .where(_RESULTS.c.key.in_(batch), *self._ours("work"))
                    .values(RELEASED)
                )

    def renew(self) -> None:
        """Renew all leases of this backend."""
        for batch in key_batches(self._held):
            with self._database.write() as connection:
                connection.execute(
                    update(_RESULTS)
                    .where(_RESULTS.c.key.in_(batch), *self._ours("work", "writing"))
                    .values(renewed(self.now))
                )

    # ---- delivery through Label Studio's API -----------------------------------------------------

    def lease_due(self, limit: int) -> list[OutboxItem]:
        """Lease results that are to be written now, of one project and version at a time.

        Those come first whose writer has died, then those that are due the longest.
        """
        now = self.now
        query = select(_RESULTS).where(_RESULTS.c.project.is_not(None)).order_by(_RESULTS.c.due)
        abandoned = query.where(_RESULTS.c.state == "writing", is_free(_RESULTS, now))
        ready = query.where(_RESULTS.c.state == "ready", _RESULTS.c.due <= now)
        with self._database.write() as connection:
            for due in (abandoned, ready):  # an index serves each; joined by OR, none would
                rows = _first_of_one(connection, due, limit)
                if rows:
                    break
            else:
                return []
            connection.execute(
                update(_RESULTS)
                .where(_RESULTS.c.key.in_([row.key for row in rows]))
                .values(state="writing", **leased_to(self._owner, now))
            )
        self._held.update(row.key for row in rows)
        return [
            OutboxItem(r.key, r.task, r.project, r.version, _unpack(r.entry), r.begun) for r in rows
        ]

    def complete(self, keys: Iterable[str]) -> None:
        """Mark leased results as written; also those that Label Studio will never take."""
        for batch in self._stop_renewing(keys):
            with self._database.write() as connection:
                self._set_state(connection, batch, "written", *self._ours("writing"))

    def release(self, keys: Iterable[str], due: float) -> None:
        """Release leased results that could not be written; they are due again at a later time."""
        for batch in self._stop_renewing(keys):
            with self._database.write() as connection:
                self._set_state(connection, batch, "ready", *self._ours("writing"), due=due)

    def orphans(self) -> dict[int, dict[str, int]]:
        """Return claims whose owner has died: project -> key -> task id.

        Claims on what is no task of Label Studio's are left to the next request for them.
        """
        found: dict[int, dict[str, int]] = {}
        columns = (_RESULTS.c.key, _RESULTS.c.project, _RESULTS.c.task)
        with self._database.read() as connection:
            for row in connection.execute(select(*columns).where(*_orphaned(self.now))):
                found.setdefault(row.project, {})[row.key] = row.task
        return found

    def discard_orphans(self, keys: Iterable[str]) -> None:
        """Delete claims of `orphans`, once their tasks are queued elsewhere."""
        for batch in key_batches(keys):
            with self._database.write() as connection:
                connection.execute(
                    delete(_RESULTS).where(_RESULTS.c.key.in_(batch), *_orphaned(self.now))
                )

    def count_waiting(self) -> dict[int | None, int]:
        """Return the number of results that are being made or wait to be written, by project."""
        waiting = _RESULTS.c.state.not_in(_DELIVERED)
        query = select(_RESULTS.c.project, func.count()).where(waiting)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(_RESULTS.c.project))
            return {row[0]: row[1] for row in rows}

    # ---- inside ----------------------------------------------------------------------------------

    def _stop_renewing(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Renew leases no more; return their keys in batches."""
        stopped = list(keys)
        self._held.difference_update(stopped)
        return key_batches(stopped)

    def _ours(self, *states: str) -> tuple[ColumnElement[bool], ...]:
        return is_owned_by(_RESULTS, self._owner), _RESULTS.c.state.in_(states)

    def _take_over(self, connection: Connection, keys: Sequence[str], now: float) -> list[str]:
        """Take over claims that have ended, except those that another backend took over first."""
        ended_ = update(_RESULTS).where(*_expired(now))
        taken = ended_.values(begun=now, **leased_to(self._owner, now))
        return [
            key for key in keys if connection.execute(taken.where(_RESULTS.c.key == key)).rowcount
        ]

    def _row(
        self, key: str, task: Task, project: int | None, version: str, now: float
    ) -> dict[str, Any]:
        return {
            "key": key,
            "task": task.id if isinstance(task.id, int) else 0,
            "project": task.project_id if task.project_id is not None else project,
            "version": version,
            "state": "work",
            "begun": now,
            "changed": now,
            **leased_to(self._owner, now),
        }

    def _set_state(
        self,
        connection: Connection,
        keys: Sequence[str],
        state: str,
        *only: ColumnElement[bool],
        **more: Any,
    ) -> None:
        if keys:
            changes = {"state": state, "changed": self.now, **ended(), **more}
            connection.execute(
                update(_RESULTS).where(_RESULTS.c.key.in_(keys), *only).values(changes)
            )

    def _trim(self, connection: Connection) -> None:
        """Delete the oldest results where there are too many or they take too much space."""
        made = _RESULTS.c.state != "work"
        used, number = connection.execute(
            select(func.coalesce(func.sum(_RESULTS.c.bytes), 0), func.count()).where(made)
        ).one()
        if used <= self._max_bytes and number <= self._max_count:
            return
        oldest = select(_RESULTS.c.key, _RESULTS.c.bytes).where(made)
        oldest = oldest.order_by(_RESULTS.c.state.not_in(_DELIVERED), _RESULTS.c.changed)
        trimmed: list[str] = []
        for key, size in connection.execute(oldest):
            if used <= 0.9 * self._max_bytes and number <= 0.9 * self._max_count:
                break
            trimmed.append(key)
            used, number = used - size, number - 1
        for batch in key_batches(trimmed):
            connection.execute(delete(_RESULTS).where(_RESULTS.c.key.in_(batch)))


def result_key(task: Task, version: str) -> str:
    """Return the key of a result; a task whose data was changed has another key.

    >>> tasks = [Task(1, 7, {"image": image}) for image in ("a.png", "b.png", "a.png")]
    >>> one, other, same = (result_key(task, "v1") for task in tasks)
    >>> one == same, one == other, one == result_key(tasks[0], "v2")
    (True, False, False)
    """
    parts = [task.id, task.project_id, version, dict(task.data)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _first_of_one(connection: Connection, query: Select[Any], limit: int) -> Sequence[Row[Any]]:
    """Lock the first rows that a query finds of the project and the version of the first one."""
    columns = (_RESULTS.c.project, _RESULTS.c.version)
    first = connection.execute(query.with_only_columns(*columns).limit(1)).first()
    if first is None:
        return ()
    same = (_RESULTS.c.project == first.project, _RESULTS.c.version == first.version)
    return connection.execute(
        query.where(*same).limit(limit).with_for_update(skip_locked=True)
    ).all()


def _expired(now: float) -> tuple[ColumnElement[bool], ...]:
    """Match claims that another backend may take over."""
    return _RESULTS.c.state == "work", is_free(_RESULTS, now)


def _orphaned(now: float) -> tuple[ColumnElement[bool], ...]:
    """Match claims on tasks of Label Studio whose owner has died."""
    return (
        _RESULTS.c.state == "work",
        is_orphaned(_RESULTS, now),
        _RESULTS.c.project.is_not(None),
        _RESULTS.c.task > 0,
    )


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert rows whose keys are not there yet; return the keys that were inserted."""
    if not rows:
        return set()
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_or_leave

        statement = insert_or_leave(_RESULTS).values(rows).on_conflict_do_nothing()
        return set(connection.scalars(statement.returning(_RESULTS.c.key)))
    connection.execute(insert(_RESULTS), rows)  # SQLite has one writer: nothing comes between
    return {row["key"] for row in rows}


def _unpack(entry: bytes) -> Prediction:
    prediction: Prediction = json.loads(zlib.decompress(entry))
    return prediction
