"""What people have said of predictions on the review page.

A verdict is kept at once; a thread of the worker has Label Studio store the annotations, see
`backend.review.writing`.

One in `CHECKED` of the good ones, by its number, gets no annotation: it is corrected in the editor
like those that need work, and whoever does it does not know. What is changed there tells how far
the others can be trusted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from backend.database.database import METADATA, Database, insert_on_conflict
from backend.database.leases import (
    FINISHED,
    MOST_DEATHS,
    RELEASED,
    Deaths,
    Leases,
    is_due,
    is_hopeless,
    lease_columns,
)
from backend.feedback.annotation_table import ANNOTATIONS
from backend.feedback.comparison import LabelDiff
from backend.feedback.experiment import is_drawn

Verdict = Literal["good", "work", "skip"]

CHECKED: Final = 20  # one in how many good ones goes to the editor
TOO_FAST_S: Final = 0.7  # seconds below which nobody has looked at a picture

#: Before an annotation that Label Studio has refused is sent again, in seconds.
_RETRY_S: Final = 60.0

#: Verdicts that a page lists without an annotation, and tasks that a view shows at most.
_AT_ONCE: Final = 20
_MOST_SHOWN: Final = 400

_REVIEWS: Final = sa.Table(
    "reviews",
    METADATA,
    sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("prediction", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("project", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("verdict", sa.String(8), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("reviewer", sa.Integer, nullable=False),
    sa.Column("seat", sa.String(16), nullable=False),  # the open page that has said it
    sa.Column("at", sa.Float, nullable=False),  # seconds since the epoch; one for all of a page
    sa.Column("checked", sa.Integer, nullable=False),  # whether the editor gets it though good
    sa.Column("open", sa.Integer, nullable=False),  # whether its annotation is still to be written
    sa.Column("due", sa.Float, nullable=False, default=0.0),
    sa.Column("annotation", sa.BigInteger),
    sa.Column("trouble", sa.Text, nullable=False, default=""),
    *lease_columns(),
    sa.Index("ix_reviews_open", "open", "due"),
    sa.Index("ix_reviews_project", "project", "seat", "at"),
)
_ROW: Final = _REVIEWS.c
_READ: Final = ANNOTATIONS.c

#: Of a project's verdicts, those whose task has no annotation yet.
_WAITS: Final = ~(
    sa.select(_READ.annotation)
    .where(_READ.task == _ROW.task, _READ.project == _ROW.project, _READ.kind != "")
    .exists()
)
_TO_CORRECT: Final = (_ROW.verdict == "work") | (_ROW.checked == 1)

_Id = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Reviewed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says of the prediction of a task."""

    task: _Id
    prediction: _Id
    verdict: Verdict
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0  # time spent on it
    version: Annotated[str, msgspec.Meta(max_length=10_000, pattern="^[^\\x00]*$")] = ""
    score: float = 0.0

    @property
    def is_checked(self) -> bool:
        """Whether it goes to the editor though it is good: by its number, so nobody chooses."""
        return self.verdict == "good" and is_drawn(f"review {self.task} {self.prediction}", CHECKED)


class Tally(NamedTuple):
    """What one person has said, and what came of the good ones that went to the editor."""

    reviewer: int
    good: int
    work: int
    skip: int
    too_fast: int
    checked: int = 0  # good ones that have been corrected or submitted in the editor since
    unchanged: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """The exact binomial interval (Clopper, Pearson 1934), 95 %, of the unchanged share."""
        from scipy.stats import binomtest  # takes a second

        found = binomtest(self.unchanged, self.checked).proportion_ci(method="exact")
        return float(found.low), float(found.high)


