"""What people have said of predictions on the review page: a journal that a worker empties.

A verdict is kept at once, and so is that it is to be taken back. A thread of the worker does in
Label Studio what follows from it, see `backend.review.writing`. Each row is leased meanwhile, and
notes what has begun before it is done: whoever takes over from a process that has ended can tell
what may be in Label Studio already.

One in `CHECKED` of the good ones, by its number, gets no annotation: it is corrected in the editor
like those that need work, and whoever does it does not know. What is changed there tells how far
the others can be trusted.
"""

from __future__ import annotations

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
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ANNOTATIONS
from backend.feedback.comparison import LabelDiff
from backend.feedback.experiment import is_drawn
from backend.projects.scores import ScoreStore
from backend.review.repair import MOST_STEPS, Step
from clearclip_core.quantities import grouped, inflected

Verdict = Literal["good", "work", "skip"]

CHECKED: Final = 20  # one in how many good ones goes to the editor
TOO_FAST_S: Final = 0.7  # seconds below which nobody has looked at a picture

#: Before what Label Studio has failed at is tried again, in seconds: each pause is twice the last.
_RETRY_S: Final = 5.0
_LONGEST_RETRY_S: Final = 600.0

_TOLD_AFTER: Final = 3  # tries that fail, after which a page tells of it: half a minute
_MOST_REFUSALS: Final = 5  # tries after which what Label Studio refuses is given up: over a minute

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
    sa.Column("reviewer", sa.Integer, nullable=False),  # the user whose token the backend has
    sa.Column("person", sa.Text, nullable=False, default=""),  # the name that who has said it gave
    sa.Column("seat", sa.String(16), nullable=False),  # the open page that has said it
    sa.Column("at", sa.Float, nullable=False),  # seconds since the epoch; one for all of a page
    sa.Column("checked", sa.Integer, nullable=False),  # whether the editor gets it though good
    sa.Column("open", sa.Integer, nullable=False),  # whether its annotation is still to be written
    sa.Column("due", sa.Float, nullable=False, default=0.0),
    sa.Column("annotation", sa.BigInteger),
    sa.Column("trouble", sa.Text, nullable=False, default=""),
    #: how many verdicts are taken back together with it, itself included; 0: it is not taken back
    sa.Column("undo", sa.Integer, nullable=False, default=0, server_default="0"),
    #: whether its annotation may be in Label Studio
    sa.Column("begun", sa.Integer, nullable=False, default=0, server_default="0"),
    #: how often Label Studio has failed at it
    sa.Column("tries", sa.Integer, nullable=False, default=0, server_default="0"),
    #: the steps of its repair, as JSON, see `backend.review.repair`
    sa.Column("repair", sa.Text, nullable=False, default="[]", server_default="[]"),
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
#: Verdicts that stay as they are until their annotation is written, or taken back.
_IN_WORK: Final = (_ROW.undo > 0) | (_ROW.open == 1) & (_ROW.begun == 1)

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
    #: what was repaired before the rest was called good
    repair: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MOST_STEPS)] = ()

    def __post_init__(self) -> None:
        if self.repair and self.verdict != "good":
            raise ValueError("Expected a repair only of what is called good")

    @property
    def is_checked(self) -> bool:
        """Whether it goes to the editor though it is good: by its number, so nobody chooses.

        One that was repaired does not: the repair would be lost.
        """
        is_whole = self.verdict == "good" and not self.repair
        return is_whole and is_drawn(f"review {self.task} {self.prediction}", CHECKED)


class Tally(NamedTuple):
    """What one person has said, and what came of the good ones that went to the editor."""

    person: str  # the name that they gave; empty where they gave none
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


class TakingBack(NamedTuple):
    """Verdicts of a page that are taken back together."""

    total: int = 0
    left: int = 0  # whose annotations are still to be deleted

    @property
    def sentence(self) -> str:
        """What people read of it.

        >>> TakingBack(38, 12).sentence
        'Taking back 38 verdicts: 26 so far.'
        >>> TakingBack(1).sentence
        '1 verdict is taken back.'
        """
        what = f"{grouped(self.total)} {inflected(self.total, 'verdict')}"
        if self.left:
            return f"Taking back {what}: {grouped(self.total - self.left)} so far."
        return f"{what} {inflected(self.total, 'is', 'are')} taken back."


class NotDone(NamedTuple):
    """What a verdict was to bring about in Label Studio and has not, or not yet."""

    task: int
    reason: str  # sentences for people


