"""Estimates how many hours a project still takes at today's pace."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from backend.errors import StudioRefused, StudioUnreachable
from backend.feedback.annotation_store import AnnotationStore, WorkTime
from backend.feedback.annotation_table import PRELABELLED
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import ProjectRow
from backend.label_studio.task_filter import TaskFilter
from clearclip_core.quantities import grouped, inflected

log = logging.getLogger(__name__)

Float64s = npt.NDArray[np.float64]

#: The newest annotations that tell the pace, and how many of them are needed at least.
RECENT: Final = 50
LEAST: Final = 10

_CONFIDENCE: Final = 0.9

_BREAK: Final = 5  # times are cut at this many medians: what is longer was a break

#: Standard errors between the older and the newer half of the times, or of the slope by day, from
#: which on pace has changed.
_APART: Final = 2.5

#: Days that an interval takes, and annotations of a day that counts. By simulation the interval of
#: 90 % holds in 88 to 94 % of projects then, and in 74 to 91 % where hard pictures come in blocks,
#: see tests/backend/feedback/report/test_hours_left.py.
LEAST_DAYS: Final = 10
_LEAST_OF_DAY: Final = 5

_DAY_S: Final = 86_400.0

_SKIPPED: Final = TaskFilter(done=False, labeled=False, skipped=True)

_MOST_LIKE: Final = 0.8  # the most that the autocorrelation of days may be

#: The newest annotations that tell how days differ.
MOST_TIMED: Final = 20_000


class Hours(msgspec.Struct, frozen=True):
    """Hours at today's pace, with a prediction interval of the tasks that are left.

    They are the annotations left times the mean time of an annotation: of all of them where there
    is an interval, else of the newest; of the newer half of these where the pace has changed.
    """

    hours: float
    low: float | None = None
    high: float | None = None
    days: int = 0  # with enough annotations to tell the pace of a day
    is_changing: bool = False


class WorkLeft(msgspec.Struct, frozen=True):
    """The tasks of a project that Label Studio does not take for finished."""

    tasks: int  # without skipped ones
    begun: int  # of these, those with an annotation: they need one of somebody else
    annotations: int  # that these tasks still need
    skipped: int  # tasks without an annotation that somebody has skipped


class HoursLeft(msgspec.Struct, frozen=True):
    """The pace of a project's newest annotations, and the annotation that is left in it."""

    tasks_left: int | None  # neither done nor skipped; None where Label Studio does not say
    annotations: int  # the newest measured ones that began with a prediction, at most `RECENT`
    seconds: float  # their median time
    expected: Hours | None = None  # the hours if all tasks left have predictions; None: not known
    annotations_left: int | None = None  # that the tasks left need

    @property
    def missing(self) -> str:
        """Why hours are not known, in a sentence; empty where they are."""
        if self.tasks_left is None:
            return "Label Studio does not say now how many tasks are left. Ask again later."
        if not self.tasks_left:
            return "No task is left to correct."
        if self.expected is None:
            told = f"Hours need {LEAST} measured annotations that began with a prediction"
            return f"{told}; so far there are {self.annotations}."
        return ""

    @property
    def summary(self) -> str:
        """What the hours are for and how sure they are, after the hours; empty where not known."""
        if self.expected is None or not self.tasks_left:
            return ""
        return (
            f"for {grouped(self.tasks_left)} {inflected(self.tasks_left, 'task')} left to correct; "
            f"{interval(self.expected)}."
        )


def estimate(
    annotations: AnnotationStore, client: LabelStudioClient | None, project: int
) -> HoursLeft | None:
    """Estimate the hours left in a project; None before an annotation with a prediction is timed.

    Label Studio is asked how many tasks are left; without a client, nobody knows.
    """
    times = annotations.newest_times(project, PRELABELLED, MOST_TIMED)
    recent = times[:RECENT]
    if not recent:
        return None
    pace_s = median(each.seconds for each in recent)
    left = None if client is None else _ask(client, project)
    if left is None:
        return HoursLeft(None, len(recent), pace_s)
    expected = at_pace(left.annotations, times)
    return HoursLeft(left.tasks, len(recent), pace_s, expected, left.annotations)


def _ask(client: LabelStudioClient, project: int) -> WorkLeft | None:
    try:
        return count_left(client, client.project(project))
    except (StudioRefused, StudioUnreachable) as error:
        log.warning("The hours left in project %d are not known: %s", project, error)
        return None


def count_left(client: LabelStudioClient, project: ProjectRow) -> WorkLeft:
    """Count what is left to annotate, as Label Studio counts it.

    A project may ask for annotations of several people (``maximum_annotations``), of all of its
    tasks or of a share of them.
    """

    def count(**which: Any) -> int:
        return client.count(project.id, TaskFilter(done=False, **which))

    tasks, skipped = count_tasks(client, project.id)
    begun = count(labeled=True) if tasks else 0
    each = max(project.maximum_annotations or 1, 1)

    made = begun if each > 1 else 0
    for number in range(2, each):
        if not (more := count(min_annotations=number) if begun else 0):
            break
        made += more

    unseen = tasks - begun
    several = _count_of_several(client, project, begun, unseen) if each > 1 else 0
    needed = begun * each - made + unseen + several * (each - 1)
    return WorkLeft(tasks, begun, needed, skipped)


def count_tasks(client: LabelStudioClient, project: int) -> tuple[int, int]:
    """Count the tasks that Label Studio does not take for finished.

    Returns:
        How many are left to annotate, and how many others nobody has annotated and somebody has
        skipped.
    """
    left = client.count(project, TaskFilter(done=False))
    skipped = client.count(project, _SKIPPED) if left else 0
    return left - skipped, skipped


