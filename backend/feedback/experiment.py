"""Measures what predictions save: one task in ten, at random, gets none for a while.

Everybody who makes predictions asks `TaskScope.withhold` first. Annotations of the withheld tasks
that began from nothing are compared with those that began with a prediction of the same days. Tasks
that had a prediction when the experiment began were not drawn, so they count on neither side.

It ends once enough withheld tasks are annotated, or all are. Both sides have one bound of times,
above which a time was a break: bounds of their own would cut the quicker side sooner. What
no bound cures is counted beside the result: withheld tasks that nobody has drawn, which may be the
hard ones, and predictions that were submitted before anybody can have looked.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final

import msgspec
import numpy as np
import sqlalchemy as sa

from backend.database.database import LOCK, METADATA, Database
from backend.feedback.annotation_table import ANNOTATIONS, PRELABELLED
from backend.feedback.report.hours_left import Float64s, break_s
from backend.label_studio.task_filter import OPEN
from clearclip_core.quantities import quantity

ONE_IN: Final = 10  # one task of this many gets no prediction

#: The tasks that may be drawn: nobody has seen them, with a prediction or without.
UNSEEN: Final = replace(OPEN, predicted=False)

#: Annotated withheld tasks that end an experiment, and how many each side needs at least.
ENOUGH: Final = 30
LEAST: Final = 20

_CONFIDENCE: Final = 0.9
_DRAWS: Final = 2000

_EXPERIMENTS: Final = sa.Table(
    "experiments",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("began", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("withheld", sa.Text, nullable=False, default="[]"),  # a JSON list of ids
)
_ROW: Final = _EXPERIMENTS.c
_READ: Final = ANNOTATIONS.c


class Timed(msgspec.Struct, frozen=True):
    """How long an annotation of a task took, in seconds, and who made it."""

    seconds: float
    task: int
    annotator: int | None = None
    is_hasty: bool = False  # whether nobody can have looked at the masks in that time


class Saved(msgspec.Struct, frozen=True):
    """Seconds that a prediction saves a picture, on average, with a 90 % confidence interval."""

    seconds: float
    low: float
    high: float


class Experiment(msgspec.Struct, frozen=True):
    """An experiment of a project; times are in seconds since the epoch."""

    began: float
    ended: float | None  # None while it runs
    without: int  # the number of measured annotations that began from nothing as it wanted
    beside: int  # the number of those that began with a prediction meanwhile
    saved: Saved | None = None  # None while it runs, or where it stopped too early
    withheld: int = 0  # tasks that got no prediction
    skipped: int = 0  # of these, those that somebody has skipped and nobody annotated meanwhile
    open: int = 0  # of these, those that are neither annotated nor skipped by its end
    hasty: int = 0  # of `beside`, those that were submitted unchanged within seconds

    @property
    def sentence(self) -> str:
        """What it has found, or how far it is, for people."""
        if self.ended is None:
            return (
                f"One task in {ONE_IN} gets no prediction until {ENOUGH} of these are annotated, "
                f"or none is left: so far {self.without}, and {self.beside} with a prediction "
                "meanwhile."
            )
        counts = f"{self.without} without, {self.beside} with"
        if self.saved is None:
            return f"Too few annotations tell what a prediction saves: {counts}."
        low, high = self.saved.low, self.saved.high
        range_ = f"90 % range: {_minutes(low)} to {_minutes(high)}; {counts}"
        if low <= 0 <= high:
            return f"It is open whether a prediction saves time a picture ({range_})."
        verb = "saves" if low > 0 else "costs"
        if low <= 0:
            range_ = f"90 % range: {_minutes(-high)} to {_minutes(-low)}; {counts}"
        return f"A prediction {verb} {_minutes(abs(self.saved.seconds))} a picture ({range_})."

    @property
    def notes(self) -> tuple[str, ...]:
        """What may have bent the result, in sentences with counts; none while it runs.

        >>> Experiment(0, 1, 30, 270, withheld=33, skipped=2, open=1).notes
        ('Of 33 tasks without a prediction 2 were skipped and 1 was left: if these were the hard \
ones, a prediction saves more than that.',)
        """
        if self.ended is None:
            return ()
        return tuple(note for note in (self._undrawn, self._unchecked) if note)

    @property
    def _undrawn(self) -> str:
        parts = []
        if self.skipped:
            parts.append(f"{self.skipped} {_were(self.skipped)} skipped")
        if self.open:
            parts.append(f"{self.open} {_were(self.open)} left")
        if not parts:
            return ""
        return (
            f"Of {quantity(self.withheld, 'task')} without a prediction {' and '.join(parts)}: if "
            "these were the hard ones, a prediction saves more than that."
        )

    @property
    def _unchecked(self) -> str:
        if not self.hasty:
            return ""
        return (
            f"Of {self.beside} with a prediction {self.hasty} {_were(self.hasty)} submitted "
            "unchanged in less than 5 s: nobody can have looked at their masks, and without them "
            "a prediction saves less than that."
        )


class ExperimentStore:
    """The newest experiment of each project, in a database.

    >>> experiments = ExperimentStore(Database("sqlite://"))
    >>> experiments.begin(7)
    >>> 50 < len(experiments.withhold(7, range(1000))) < 150, experiments.withhold(8, range(1000))
    (True, set())
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, project: int) -> None:
        """Begin an experiment, in place of one that has ended; one that runs goes on."""
        with self._database.write_exclusively(LOCK) as connection:
            its = _ROW.project == project
            connection.execute(sa.delete(_EXPERIMENTS).where(its, _ROW.ended.is_not(None)))
            if connection.execute(sa.select(_ROW.project).where(its)).first() is None:
                began = {"project": project, "began": self._database.clock()}
                connection.execute(sa.insert(_EXPERIMENTS).values(began))

    def stop(self, project: int) -> None:
        """End the experiment of a project: from now on all tasks get predictions."""
        running = sa.and_(_ROW.project == project, _ROW.ended.is_(None))
        end = sa.update(_EXPERIMENTS).where(running)
        self._database.execute(end.values(ended=self._database.clock()))

    def withhold(self, project: int | None, tasks: Iterable[int]) -> set[int]:
        """Return which of some tasks are to get no prediction now, and keep them with others."""
        row = self._running(project)
        if row is None:
            return set()
        drawn = {task for task in tasks if _is_drawn(row, task)}
        if not drawn <= set(json.loads(row.withheld)):
            with self._database.write_exclusively(LOCK) as connection:
                before = connection.scalar(sa.select(_ROW.withheld).where(_ROW.project == project))
                kept = json.dumps(sorted(drawn.union(json.loads(before or "[]"))))
                its = sa.update(_EXPERIMENTS).where(_ROW.project == project)
                connection.execute(its.values(withheld=kept))
        return drawn

    def withheld(self, project: int) -> tuple[int, ...]:
        """Return the tasks that got no prediction so far; none once the experiment is over."""
        row = self._running(project)
        return () if row is None else tuple(json.loads(row.withheld))

    def find(self, project: int) -> Experiment | None:
        """Return the newest experiment of a project, and what it has found."""
        row = self._running(project) or self._row(project)
        if row is None:
            return None
        without, beside = self._times(row)
        counts = len(without), len(beside)
        if row.ended is None:
            return Experiment(row.began, None, *counts)

        saved = saved_seconds(without, beside) if min(counts) >= LEAST else None
        withheld = {*json.loads(row.withheld)}
        kinds = self._kinds(row, withheld)
        skipped = [task for task, its in kinds.items() if its == {"skipped"}]
        hasty = [timed for timed in beside if timed.is_hasty]
        return Experiment(
            began=row.began,
            ended=row.ended,
            without=len(without),
            beside=len(beside),
            saved=saved,
            withheld=len(withheld),
            skipped=len(skipped),
            open=len(withheld - kinds.keys()),
            hasty=len(hasty),
        )

    def is_running(self, project: int) -> bool:
        """Whether tasks of a project get no prediction for now."""
        return self._running(project) is not None

    def _running(self, project: int | None) -> sa.Row[Any] | None:
        """Return the row of an experiment that runs; one with enough annotations ends here."""
        row = None if project is None else self._row(project)
        if row is None or row.ended is not None:
            return None
        if len(self._times(row, ("scratch",))[0]) < ENOUGH:
            return row
        self.stop(row.project)
        return None

    def _row(self, project: int) -> sa.Row[Any] | None:
        query = sa.select(_EXPERIMENTS).where(_ROW.project == project)
        return next(iter(self._database.rows(query)), None)

    def _times(
        self, row: sa.Row[Any], kinds: Sequence[str] = ("scratch", *PRELABELLED)
    ) -> tuple[list[Timed], list[Timed]]:
        """Return the measured annotations without and with a prediction, while it ran."""
        while_it_ran = _READ.created.between(row.began, row.ended or inf)
        is_recent = sa.and_(_READ.project == row.project, _READ.updated >= row.began)  # indexed
        query = sa.select(_READ.kind, _READ.seconds, _READ.task, _READ.annotator, _READ.predicted)
        query = query.where(is_recent, while_it_ran, _READ.kind.in_(kinds), _READ.seconds > 0)

        without: list[Timed] = []
        beside: list[Timed] = []
        for read in self._database.rows(query.order_by(_READ.annotation)):
            is_hasty = read.kind == "unchecked"
            timed = Timed(read.seconds, read.task, read.annotator, is_hasty)
            is_drawn = _is_drawn(row, read.task)
            if is_drawn and read.kind == "scratch":
                without.append(timed)
            elif not is_drawn and read.kind != "scratch" and read.predicted >= row.began:
                beside.append(timed)
        return without, beside

    def _kinds(self, row: sa.Row[Any], tasks: set[int]) -> dict[int, set[str]]:
        """Return the kinds of annotations that some tasks got while it ran: task -> kinds."""
        query = sa.select(_READ.task, _READ.kind).where(
            _READ.project == row.project,
            _READ.updated >= row.began,  # an index has it
            _READ.created.between(row.began, row.ended or inf),
        )
        kinds: dict[int, set[str]] = {}
        for read in self._database.rows(query):
            if read.task in tasks:
                kinds.setdefault(read.task, set()).add(read.kind)
        return kinds


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _is_drawn(row: sa.Row[Any], task: int) -> bool:
    """Whether an experiment wants a task without a prediction."""
    return is_drawn(f"{row.project} {row.began} {task}", ONE_IN)


