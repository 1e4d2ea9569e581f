"""Scores: that of the newest prediction of each task, in the shared database.

Label Studio 1.23.2 lists and sorts by scores only with a feature flag of its own, or where the
project shows one version alone. So the review page sorts by what is kept here. What this backend
predicts is kept as it is stored; a walk reads the scores of predictions that were there before.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from backend.database.database import (
    MAX_KEYS,
    METADATA,
    Database,
    insert_on_conflict,
    key_batches,
)
from backend.feedback.annotation_table import ANNOTATIONS

#: How long a task is not asked for again that Label Studio did not list as waiting, in seconds.
_CLOSED_S: Final = 3600.0

#: When a walk goes on with new tasks, and when it begins again, in seconds after its last end and
#: its last begin: other programs may have stored predictions of earlier tasks.
_GOES_ON_S: Final = 60.0
_BEGINS_AGAIN_S: Final = 86_400.0

_SCORES: Final = sa.Table(
    "scores",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),  # when it was kept, in seconds since the epoch
    # when Label Studio last did not list the task as one that waits, in seconds since the epoch
    sa.Column("closed", sa.Float),
)
_WALKS: Final = sa.Table(
    "score_walks",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),  # the last task that was looked at
    sa.Column("began", sa.Float, nullable=False),  # at the first task, in seconds since the epoch
    sa.Column("ended", sa.Float, nullable=False),  # with the last task, likewise
    sa.Column("open", sa.Integer, nullable=False),  # whether tasks are left
)
_ROW: Final = _SCORES.c
_WALK: Final = _WALKS.c
_READ: Final = ANNOTATIONS.c


@dataclass(frozen=True)
class Score:
    """The score of a task's newest prediction."""

    task: int
    version: str
    at: float  # when it was kept, in seconds since the epoch


@dataclass(frozen=True)
class Walk:
    """How far the scores of a project's earlier predictions were read."""

    cursor: int = 0  # the last task that was looked at
    is_open: bool = True