def _count_of_several(
    client: LabelStudioClient, project: ProjectRow, begun: int, unseen: int
) -> int:
    """Count the tasks without an annotation that need those of several people.

    Label Studio has chosen that share of the tasks, and rounds their number as here. Begun ones
    are of them: another one is finished with its first annotation.
    """
    share, all_ = project.overlap_cohort_percentage, project.task_number
    if share is None or share >= 100 or all_ is None or not unseen:
        return unseen
    chosen = int(all_ * share / 100 + 0.5)
    needed = project.maximum_annotations or 1
    ended = client.count(project.id, TaskFilter(done=True, min_annotations=needed))
    return min(max(chosen - begun - ended, 0), unseen)


def at_pace(left: int, times: Sequence[WorkTime]) -> Hours | None:
    """Return the hours that annotations left take at the pace of others.

    None is known of fewer than `LEAST`. An interval takes `LEAST_DAYS`: people, pictures and moods
    differ by day far more than chance within a day, so that the days are what is drawn from.

    Args:
        left: how many annotations are left to make.
        times: the times of annotations, the newest first.

    >>> at_pace(60, [WorkTime(60.0, created=0.0)] * 10)
    Hours(hours=1.0, low=None, high=None, days=1, is_changing=False)
    """
    if len(times) < LEAST:
        return None
    seconds = without_breaks([each.seconds for each in times])
    pace = _DailyPace.of(seconds, np.array([each.created for each in times]))
    per_hour = left / 3600
    if pace.days >= LEAST_DAYS and not pace.is_changing:
        mean_s = float(seconds.mean())
        beside_s = pace.beside_s(left)
        low, high = per_hour * max(0.0, mean_s - beside_s), per_hour * (mean_s + beside_s)
        return Hours(per_hour * mean_s, low, high, pace.days)

    recent = without_breaks([each.seconds for each in times[:RECENT]])
    newer, older = np.split(np.log(recent), [len(recent) // 2])
    error = math.sqrt(newer.var(ddof=1) / len(newer) + older.var(ddof=1) / len(older))
    is_changing = bool(abs(newer.mean() - older.mean()) > _APART * error)
    shown = recent[: len(newer)] if is_changing else recent
    mean_s = float(shown.mean())
    return Hours(per_hour * mean_s, days=pace.days, is_changing=is_changing or pace.is_changing)


@dataclass(frozen=True, eq=False)
class _DailyPace:
    """The mean times of the days with enough annotations, the oldest first."""

    means_s: Float64s  # (d,)
    per_day: float  # annotations of such a day, on average

    @classmethod
    def of(cls, times_s: Float64s, created: Float64s) -> _DailyPace:
        """Take (n,) times, and when the annotations were made, in seconds since the epoch."""
        _, day = np.unique(created // _DAY_S, return_inverse=True)
        counts = np.bincount(day)
        is_enough = counts >= _LEAST_OF_DAY
        means_s = (np.bincount(day, times_s) / counts)[is_enough]
        return cls(means_s, float(counts[is_enough].mean()) if is_enough.any() else 0.0)

    @property
    def days(self) -> int:
        return len(self.means_s)

    @property
    def is_changing(self) -> bool:
        """Whether a line through the logarithms of the means surely rises or falls."""
        if self.days < LEAST_DAYS:
            return False
        days, logarithms = np.arange(self.days), np.log(self.means_s)
        (slope, _), covariance = np.polyfit(days, logarithms, 1, cov=True)
        return bool(abs(slope) > _APART * math.sqrt(max(0.0, covariance[0, 0])))

    def beside_s(self, left: int) -> float:
        """Return by how much the mean of what is left may differ: half of a prediction interval.

        Both the days that were seen and the days to come are draws. Where a day is like the one
        before it, as in blocks of hard pictures, they are worth fewer.
        """
        rest = self.means_s - self.means_s.mean()
        square = float((rest**2).sum())
        like = float((rest[1:] * rest[:-1]).sum()) / square + 1 / self.days if square else 0.0
        like = min(max(like, 0.0), _MOST_LIKE)
        to_come = max(left, 1) / self.per_day
        error = math.sqrt((1 / self.days + 1 / to_come) * (1 + like) / (1 - like))
        quantile = float(stdtrit(self.days - 1, (1 + _CONFIDENCE) / 2))
        return quantile * float(self.means_s.std(ddof=1)) * error


def without_breaks(times_s: Sequence[float]) -> Float64s:
    """Return (n,) times of annotations, cut at a few medians: what is longer was a break."""
    return np.minimum(times_s, break_s(times_s))


def break_s(times_s: Sequence[float] | Float64s) -> float:
    """Return how long an annotation takes at most, in seconds: what is longer was a break."""
    return _BREAK * float(np.median(times_s))


def interval(found: Hours) -> str:
    """Write the interval for people, or why there is none.

    >>> interval(Hours(3, 2.5, 3.5)), interval(Hours(3, is_changing=True))
    ('90 % range: 2.5 h to 3.5 h', 'the pace is changing')
    >>> interval(Hours(0.03, 0.029, 0.031)), interval(Hours(3, days=2))
    ('the days so far hardly differ', 'a range comes after 10 days of work')
    """
    if found.is_changing:
        return "the pace is changing"
    if found.low is None or found.high is None:
        return f"a range comes after {LEAST_DAYS} days of work"
    low, high = hours(found.low), hours(found.high)
    if low == high:
        return "the days so far hardly differ"
    return f"90 % range: {low} to {high}"


def hours(value: float) -> str:
    """Write hours for people.

    >>> hours(0.26), hours(3.14), hours(15.6), hours(1234.4)
    ('16 min', '3.1 h', '16 h', '1234 h')
    """
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:.1f} h" if value < 10 else f"{value:.0f} h"