def is_drawn(name: str, one_in: int) -> bool:
    """Draw one name in `one_in` by its hash: nobody chooses, and everybody draws alike."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % one_in == 0


def saved_seconds(without: Sequence[Timed], beside: Sequence[Timed]) -> Saved:
    """Return the difference of two mean times, one or more each, with its interval by bootstrap.

    Draws are of annotators and of pictures, with replacement. Times of both sides are cut at one
    bound, that of the slower side: what is longer was a break.
    """
    times = [np.array([each.seconds for each in side]) for side in (without, beside)]
    bound_s = max(break_s(side) for side in times)
    sides = [np.minimum(side, bound_s) for side in times]
    weights = _draw_weights([*without, *beside])
    parts = np.split(weights, [len(without)], axis=1)
    with np.errstate(invalid="ignore"):  # a draw may have nobody of one side
        means = [part @ side / part.sum(axis=1) for part, side in zip(parts, sides, strict=True)]
    low, high = np.nanquantile(means[0] - means[1], [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Saved(float(sides[0].mean() - sides[1].mean()), float(low), float(high))


def _draw_weights(both: Sequence[Timed]) -> Float64s:
    """Draw annotators and pictures; return (draws, n) how often each time counts in each draw."""
    rng = np.random.default_rng(0)
    weights = np.ones((_DRAWS, len(both)))
    for owners in ([each.annotator for each in both], [each.task for each in both]):
        known, index = np.unique(
            [-1 if each is None else each for each in owners], return_inverse=True
        )
        drawn = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), _DRAWS)
        weights *= drawn[:, index]
    return weights


def _minutes(seconds: float) -> str:
    """Write a time or a difference of times for people.

    >>> _minutes(110), _minutes(-20.4), _minutes(59.7)
    ('1 min 50 s', '−20 s', '1 min')
    """
    minutes, rest = divmod(round(abs(seconds)), 60)
    shown = [f"{n} {unit}" for n, unit in ((minutes, "min"), (rest, "s")) if n]
    return ("−" if round(seconds) < 0 else "") + (" ".join(shown) or "0 s")
