"""Estimates how many hours a project still takes at today's pace."""

import logging
import math
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from backend.errors import StudioRefused, StudioUnreachable
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import PRELABELLED
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import ProjectRow
from backend.label_studio.task_filter import TaskFilter

log = logging.getLogger(__name__)

Float64s = npt.NDArray[np.float64]

#: The newest annotations that tell the pace, and how many of them are needed at least.
RECENT: Final = 50
LEAST: Final = 10

_CONFIDENCE: Final = 0.9

_BREAK: Final = 5  # times are cut at this many medians: what is longer was a break

#: Standard errors between the older and the newer half of the times from which on pace has changed.
_APART: Final = 2.5


class Hours(msgspec.Struct, frozen=True):
    """Hours at today's pace, with a prediction interval of the tasks that are left.

    They are the annotations left times the mean time of an annotation. Where the pace has changed,
    that is of the newer half of the annotations, and there is no interval.
    """

    hours: float
    low: float | None = None
    high: float | None = None


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


def estimate(
    annotations: AnnotationStore, client: LabelStudioClient | None, project: int
) -> HoursLeft | None:
    """Estimate the hours left in a project; None before an annotation with a prediction is timed.

    Label Studio is asked how many tasks are left; without a client, nobody knows.
    """
    times_s = annotations.newest_times(project, PRELABELLED, RECENT)
    if not times_s:
        return None
    pace_s = median(times_s)
    left = None if client is None else _ask(client, project)
    if left is None:
        return HoursLeft(None, len(times_s), pace_s)
    expected = at_pace(left.annotations, times_s)
    return HoursLeft(left.tasks, len(times_s), pace_s, expected, left.annotations)


def _ask(client: LabelStudioClient, project: int) -> WorkLeft | None:
    try:
        return count_left(client, client.project(project))
    except (StudioRefused, StudioUnreachable) as error:
        log.warning("The hours left in project %d are not known: %s", project, error)
        return None


def count_left(client: LabelStudioClient, project: ProjectRow) -> WorkLeft:
    """Count what is left to annotate, as Label Studio counts it.

    A project may ask for annotations of several people (``maximum_annotations``). Where it does so
    for a share of its tasks alone, more annotations are counted than are needed.
    """

    def count(**which: Any) -> int:
        return client.count(project.id, TaskFilter(done=False, **which))

    skipped = count(labeled=False, skipped=True)
    tasks = count() - skipped
    begun = count(labeled=True) if tasks else 0
    each = max(project.maximum_annotations or 1, 1)
    made = begun if each > 1 else 0
    for number in range(2, each):
        if not (more := count(min_annotations=number) if begun else 0):
            break
        made += more
    return WorkLeft(tasks, begun, tasks * each - made, skipped)


def at_pace(left: int, times_s: Sequence[float]) -> Hours | None:
    """Return the hours that annotations left take at the pace of others, the newest first.

    Args:
        left: how many annotations are left to make.
        times_s: the times of annotations, the newest first, in seconds.

    None is known of fewer than `LEAST`.

    >>> at_pace(60, [60.0] * 10)
    Hours(hours=1.0, low=1.0, high=1.0)
    """
    count, per_hour = len(times_s), left / 3600
    if count < LEAST:
        return None
    times = without_breaks(times_s)
    newer, older = np.split(np.log(times), [count // 2])
    error = math.sqrt(newer.var(ddof=1) / len(newer) + older.var(ddof=1) / len(older))
    if abs(newer.mean() - older.mean()) > _APART * error:
        return Hours(per_hour * float(times[: len(newer)].mean()))
    mean, spread = float(times.mean()), math.sqrt(1 / count + 1 / max(left, 1))
    beside = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2) * times.std(ddof=1)) * spread
    return Hours(per_hour * mean, per_hour * max(0.0, mean - beside), per_hour * (mean + beside))


def without_breaks(times_s: Sequence[float]) -> Float64s:
    """Return (n,) times of annotations, cut at a few medians: what is longer was a break."""
    return np.minimum(times_s, break_s(times_s))


def break_s(times_s: Sequence[float] | Float64s) -> float:
    """Return how long an annotation takes at most, in seconds: what is longer was a break."""
    return _BREAK * float(np.median(times_s))


def interval(found: Hours) -> str:
    """Write the interval for people.

    >>> interval(Hours(3, 2.5, 3.5)), interval(Hours(3))
    ('90 % range: 2.5 h to 3.5 h', 'the pace is changing')
    """
    if found.low is None or found.high is None:
        return "the pace is changing"
    return f"90 % range: {hours(found.low)} to {hours(found.high)}"


def hours(value: float) -> str:
    """Write hours for people.

    >>> hours(0.26), hours(3.14), hours(15.6), hours(1234.4)
    ('16 min', '3.1 h', '16 h', '1234 h')
    """
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:.1f} h" if value < 10 else f"{value:.0f} h"