class ScoreStore:
    """The scores in a database.

    >>> scores = ScoreStore(Database("sqlite://"))
    >>> scores.keep(7, "v1", {3: 0.5, 4: 0.9})
    >>> [[each.task for each in some] for some in scores.in_order(7, "v1", highest_first=True)]
    [[4, 3]]
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def keep(self, project: int, version: str, scores: Mapping[int, float]) -> None:
        """Keep the scores of tasks (task -> score), which have a new prediction of a version."""
        if not scores:
            return

        now = self.database.clock()
        rows = [
            {
                "project": project,
                "task": task,
                "version": version,
                "score": score,
                "at": now,
                "closed": None,
            }
            for task, score in scores.items()
        ]

        with self.database.write() as connection:
            insert = insert_on_conflict(connection, _SCORES)
            new = {name: insert.excluded[name] for name in ("version", "score", "at", "closed")}
            statement = insert.on_conflict_do_update(
                index_elements=[_ROW.project, _ROW.task], set_=new
            )
            connection.execute(statement, rows)

    def known(self, project: int, tasks: Collection[int]) -> set[int]:
        """Return those of some tasks that have a score here."""
        found: set[int] = set()
        for some in key_batches(tasks):
            query = sa.select(_ROW.task).where(_ROW.project == project, _ROW.task.in_(some))
            found |= {row.task for row in self.database.rows(query)}
        return found

    def in_order(
        self, project: int, current: str, *, highest_first: bool, least: float = 0.0
    ) -> Iterator[list[Score]]:
        """Yield the tasks that wait for an annotation by their scores, some hundred at a time.

        Those of the version `current` come first: the score of another one may have been of
        another kind. Left out is what scores less than `least`, in [0, 1].
        """
        is_known = (_READ.kind != "") & (_READ.open == 0)  # else it may be gone by now
        has_annotation = (
            sa.select(_READ.annotation)
            .where(_READ.task == _ROW.task, _READ.project == project, is_known)
            .exists()
        )
        now = self.database.clock()
        # What is closed while this is read stays in it: else as many others would be passed over.
        is_open = _ROW.closed.is_(None) | ~_ROW.closed.between(now - _CLOSED_S, now)
        waits = sa.select(_ROW.task, _ROW.version, _ROW.at).where(
            _ROW.project == project, is_open, ~has_annotation, _ROW.score >= least
        )
        by_score = _ROW.score.desc() if highest_first else _ROW.score
        query = waits.order_by(_ROW.version != current, by_score, _ROW.task).limit(MAX_KEYS)

        start = 0
        while rows := self.database.rows(query.offset(start)):
            yield [Score(row.task, row.version, row.at) for row in rows]
            start += len(rows)

    def first_tasks(self, projects: Collection[int]) -> dict[int, int]:
        """Return project -> its first task that has a score, of those projects that have one."""
        found: dict[int, int] = {}
        for some in key_batches(projects):
            firsts = (
                sa.select(sa.func.min(_ROW.task)).where(_ROW.project == each).scalar_subquery()
                for each in some
            )
            for row in self.database.rows(sa.select(*firsts)):
                pairs = zip(some, row, strict=True)
                found |= {project: task for project, task in pairs if task is not None}
        return found

    def close(self, project: int, tasks: Collection[int]) -> None:
        """Leave tasks out for a while, since Label Studio does not list them as waiting."""
        now = self.database.clock()
        for some in key_batches(tasks):
            own = sa.update(_SCORES).where(_ROW.project == project, _ROW.task.in_(some))
            self.database.execute(own.values(closed=now))

    def reopen(self, project: int, task: int) -> None:
        """Have a task asked for again at once, whose annotation was deleted."""
        own = sa.update(_SCORES).where(_ROW.project == project, _ROW.task == task)
        self.database.execute(own.values(closed=None))

    # ---- the walk over what was there before ----------------------------------------------------

    def walk(self, project: int) -> Walk:
        """Return how far the earlier predictions of a project were read."""
        query = sa.select(_WALK.cursor, _WALK.open).where(_WALK.project == project)
        rows = self.database.rows(query)
        return Walk(rows[0].cursor, bool(rows[0].open)) if rows else Walk()

    def ask(self, project: int) -> None:
        """Have the scores read that a project's earlier and new tasks lack."""
        now = self.database.clock()
        query = sa.select(_WALK.began, _WALK.ended, _WALK.open).where(_WALK.project == project)
        before = next(iter(self.database.rows(query)), None)
        if before is None or (not before.open and _has_passed(before.began, now, _BEGINS_AGAIN_S)):
            fresh = {"cursor": 0, "began": now, "ended": 0.0, "open": 1}
            with self.database.write() as connection:
                insert = insert_on_conflict(connection, _WALKS).values(project=project, **fresh)
                connection.execute(
                    insert.on_conflict_do_update(index_elements=[_WALK.project], set_=fresh)
                )
        elif not before.open and _has_passed(before.ended, now, _GOES_ON_S):
            self._change(project, open=1)

    def open_walk(self) -> tuple[int, Walk] | None:
        """Return a project whose scores are to be read, and from where on; None: there is none."""
        query = sa.select(_WALK.project, _WALK.cursor).where(_WALK.open == 1)
        rows: Sequence[Any] = self.database.rows(query.order_by(_WALK.began).limit(1))
        return (rows[0].project, Walk(rows[0].cursor)) if rows else None

    def go_on(self, project: int, cursor: int) -> None:
        """Keep which task of a walk was looked at last."""
        self._change(project, cursor=cursor)

    def end_walk(self, project: int) -> None:
        """Keep that no task of a walk is left."""
        self._change(project, open=0, ended=self.database.clock())

    def _change(self, project: int, **values: Any) -> None:
        self.database.execute(sa.update(_WALKS).where(_WALK.project == project).values(values))


def _has_passed(since: float, now: float, pause_s: float) -> bool:
    """Return whether a pause is over, also where the clock was set back."""
    return abs(now - since) > pause_s