class ReviewStore:
    """The verdicts in a database.

    >>> reviews = ReviewStore(Database("sqlite://"))
    >>> reviews.save(7, 5, "seat", [Reviewed(3, 30, "good", 1.2)], since=0.0)
    []
    >>> reviews.save(7, 5, "other", [Reviewed(3, 30, "work", 1.2)], since=0.0)
    [3]
    """

    def __init__(self, database: Database, owner: str = "") -> None:
        self.database = database
        self.leases = Leases(database, _REVIEWS, owner)

    def save(
        self, project: int, reviewer: int, seat: str, said: Iterable[Reviewed], since: float
    ) -> list[int]:
        """Keep the verdicts of a page; return tasks of another page's, which was first and stays.

        So does one that has its annotation already: two tabs of a browser are one page.

        `since` is when the page was made, in seconds since the epoch. Label Studio gives the number
        of a deleted task to a new one: earlier verdicts are of others.
        """
        now, others = self.database.clock(), []
        with self.database.write() as connection:
            for each in said:
                row = msgspec.structs.asdict(each) | _fresh(each)
                row |= {"project": project, "reviewer": reviewer, "seat": seat, "at": now}
                kept = insert_on_conflict(connection, _REVIEWS).values(row)
                kept = kept.on_conflict_do_update(
                    index_elements=[_ROW.task, _ROW.prediction],
                    set_=row,
                    where=(_ROW.at < since) | (_ROW.seat == seat) & _ROW.annotation.is_(None),
                )
                if not connection.execute(kept).rowcount:
                    others.append(each.task)
        return others

    def among(self, project: int, tasks: Collection[int]) -> Mapping[int, tuple[str, float]]:
        """Return task -> version and time of the newest verdict, of some tasks of a project."""
        query = sa.select(_ROW.task, _ROW.version, _ROW.at).where(
            _ROW.project == project, _ROW.task.in_(tasks)
        )
        rows = self.database.rows(query.order_by(_ROW.at))
        return {row.task: (row.version, row.at) for row in rows}

    def count_waiting(self, project: int) -> int:
        """Count the tasks that were judged and get no annotation by it, and have none yet."""
        left = (_ROW.verdict != "good") | (_ROW.checked == 1)
        query = sa.select(sa.func.count()).where(_ROW.project == project, left, _WAITS)
        return int(self.database.scalar(query) or 0)

    def to_correct(self, project: int, *, highest_first: bool = False) -> list[int]:
        """Return the tasks without an annotation that go to the editor, by their score."""
        order = _ROW.score.desc() if highest_first else _ROW.score
        query = sa.select(_ROW.task).where(_ROW.project == project, _TO_CORRECT, _WAITS)
        rows = self.database.rows(query.order_by(order).limit(_MOST_SHOWN))
        return [row.task for row in rows]

    def last_page(self, project: int, seat: str) -> Sequence[sa.Row[Any]]:
        """Return the verdicts that an open page has sent last."""
        is_its = (_ROW.project == project) & (_ROW.seat == seat)
        newest = sa.select(sa.func.max(_ROW.at)).where(is_its).scalar_subquery()
        return self.database.rows(sa.select(_REVIEWS).where(is_its, _ROW.at == newest))

    def forget(self, rows: Iterable[sa.Row[Any]]) -> None:
        """Forget verdicts, written or not."""
        with self.database.write() as connection:
            for row in rows:
                connection.execute(sa.delete(_REVIEWS).where(*_is(row)))

    def not_written(self, project: int, since: float) -> Sequence[sa.Row[Any]]:
        """Return the verdicts of which no annotation came, the newest first, and why."""
        query = sa.select(_REVIEWS).where(
            _ROW.project == project, _ROW.trouble != "", (_ROW.at > since) | (_ROW.open == 1)
        )
        return self.database.rows(query.order_by(_ROW.at.desc()).limit(_AT_ONCE))

    def tallies(self, project: int) -> list[Tally]:
        """Count what each person has said, and what the editor made of it."""

        def count(condition: Any) -> Any:
            return sa.func.sum(sa.case((condition, 1), else_=0))

        counts = sa.select(
            _ROW.reviewer,
            count(_ROW.verdict == "good").label("good"),
            count(_ROW.verdict == "work").label("work"),
            count(_ROW.verdict == "skip").label("skip"),
            count((_ROW.verdict == "good") & (_ROW.seconds < TOO_FAST_S)).label("too_fast"),
        ).where(_ROW.project == project)
        rows = self.database.rows(counts.group_by(_ROW.reviewer).order_by(_ROW.reviewer))

        checks = self._checks(project)
        tallies = []
        for row in rows:
            are_same = checks.get(row.reviewer, [])
            counted = {"checked": len(are_same), "unchanged": sum(are_same)}
            tallies.append(Tally(**row._asdict(), **counted))
        return tallies

    def _checks(self, project: int) -> dict[int, list[bool]]:
        """Return reviewer -> whether each checked prediction was submitted without a change.

        As in the report, what was submitted unchanged at once tells nothing.
        """
        query = (
            sa.select(_ROW.reviewer, _ROW.task, _READ.changes)
            .where(_ROW.project == project, _ROW.checked == 1, _READ.task == _ROW.task)
            .where(
                _READ.project == project, _READ.kind == "compared", _READ.version == _ROW.version
            )
            .order_by(_READ.annotation.desc())
        )
        first = {(row.reviewer, row.task): row.changes for row in self.database.rows(query)}
        found: dict[int, list[bool]] = {}
        for (reviewer, _), text in first.items():
            changes = msgspec.json.decode(text, type=tuple[LabelDiff, ...])
            is_same = all(each.iou in (1, None) for each in changes)
            found.setdefault(reviewer, []).append(is_same)
        return found

    def lease_due(self) -> sa.Row[Any] | None:
        """Lease the first verdict whose annotation is due; None where none is.

        One at which the process has died too often is given up, and the next one follows.
        """
        has_come = is_due(_ROW.due, self.database.clock(), _RETRY_S)
        query = sa.select(_REVIEWS).where(_ROW.open == 1, has_come)
        query = query.order_by(_ROW.due, _ROW.at).limit(1)
        leased: list[sa.Row[Any]] = []

        def begin(row: sa.Row[Any], deaths: Deaths) -> dict[str, Any]:
            if is_hopeless(deaths):
                return {"open": 0, "trouble": _deadly(row.task), **FINISHED}
            leased.append(row)
            return {}

        while rows := self.leases.take(query, begin):
            if leased:
                return leased[0]
            self._let_go(rows[0])
        return None

    def release(self, row: sa.Row[Any]) -> None:
        """Give the lease of a verdict back; it is due as it was."""
        self._change(row, **RELEASED)

    def note(self, row: sa.Row[Any], **outcome: Any) -> bool:
        """Keep what came of a leased verdict; return whether it is still as it was."""
        return self._change(row, **FINISHED, **outcome)

    def _let_go(self, row: sa.Row[Any]) -> None:
        self.leases.let_go(row.task, row.prediction)

    def _change(self, row: sa.Row[Any], **outcome: Any) -> bool:
        self._let_go(row)
        change = sa.update(_REVIEWS).where(*_is(row), _ROW.at == row.at).values(outcome)
        with self.database.write() as connection:
            return bool(connection.execute(change).rowcount)

    def postpone(self, row: sa.Row[Any]) -> bool:
        """Have the annotation of a leased verdict written later, after those that are due."""
        return self.note(row, due=self.database.clock() + _RETRY_S)

    def note_trouble(self, row: sa.Row[Any], trouble: str) -> bool:
        """Keep why an annotation was not written, and have it tried again later."""
        return self.note(row, trouble=trouble, due=self.database.clock() + _RETRY_S)


def _fresh(said: Reviewed) -> dict[str, Any]:
    """Return the values of a row of which nothing has come yet."""
    is_open = said.verdict == "good" and not said.is_checked
    values = {"checked": int(said.is_checked), "open": int(is_open), "due": 0.0}
    return values | {"annotation": None, "trouble": "", **FINISHED}


def _deadly(task: int) -> str:
    return (
        f"The backend has ended {MOST_DEATHS} times while it wrote the annotation of task {task}: "
        "see its log, and correct the task in the editor."
    )


def _is(row: sa.Row[Any]) -> tuple[Any, Any]:
    return _ROW.task == row.task, _ROW.prediction == row.prediction