class Judged(NamedTuple):
    """What was said of one prediction of a task, and what has come of it."""

    verdict: Verdict
    person: str  # the name that who has said it gave; empty where they gave none
    at: float  # when, in seconds since the epoch
    version: str  # of the prediction
    is_checked: bool  # whether the editor gets the task though the prediction is good
    annotation: int | None  # the annotation that was written
    is_open: bool  # whether its annotation is still to be written, or to be deleted
    is_undone: bool  # whether it is being taken back
    trouble: str  # why it has come to nothing, or not yet; empty where there is no trouble

    @classmethod
    def of(cls, row: sa.Row[Any]) -> Judged:
        return cls(
            verdict=row.verdict,
            person=row.person,
            at=row.at,
            version=row.version,
            is_checked=bool(row.checked),
            annotation=row.annotation,
            is_open=bool(row.open),
            is_undone=row.undo > 0,
            trouble=row.trouble,
        )


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
        self._owner = owner
        self._annotations = AnnotationStore(database)
        self._scores = ScoreStore(database)

    def save(
        self,
        project: int,
        reviewer: int,
        seat: str,
        said: Iterable[Reviewed],
        since: float,
        *,
        person: str = "",
    ) -> list[int]:
        """Keep the verdicts of a page; return tasks of another page's, which was first and stays.

        So does one whose annotation is written, or may be: two tabs of a browser are one page.

        `since` is when the page was made, in seconds since the epoch. Label Studio gives the number
        of a deleted task to a new one: earlier verdicts are of others.
        """
        now, others = self.database.clock(), []
        with self.database.write() as connection:
            for each in said:
                row = msgspec.structs.asdict(each) | _fresh(each)
                row |= {"project": project, "reviewer": reviewer, "seat": seat, "at": now}
                row |= {"person": person, "repair": msgspec.json.encode(each.repair).decode()}
                kept = insert_on_conflict(connection, _REVIEWS).values(row)
                kept = kept.on_conflict_do_update(
                    index_elements=[_ROW.task, _ROW.prediction],
                    set_=row,
                    where=~_IN_WORK & ((_ROW.at < since) | (_ROW.seat == seat) & (_ROW.begun == 0)),
                )
                # SQLAlchemy counts no rows of an INSERT on PostgreSQL
                if connection.execute(kept.returning(_ROW.task)).first() is None:
                    others.append(each.task)
        return others

    def among(self, project: int, tasks: Collection[int]) -> Mapping[int, tuple[str, float]]:
        """Return task -> version and time of the newest verdict, of some tasks of a project.

        One that is being taken back is among them: its task waits for a verdict after that.
        """
        query = sa.select(_ROW.task, _ROW.version, _ROW.at).where(
            _ROW.project == project, _ROW.task.in_(tasks)
        )
        rows = self.database.rows(query.order_by(_ROW.at))
        return {row.task: (row.version, row.at) for row in rows}

    def of_task(self, project: int, task: int) -> list[Judged]:
        """Return what was said of the predictions of a task, the oldest first."""
        query = sa.select(_REVIEWS).where(_ROW.project == project, _ROW.task == task)
        return [Judged.of(row) for row in self.database.rows(query.order_by(_ROW.at))]

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
        """Return the verdicts that an open page has sent last, and not taken back."""
        is_its = (_ROW.project == project) & (_ROW.seat == seat) & (_ROW.undo == 0)
        newest = sa.select(sa.func.max(_ROW.at)).where(is_its).scalar_subquery()
        return self.database.rows(sa.select(_REVIEWS).where(is_its, _ROW.at == newest))

    def undo(self, project: int, seat: str, at: float | None = None) -> TakingBack:
        """Take back the verdicts that an open page has sent last.

        Those without an annotation are forgotten; the annotations of the others are deleted in the
        background, and until then a kill changes nothing.

        Args:
            project: number of the project.
            seat: the open page.
            at: the time of the verdicts that are meant, so that a second press takes no more back;
                None for those that are the last now.

        Returns:
            How many they are, and how many of these are left for the background.
        """
        rows = self.last_page(project, seat)
        last = rows[0].at if rows else 0.0
        if not rows or at not in (None, last):
            return TakingBack()

        is_its = (_ROW.project == project) & (_ROW.seat == seat) & (_ROW.at == last)
        is_its &= _ROW.undo == 0
        with self.database.write() as connection:
            # In this order: of one whose annotation is begun in between, the second one takes care.
            gone = connection.execute(sa.delete(_REVIEWS).where(is_its, _ROW.begun == 0)).rowcount
            count = sa.select(sa.func.count()).select_from(_REVIEWS).where(is_its)
            left = int(connection.execute(count).scalar_one())
            mark = {"undo": gone + left, "open": 1, "due": 0.0, "tries": 0, "trouble": ""}
            connection.execute(sa.update(_REVIEWS).where(is_its).values(mark))
        return TakingBack(gone + left, left)

    def taking_back(self, project: int, seat: str) -> TakingBack:
        """Return how far the verdicts of an open page that it takes back now are taken back."""
        query = sa.select(_ROW.undo.label("total"), sa.func.count().label("left"))
        query = query.where(_ROW.project == project, _ROW.seat == seat, _ROW.undo > 0)
        pages = self.database.rows(query.group_by(_ROW.at, _ROW.undo))
        return TakingBack(sum(each.total for each in pages), sum(each.left for each in pages))

    def not_done(self, project: int, since: float) -> list[NotDone]:
        """Return the verdicts that have come to nothing, the newest first, and why.

        Args:
            project: number of the project.
            since: when those were said at the earliest that are not tried any more, in seconds
                since the epoch.
        """
        is_recent = (_ROW.at > since) | (_ROW.due > since)  # said, or given up
        is_told = (_ROW.open == 0) & is_recent | (_ROW.tries >= _TOLD_AFTER)
        query = sa.select(_REVIEWS).where(_ROW.project == project, _ROW.trouble != "", is_told)
        rows = self.database.rows(query.order_by(_ROW.at.desc()).limit(_AT_ONCE))
        return [NotDone(row.task, _reason(row)) for row in rows]

    def tallies(self, project: int) -> list[Tally]:
        """Count what each person has said, and what the editor made of it."""

        def count(condition: Any) -> Any:
            return sa.func.sum(sa.case((condition, 1), else_=0))

        verdicts = [count(_ROW.verdict == each).label(each) for each in ("good", "work", "skip")]
        is_too_fast = (_ROW.verdict == "good") & (_ROW.seconds < TOO_FAST_S)
        query = sa.select(_ROW.person, *verdicts, count(is_too_fast).label("too_fast"))
        query = query.where(_ROW.project == project, _ROW.undo == 0)
        rows = self.database.rows(query.group_by(_ROW.person).order_by(_ROW.person))

        checks = self._checks(project)
        tallies = []
        for row in rows:
            are_same = checks.get(row.person, [])
            tally = Tally(row.person, row.good, row.work, row.skip, row.too_fast)
            tallies.append(tally._replace(checked=len(are_same), unchanged=sum(are_same)))
        return tallies

    def _checks(self, project: int) -> dict[str, list[bool]]:
        """Return person -> whether each checked prediction was submitted without a change.

        As in the report, what was submitted unchanged at once tells nothing.
        """
        was_checked = sa.and_(_ROW.project == project, _ROW.checked == 1)
        was_read = sa.and_(_READ.project == project, _READ.kind == "compared")
        is_same = sa.and_(_READ.task == _ROW.task, _READ.version == _ROW.version)
        query = sa.select(_ROW.person, _ROW.task, _READ.changes)
        query = query.where(was_checked, was_read, is_same).order_by(_READ.annotation.desc())
        first = {(row.person, row.task): row.changes for row in self.database.rows(query)}
        found: dict[str, list[bool]] = {}
        for (person, _), text in first.items():
            changes = msgspec.json.decode(text, type=tuple[LabelDiff, ...])
            is_unchanged = all(each.iou in (1, None) for each in changes)
            found.setdefault(person, []).append(is_unchanged)
        return found

    def lease_due(self) -> sa.Row[Any] | None:
        """Lease the first verdict that Label Studio has still to be told; None without one.

        One at which the process has died too often is given up, and the next one follows.
        """
        has_come = is_due(_ROW.due, self.database.clock(), _LONGEST_RETRY_S)
        query = sa.select(_REVIEWS).where(_ROW.open == 1, has_come)
        query = query.order_by(_ROW.due, _ROW.at).limit(1)
        leased: list[sa.Row[Any]] = []

        def begin(row: sa.Row[Any], deaths: Deaths) -> dict[str, Any]:
            if is_hopeless(deaths):
                return self._given_up(_deadly(row))
            leased.append(row)
            return {}

        while rows := self.leases.take(query, begin):
            if leased:
                return leased[0]
            self._let_go(rows[0])
        return None

    def begin(self, row: sa.Row[Any]) -> bool:
        """Note that the annotation of a leased verdict may be in Label Studio from now on.

        Returns:
            Whether it may be written: the verdict has not changed, nor is it taken back.
        """
        begun = sa.update(_REVIEWS).where(self._is_as_it_was(row)).values(begun=1)
        with self.database.write() as connection:
            return bool(connection.execute(begun).rowcount)

    def note(self, row: sa.Row[Any], annotation: int | None, trouble: str) -> None:
        """Keep what came of a leased verdict: the number of its annotation, or why there is none.

        One that is taken back meanwhile stays due. An annotation whose verdict is gone, because the
        lease was lost for a time, is one that is to be taken back.
        """
        outcome = {"annotation": annotation, "trouble": trouble, "open": 0, "tries": 0}
        if annotation is not None:
            outcome["begun"] = 1
        if self._change(row, **outcome, **FINISHED) or annotation is None:
            return
        values = {**row._mapping, "annotation": annotation, "undo": 1, "begun": 1, **FINISHED}
        with self.database.write() as connection:
            lost = insert_on_conflict(connection, _REVIEWS).values(values)
            connection.execute(lost.on_conflict_do_nothing())

    def note_trouble(self, row: sa.Row[Any], trouble: str, *, is_refused: bool = False) -> None:
        """Keep why something has failed for a leased verdict, and have it tried again later.

        What is refused is given up after `_MOST_REFUSALS` tries: it would be for ever. A verdict
        that was to be taken back stands then, so that it can be taken back again.

        Args:
            row: the verdict.
            trouble: why it has failed, for people.
            is_refused: whether Label Studio has refused the request itself.
        """
        trouble = trouble if trouble.endswith((".", "…")) else f"{trouble}."
        if is_refused and row.tries + 1 >= _MOST_REFUSALS:
            told = f"Label Studio has refused it {_MOST_REFUSALS} times. {trouble}"
            self._change(row, **self._given_up(f"{told} {_advice(row)}"))
            return

        pause_s = min(_RETRY_S * 2 ** min(row.tries, 10), _LONGEST_RETRY_S)
        due = self.database.clock() + pause_s
        self._change(row, trouble=trouble, tries=row.tries + 1, due=due, **FINISHED)

    def _given_up(self, trouble: str) -> dict[str, Any]:
        """Return the values of a verdict that is given up, with the reason."""
        values = {"open": 0, "undo": 0, "tries": 0, "due": self.database.clock()}
        return values | {"trouble": trouble, **FINISHED}

    def postpone(self, row: sa.Row[Any]) -> None:
        """Have what a leased verdict asks for done later, after what is due."""
        self._change(row, due=self.database.clock() + _RETRY_S, **FINISHED)

    def release(self, row: sa.Row[Any]) -> None:
        """Give the lease of a verdict back; it is due as it was."""
        self._change(row, **RELEASED)

    def forget(self, row: sa.Row[Any]) -> None:
        """Forget a leased verdict that is taken back; its task waits for a review again."""
        self._annotations.mark_tasks(row.project, [row.task])
        self._scores.reopen(row.project, row.task)
        self._let_go(row)
        with self.database.write() as connection:
            connection.execute(sa.delete(_REVIEWS).where(self._is_as_it_was(row)))

    def _change(self, row: sa.Row[Any], **outcome: Any) -> bool:
        """Change a leased verdict and release it; one that is not as it was is released alone."""
        self._let_go(row)
        change = sa.update(_REVIEWS).where(self._is_as_it_was(row)).values(outcome)
        with self.database.write() as connection:
            is_changed = bool(connection.execute(change).rowcount)
            if not is_changed:
                self.leases.change(connection, row.task, row.prediction, **RELEASED)
        return is_changed

    def _let_go(self, row: sa.Row[Any]) -> None:
        self.leases.let_go(row.task, row.prediction)

    def _is_as_it_was(self, row: sa.Row[Any]) -> sa.ColumnElement[bool]:
        """Match a verdict that this owner has leased still, and that is not taken back since.

        Another verdict in its place has no owner, or another time.
        """
        return sa.and_(
            _ROW.task == row.task,
            _ROW.prediction == row.prediction,
            _ROW.at == row.at,
            _ROW.owner == self._owner,
            _ROW.undo == row.undo,
        )


def _fresh(said: Reviewed) -> dict[str, Any]:
    """Return the values of a row that nobody has worked on yet."""
    is_open = said.verdict == "good" and not said.is_checked
    values = {"checked": int(said.is_checked), "open": int(is_open), "due": 0.0}
    values |= {"undo": 0, "begun": 0, "tries": 0}
    return values | {"annotation": None, "trouble": "", **FINISHED}


def _deadly(row: sa.Row[Any]) -> str:
    doing = "took the annotation back" if row.undo else "wrote the annotation"
    return (
        f"The backend has ended {MOST_DEATHS} times while it {doing} of task {row.task}: "
        f"see its log. {_advice(row)}"
    )


def _advice(row: sa.Row[Any]) -> str:
    """Say what people can do where a verdict is given up."""
    if row.undo:
        return "It is not taken back: delete the annotation in the editor."
    return "It is not tried again: correct the task in the editor."


def _reason(row: sa.Row[Any]) -> str:
    """Return why a verdict has come to nothing, for people."""
    if not row.open:
        return str(row.trouble)
    what = "Its annotation is not taken back yet. " if row.undo else ""
    return f"{what}{row.trouble} It is tried again."
