"""Predictions that Label Studio does not have yet: who makes them, and who brings them there.

A result is known by its task, the task's data, and the ``model_version``. It moves one way::

    work ──> ready ──> writing ──> written     through Label Studio's API
                │         │
                │         └──────> ready       Label Studio was not there
                └────────────────> handed      in the answer of a /predict

Of each there is one, whichever backends share the database: whoever claims it makes it. A claim
that is not renewed ends, and another may take it over. So whoever is done with one renews it no
more, even where the database was away just then and has not heard of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from backend.database.database import LEASE_S, METADATA, Database
from backend.label_studio.requests import Task

#: Predictions; what they are for and how they move stands in `backend.prediction.outbox`.
RESULTS: Final = Table(
    "results",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("task", BigInteger, nullable=False, index=True),
    Column("project", Integer, index=True),
    Column("version", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("entry", LargeBinary),
    Column("bytes", Integer, nullable=False, default=0),
    Column("begun", Float, nullable=False),
    Column("changed", Float, nullable=False, index=True),
    Column("due", Float, nullable=False, default=0.0),
    Column("owner", String(128), nullable=False, default=""),
    Column("leased_until", Float, nullable=False, default=0.0),
)

#: Most results that are kept, however small.
MAX_COUNT: Final = 200_000

#: Keys of one SQL statement.
_BATCH_SIZE: Final = 400

_SETTLED: Final = ("handed", "written")

Prediction = dict[str, Any]


@dataclass(frozen=True)
class OutboxItem:
    """A prediction on its way to Label Studio's API.

    Attributes:
        key: the result's.
        task: the task's id.
        project: the task's project.
        version: its ``model_version``.
        prediction: as Label Studio takes it.
        begun: when it was asked for, in seconds since the epoch.
    """

    key: str
    task: int
    project: int
    version: str
    prediction: Prediction
    begun: float


class PredictionOutbox:
    """The results in a store, for one backend.

    Args:
        store: the database.
        owner: who this is, see `backend.database.database.new_owner`.
        max_mb: most space that they may take; the oldest of those that Label Studio has got go
            first, then the oldest.
        max_count: most results.
        trim_every: how many results are kept between two looks at how many there are.
    """

    def __init__(
        self,
        store: Database,
        owner: str,
        *,
        max_mb: int = 512,
        max_count: int = MAX_COUNT,
        trim_every: int = 64,
    ) -> None:
        self._store = store
        self._owner = owner
        self._max_bytes = max_mb << 20
        self._max_count = max_count
        self._trim_every = trim_every
        self._kept = count()
        self._held: set[str] = set()  # claims of ours that are renewed

    @property
    def now(self) -> float:
        """The time on the store's clock."""
        return self._store.clock()

    def claim(self, tasks: Mapping[str, Task], project: int | None, version: str) -> set[str]:
        """Claim results that nobody makes or has made.

        Args:
            tasks: key -> task, see `result_key`.
            project: the tasks' project, where they do not name one.
            version: the ``model_version``.

        Returns:
            The keys of those that are ours to make now.
        """
        claimed: set[str] = set()
        for keys in _some(tasks):
            with self._store.write() as connection:
                states = self._states(connection, keys)
                now = self.now
                expired = [
                    key for key, (state, until) in states.items() if state == "work" and until < now
                ]
                claimed.update(self._take_over(connection, expired, now))
                rows = [
                    self._row(key, tasks[key], project, version, now)
                    for key in keys
                    if key not in states
                ]
                claimed.update(self._insert(connection, rows))
        self._held.update(claimed)
        return claimed

    def made(self, keys: Iterable[str]) -> set[str]:
        """Those of the results that are made, whatever has become of them since."""
        made: set[str] = set()
        for some in _some(keys):
            with self._store.read() as connection:
                query = select(RESULTS.c.key)
                query = query.where(RESULTS.c.key.in_(some), RESULTS.c.state != "work")
                made.update(connection.scalars(query))
        return made

    def take(self, keys: Iterable[str], asked: float, whole: bool = False) -> dict[str, Prediction]:
        """Take results to hand them out in an answer now; nobody else brings them then.

        What was handed out or written since the question was asked is with Label Studio already:
        a second time, it would be stored twice. As JSON, they take half of `max_mb` at most (and
        one more): the rest stays for the next answer.

        Args:
            keys: of the results.
            asked: when the question came, in seconds since the epoch.
            whole: all of them, however much that is.

        Returns:
            The predictions that may be handed out.
        """
        free = (RESULTS.c.state == "ready") | (
            RESULTS.c.state.in_(_SETTLED) & (RESULTS.c.changed < asked)
        )
        query = select(RESULTS.c.key, RESULTS.c.entry).where(free).with_for_update()
        query = query.order_by(RESULTS.c.state != "ready", RESULTS.c.key)
        taken: dict[str, Prediction] = {}
        room = math.inf if whole else self._max_bytes // 2
        for some in _some(self.made(keys)):
            with self._store.write() as connection:
                for row in connection.execute(query.where(RESULTS.c.key.in_(some))):
                    if room <= 0:
                        break
                    text = zlib.decompress(row.entry)
                    room -= len(text)
                    taken[row.key] = json.loads(text)
                self._set(connection, [key for key in some if key in taken], "handed")
        return taken

    def keep(self, key: str, prediction: Prediction, due: float) -> None:
        """Keep what was made of a claim, unless the claim has gone to another.

        Args:
            key: of the result.
            prediction: as Label Studio takes it.
            due: from when on it may be written, in seconds since the epoch; until then whoever
                has asked for it may still take it.
        """
        self._held.discard(key)
        packed = zlib.compress(json.dumps(prediction, separators=(",", ":")).encode(), 1)
        with self._store.write() as connection:
            connection.execute(
                update(RESULTS)
                .where(RESULTS.c.key == key, *self._ours("work"))
                .values(
                    state="ready",
                    entry=packed,
                    bytes=len(packed),
                    due=due,
                    changed=self.now,
                    leased_until=0.0,
                )
            )
            if next(self._kept) % self._trim_every == 0:
                self._trim(connection)

    def drop(self, keys: Iterable[str]) -> None:
        """Give claims back that come to nothing."""
        for some in self._let_go(keys):
            with self._store.write() as connection:
                connection.execute(
                    delete(RESULTS).where(RESULTS.c.key.in_(some), *self._ours("work"))
                )

    def abandon(self, keys: Iterable[str]) -> None:
        """Let claims end now, as if we had died: see `orphans`."""
        for some in self._let_go(keys):
            with self._store.write() as connection:
                connection.execute(
                    update(RESULTS)
                    .where(RESULTS.c.key.in_(some), *self._ours("work"))
                    .values(owner="", leased_until=0.0)
                )

    def renew(self) -> None:
        """Keep all our claims for another while."""
        for some in _some(self._held):
            with self._store.write() as connection:
                connection.execute(
                    update(RESULTS)
                    .where(RESULTS.c.key.in_(some), *self._ours("work", "writing"))
                    .values(leased_until=self.now + LEASE_S)
                )

    def take_due(self, limit: int) -> list[OutboxItem]:
        """Take results that are to be written now, of one project and version at a time."""
        now = self.now
        due = or_(
            (RESULTS.c.state == "ready") & (RESULTS.c.due <= now),
            (RESULTS.c.state == "writing") & (RESULTS.c.leased_until < now),
        )
        query = select(RESULTS).where(due, RESULTS.c.project.is_not(None))
        with self._store.write() as connection:
            first = connection.execute(query.order_by(RESULTS.c.changed).limit(1)).first()
            if first is None:
                return []
            same = (RESULTS.c.project == first.project, RESULTS.c.version == first.version)
            rows = connection.execute(
                query.where(*same)
                .order_by(RESULTS.c.changed)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            connection.execute(
                update(RESULTS)
                .where(RESULTS.c.key.in_([row.key for row in rows]))
                .values(state="writing", owner=self._owner, leased_until=now + LEASE_S)
            )
        self._held.update(row.key for row in rows)
        return [
            OutboxItem(r.key, r.task, r.project, r.version, _unpack(r.entry), r.begun) for r in rows
        ]

    def wrote(self, keys: Iterable[str]) -> None:
        """Note that Label Studio has them, or is not to get them any more."""
        for some in self._let_go(keys):
            with self._store.write() as connection:
                self._set(connection, some, "written", *self._ours("writing"))

    def put_back(self, keys: Iterable[str], due: float) -> None:
        """Give back what could not be written: it is due again at another time."""
        for some in self._let_go(keys):
            with self._store.write() as connection:
                self._set(connection, some, "ready", *self._ours("writing"), due=due)

    def orphans(self) -> dict[int, dict[str, int]]:
        """Claims whose owner has died, and whose tasks they were: project -> key -> task id.

        Those that were not for a task of Label Studio's are left, for who asks again.
        """
        found: dict[int, dict[str, int]] = {}
        columns = (RESULTS.c.key, RESULTS.c.project, RESULTS.c.task)
        with self._store.read() as connection:
            for row in connection.execute(select(*columns).where(*self._dead())):
                found.setdefault(row.project, {})[row.key] = row.task
        return found

    def forget(self, keys: Iterable[str]) -> None:
        """Drop claims of `orphans`, once somebody else sees to their tasks."""
        for some in _some(keys):
            with self._store.write() as connection:
                connection.execute(delete(RESULTS).where(RESULTS.c.key.in_(some), *self._dead()))

    def count_waiting(self) -> dict[int | None, int]:
        """How many are being made or wait to be written, by project."""
        open_ = RESULTS.c.state.not_in(_SETTLED)
        query = select(RESULTS.c.project, func.count()).where(open_).group_by(RESULTS.c.project)
        with self._store.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    # ---- inside ------------------------------------------------------------------------------

    def _let_go(self, keys: Iterable[str]) -> Iterable[list[str]]:
        """Renew claims no more; the value is their keys, in lists that one statement can hold."""
        let_go = list(keys)
        self._held.difference_update(let_go)
        return _some(let_go)

    def _ours(self, *states: str) -> tuple[Any, ...]:
        return RESULTS.c.owner == self._owner, RESULTS.c.state.in_(states)

    def _dead(self) -> tuple[Any, ...]:
        return (
            RESULTS.c.state == "work",
            RESULTS.c.leased_until < self.now - LEASE_S,
            RESULTS.c.project.is_not(None),
            RESULTS.c.task > 0,
        )

    def _states(self, connection: Connection, keys: Sequence[str]) -> dict[str, tuple[str, float]]:
        columns = (RESULTS.c.key, RESULTS.c.state, RESULTS.c.leased_until)
        rows = connection.execute(select(*columns).where(RESULTS.c.key.in_(keys)))
        return {row.key: (row.state, row.leased_until) for row in rows}

    def _take_over(self, connection: Connection, keys: Sequence[str], now: float) -> list[str]:
        """Claims that have ended; each asks again, since another may have been faster."""
        return [
            key
            for key in keys
            if connection.execute(
                update(RESULTS)
                .where(
                    RESULTS.c.key == key,
                    RESULTS.c.state == "work",
                    RESULTS.c.leased_until < now,
                )
                .values(owner=self._owner, leased_until=now + LEASE_S, begun=now)
            ).rowcount
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
            "owner": self._owner,
            "leased_until": now + LEASE_S,
        }

    def _insert(self, connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
        """Insert what is not there; the keys of those that were not."""
        if not rows:
            return set()
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as insert_or_leave

            statement = insert_or_leave(RESULTS).values(rows).on_conflict_do_nothing()
            return set(connection.scalars(statement.returning(RESULTS.c.key)))
        connection.execute(insert(RESULTS), rows)  # SQLite has one writer: nothing comes between
        return {row["key"] for row in rows}

    def _set(
        self, connection: Connection, keys: Sequence[str], state: str, *only: Any, **more: Any
    ) -> None:
        if keys:
            changes = {"state": state, "changed": self.now, "leased_until": 0.0, **more}
            connection.execute(
                update(RESULTS).where(RESULTS.c.key.in_(keys), *only).values(changes)
            )

    def _trim(self, connection: Connection) -> None:
        """Drop the oldest where there are too many or they take too much space."""
        kept = RESULTS.c.state != "work"
        used, number = connection.execute(
            select(func.coalesce(func.sum(RESULTS.c.bytes), 0), func.count()).where(kept)
        ).one()
        if used <= self._max_bytes and number <= self._max_count:
            return
        oldest = select(RESULTS.c.key, RESULTS.c.bytes).where(kept)
        oldest = oldest.order_by(RESULTS.c.state.not_in(_SETTLED), RESULTS.c.changed)
        dropped: list[str] = []
        for key, size in connection.execute(oldest):
            if used <= 0.9 * self._max_bytes and number <= 0.9 * self._max_count:
                break
            dropped.append(key)
            used, number = used - size, number - 1
        for some in _some(dropped):
            connection.execute(delete(RESULTS).where(RESULTS.c.key.in_(some)))


def result_key(task: Task, version: str) -> str:
    """What a result is known by: a task that was changed has another.

    >>> tasks = [Task(1, 7, {"image": image}) for image in ("a.png", "b.png", "a.png")]
    >>> one, other, same = (result_key(task, "v1") for task in tasks)
    >>> one == same, one == other, one == result_key(tasks[0], "v2")
    (True, False, False)
    """
    parts = [task.id, task.project_id, version, dict(task.data)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _some(keys: Iterable[str]) -> Iterable[list[str]]:
    """Keys in lists that one statement can hold."""
    all_ = list(keys)
    return (all_[start : start + _BATCH_SIZE] for start in range(0, len(all_), _BATCH_SIZE))


def _unpack(entry: bytes) -> Prediction:
    prediction: Prediction = json.loads(zlib.decompress(entry))
    return prediction
