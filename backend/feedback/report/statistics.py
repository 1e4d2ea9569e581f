"""Sums up what prelabels save in a project: by label, by time and by model version.

The figures come from annotations that `backend.feedback.annotation_reader` has read.
`backend.feedback.report.definitions` defines each of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, Literal, get_args

from backend.feedback.annotation_store import AnnotationOrigin, ReadAnnotation
from backend.feedback.report.advice import RecentLabel, harm, lack, recent_labels
from backend.feedback.report.definitions import DEFINITIONS
from backend.feedback.report.groups import DaySums, Group, group_by_name

Step = Literal["day", "week"]

#: Days from the first to the last annotation that are shown one by one; longer spans in weeks.
_DAYS_SHOWN: Final = 21

Json = dict[str, Any]


@dataclass(frozen=True)
class PrelabelReport:
    """The report on the prelabels of a project.

    Attributes:
        project: its id.
        kinds: kind -> number of annotations.
        all: the statistics of all annotations.
        periods: by the day or week (from Monday, UTC) in which annotations were submitted.
        step: the length of a period.
        versions: by model version, in the order in which they were first seen.
        last_seen: model version -> when the last annotation that began with it was made, in seconds
            since the epoch; the version seen last comes last.
        recent: name of a label -> its figures under the newest model versions.
        broken: id of an annotation that could not be read -> the reason.
        waiting: how many annotations are still to be read.
        label: the only label of the figures; None for all labels.
    """

    project: int
    kinds: Mapping[AnnotationOrigin, int]
    all: Group
    periods: tuple[Group, ...]
    step: Step
    versions: tuple[Group, ...]
    last_seen: Mapping[str, float] = field(default_factory=dict)
    recent: Mapping[str, RecentLabel] = field(default_factory=dict)
    broken: Mapping[int, str] = field(default_factory=dict)
    waiting: int = 0
    label: str | None = None

    @property
    def harmful(self) -> dict[str, str]:
        """Name of a label whose newest predictions make more work than none -> advice."""
        return {name: harm(each) for name, each in self.recent.items() if each.figures.harms}

    @property
    def missing(self) -> dict[str, str]:
        """Name of a label whose newest predictions do no harm, but lack most pixels -> advice."""
        return {name: lack(each) for name, each in self.recent.items() if each.figures.misses}

    def to_json(self) -> Json:
        """Return the report as JSON, with the definitions."""
        return {
            "project": self.project,
            "label": self.label,
            "annotations": dict(self.kinds),
            "waiting": self.waiting,
            "all": self.all.to_json(),
            "step": self.step,
            "periods": [group.to_json() for group in self.periods],
            "versions": [group.to_json() for group in self.versions],
            "harmful": self.harmful,
            "missing": self.missing,
            "broken": {str(annotation): why for annotation, why in self.broken.items()},
            "definitions": dict(DEFINITIONS),
        }


def measure(
    project: int,
    reads: Iterable[ReadAnnotation],
    *,
    waiting: int = 0,
    step: Step | None = None,
    label: str | None = None,
) -> PrelabelReport:
    """Make the report of what was read of a project's annotations.

    Args:
        project: its id.
        reads: in the order in which the annotations were made; none of them is kept in memory.
        waiting: how many annotations are still to be read.
        step: the length of a period; by default a day, or a week where annotations span more than
            three weeks.
        label: count this label only; by default all labels.

    Raises:
        ValueError: `step` is neither day nor week.
    """
    if step is not None and step not in get_args(Step):
        raise ValueError(f"Expected argument `step` to be day or week, but got {step!r}.")
    kinds: Counter[AnnotationOrigin] = Counter()
    broken = {}
    last_seen: dict[str, float] = {}
    all_sums: defaultdict[tuple[date, str | None], DaySums] = defaultdict(DaySums)
    for read in reads:
        kinds[read.kind] += 1
        if read.kind == "broken":
            broken[read.annotation] = read.reason
        if read.kind != "skipped":
            version = read.version if read.kind == "compared" else None
            all_sums[_day(read), version].add(read, label)
            if version is not None:
                last_seen.pop(version, None)
                last_seen[version] = read.created
    chosen = step or _step([day for day, _ in all_sums])
    days = ((_start(day, chosen).isoformat(), each) for (day, _), each in all_sums.items())
    versions = [(name, each) for (_, name), each in all_sums.items() if name is not None]
    return PrelabelReport(
        project=project,
        kinds={kind: kinds[kind] for kind in get_args(AnnotationOrigin)},
        all=Group.of("all", all_sums.values()),
        periods=group_by_name(days),
        step=chosen,
        versions=group_by_name(versions),
        last_seen=last_seen,
        recent=recent_labels(versions, newest_first=[*reversed(last_seen)]),
        broken=broken,
        waiting=waiting,
        label=label,
    )


def _day(read: ReadAnnotation) -> date:
    return datetime.fromtimestamp(read.created, timezone.utc).date()


def _step(days: Sequence[date]) -> Step:
    return "week" if days and max(days) - min(days) > timedelta(_DAYS_SHOWN) else "day"


def _start(day: date, step: Step) -> date:
    """Return the first day of the period that a day is in.

    >>> _start(date(2026, 11, 25), "week").isoformat()
    '2026-11-23'
    """
    return day if step == "day" else day - timedelta(day.weekday())
