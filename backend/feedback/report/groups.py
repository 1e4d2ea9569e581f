"""Sums up annotations: of a period, of a model version, or all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from backend.feedback.annotation_store import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.label_statistics import LabelStatistics, LabelSums

Json = dict[str, Any]


@dataclass
class DaySums:
    """Running sums of the annotations of one day and one model version."""

    compared: int = 0
    pictures: int = 0
    labels: defaultdict[str, LabelSums] = field(default_factory=lambda: defaultdict(LabelSums))
    with_prelabel: list[float] = field(default_factory=list)
    without_prelabel: list[float] = field(default_factory=list)

    def add(self, read: ReadAnnotation, label: str | None) -> None:
        if read.kind == "compared":
            self.compared += 1
        changes = [change for change in read.changes if label in (None, change.label)]
        for change in changes:
            self.labels[change.label].add(change)
        self.pictures += _count_pictures(changes)
        times = {"compared": self.with_prelabel, "scratch": self.without_prelabel}
        if read.kind in times and read.seconds is not None and read.seconds > 0:
            times[read.kind].append(read.seconds)


@dataclass(frozen=True)
class Seconds:
    """How long annotations took, in seconds.

    Attributes:
        with_prelabel: median of those that began with a prediction; None where none was measured.
        without_prelabel: median of those that began from nothing; None where none was measured.
        n_with: annotations with a prediction that were measured.
        n_without: annotations from nothing that were measured.
    """

    with_prelabel: float | None = None
    without_prelabel: float | None = None
    n_with: int = 0
    n_without: int = 0

    @classmethod
    def of(cls, with_: Sequence[float], without: Sequence[float]) -> Seconds:
        """Take the medians of times with and without a prediction, in seconds."""
        return cls(
            median(with_) if with_ else None,
            median(without) if without else None,
            len(with_),
            len(without),
        )

    def to_json(self) -> Json:
        """Return the figures as JSON."""
        return {
            "with_prelabel": self.with_prelabel,
            "without_prelabel": self.without_prelabel,
            "n_with": self.n_with,
            "n_without": self.n_without,
        }


@dataclass(frozen=True)
class Group:
    """The statistics of some annotations.

    Attributes:
        name: the first day of a period, or a model version.
        annotations: how many were compared with a prediction.
        total: the statistics of all labels together.
        labels: name of a label -> its statistics.
        seconds: how long the annotations took.
    """

    name: str
    annotations: int
    total: LabelStatistics
    labels: Mapping[str, LabelStatistics]
    seconds: Seconds

    @classmethod
    def of(cls, name: str, all_sums: Iterable[DaySums]) -> Group:
        """Add up running sums."""
        whole, total = DaySums(), LabelSums()
        for day in all_sums:
            whole.compared += day.compared
            whole.pictures += day.pictures
            whole.with_prelabel += day.with_prelabel
            whole.without_prelabel += day.without_prelabel
            for label, sums in day.labels.items():
                whole.labels[label].add_all(sums)
                total.add_all(sums)
        return cls(
            name,
            whole.compared,
            replace(total.statistics(), pictures=whole.pictures),
            {
                name: whole.labels[name].statistics()
                for name in sorted(whole.labels, key=str.casefold)
            },
            Seconds.of(whole.with_prelabel, whole.without_prelabel),
        )

    def to_json(self) -> Json:
        """Return the figures as JSON."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.to_json(),
            "labels": {label: statistics.to_json() for label, statistics in self.labels.items()},
            "seconds": self.seconds.to_json(),
        }


def _count_pictures(changes: Sequence[LabelDiff]) -> int:
    """Count the images of an annotation's differences, without those that nothing covers.

    Differences of before images were numbered all have number 0: of these, the label that occurs
    most often tells how many images there are at least.

    >>> _count_pictures([LabelDiff("car", true_px=1), LabelDiff("dog", true_px=1)])
    1
    >>> _count_pictures([LabelDiff("car", true_px=1), LabelDiff("dog", true_px=1, image=1)])
    2
    """
    covered = [change for change in changes if change.iou is not None]
    labels = Counter(change.label for change in covered)
    return max(len({change.image for change in covered}), *labels.values(), 0)


def group_by_name(all_sums: Iterable[tuple[str, DaySums]]) -> tuple[Group, ...]:
    """Group running sums by their names, in the order in which these are first seen."""
    found: dict[str, list[DaySums]] = {}
    for name, sums in all_sums:
        found.setdefault(name, []).append(sums)
    return tuple(Group.of(name, some) for name, some in found.items())
