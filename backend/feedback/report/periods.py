"""Estimate what an annotation takes and what its prediction saved, by day or by week."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Final

import numpy as np
from msgspec import Struct
from scipy.special import stdtrit

from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import PRELABELLED, AnnotationOrigin, ReadAnnotation
from backend.feedback.report.hours_left import without_breaks
from backend.feedback.report.statistics import FEW
from backend.feedback.sums import Step, groups_of, work_px

#: Kinds of annotations that a person has made.
_MADE_BY_HAND: Final[tuple[AnnotationOrigin, ...]] = (*PRELABELLED, "scratch", "foreign", "lost")

_MOST_READ: Final = 3000  # annotations, the newest
_MOST_PERIODS: Final = 12

_CONFIDENCE: Final = 0.9


class Interval(Struct, frozen=True):
    """A mean, and the ends of its 90 % confidence interval."""

    mean: float
    low: float
    high: float


class Period(Struct, frozen=True):
    """What was annotated in a day or a week, in UTC."""

    name: str  # its first day, as in 2026-11-23
    annotations: int  # those that people have made
    days: int  # on which they have made one
    saved_paint: Interval | None  # see `REPORT_DEFINITIONS`; None of fewer than `FEW` annotations
    seconds: Interval | None  # that an annotation with a prediction took


def read_periods(annotations: AnnotationStore, project: int, step: Step) -> tuple[Period, ...]:
    """Return the newest periods of a project in which somebody annotated, the oldest of them first.

    They are estimated from its newest annotations, so that the time does not grow with them.
    """
    reads = annotations.newest_reads(project, _MADE_BY_HAND, _MOST_READ)
    periods = periods_of(reads[::-1], step)
    if len(reads) == _MOST_READ:
        periods = periods[1:]  # annotations of the first one are missing
    return periods[-_MOST_PERIODS:]


def periods_of(reads: Iterable[ReadAnnotation], step: Step) -> tuple[Period, ...]:
    """Group annotations by their periods.

    Args:
        reads: what was read of annotations, the oldest first.
        step: the length of a period.
    """
    grouped = groupby((each for each in reads if each.created), lambda each: _name(each, step))
    return tuple(_period(name, [*members]) for name, members in grouped)


def _name(read: ReadAnnotation, step: Step) -> str:
    return dict(groups_of(read))[step]


def _period(name: str, reads: Sequence[ReadAnnotation]) -> Period:
    days = {datetime.fromtimestamp(each.created, timezone.utc).date() for each in reads}
    times_s = [each.seconds for each in reads if each.kind in PRELABELLED and each.seconds]
    return Period(
        name=name,
        annotations=len(reads),
        days=len(days),
        saved_paint=_saved_paint([each for each in reads if each.kind == "compared"]),
        seconds=mean_interval(without_breaks(times_s).tolist()) if times_s else None,
    )


def _saved_paint(reads: Iterable[ReadAnnotation]) -> Interval | None:
    """Estimate the saved paint from annotations that began with a prediction."""
    corrected = [each.changes for each in reads]
    work = [sum(map(work_px, changes)) for changes in corrected]
    drawn = [sum(each.true_px for each in changes) for changes in corrected]
    share = ratio_interval(work, drawn)
    return None if share is None else Interval(1 - share.mean, 1 - share.high, 1 - share.low)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the mean of values with its interval by Student's t; None of fewer than `FEW`.

    >>> mean_interval([2.0] * 5)
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    return ratio_interval(values, [1.0] * len(values))


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> Interval | None:
    """Return the ratio of two sums with its interval, by Student's t on the residuals.

    The standard error is that of the ratio estimator: Cochran, Sampling Techniques, Eq. 6.13.

    Args:
        parts: the numerator of each annotation, at least 0.
        wholes: the denominator of each annotation, at least 0.

    Returns:
        None of fewer than `FEW` annotations, or where all denominators are 0.
    """
    count, total = len(parts), sum(wholes)
    if count < FEW or not total:
        return None
    ratio = sum(parts) / total
    residuals = np.asarray(parts, float) - ratio * np.asarray(wholes, float)
    error = math.sqrt(count / (count - 1) * float(np.square(residuals).sum())) / total
    beside = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2)) * error
    return Interval(ratio, max(0.0, ratio - beside), ratio + beside)
