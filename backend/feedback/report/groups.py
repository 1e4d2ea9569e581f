"""Sums up annotations: of a period, of a model version, or all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from backend.feedback.report.label_statistics import LabelStatistics
from backend.feedback.sums import GroupSums, LabelSums

Json = dict[str, Any]


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
    def of(cls, sums: GroupSums) -> Seconds:
        """Take the times of running sums."""
        return cls(*sums.medians_s, *sums.measured)

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
        sums: name of a label -> its sums.
        seconds: how long the annotations took.
        kept: the running sums, where the figures are of all labels: they keep what is made of them.
    """

    name: str
    annotations: int
    total: LabelStatistics
    sums: Mapping[str, LabelSums]
    seconds: Seconds
    kept: GroupSums | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, name: str, sums: GroupSums, label: str | None = None) -> Group:
        """Take the figures of running sums.

        Args:
            name: see `Group`.
            sums: over the annotations.
            label: count this label only; by default all labels.
        """
        total, pictures, labels = sums.total, sums.pictures, sums.labels
        if label is not None:
            labels = {label: labels[label]} if label in labels else {}
            total = labels.get(label, LabelSums())
            pictures = total.pictures
        return cls(
            name,
            sums.kinds["compared"],
            replace(LabelStatistics.of_sums(total), pictures=pictures),
            labels,
            Seconds.of(sums),
            sums if label is None else None,
        )

    @cached_property
    def labels(self) -> dict[str, LabelStatistics]:
        """Name of a label -> its statistics; a page of many periods shows their totals alone."""
        return _statistics(self.sums)

    def to_json(self) -> Json:
        """Return the figures as JSON."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.to_json(),
            "labels": _to_json(self.sums) if self.kept is None else self.kept.kept(_labels),
            "seconds": self.seconds.to_json(),
        }


def _statistics(sums: Mapping[str, LabelSums]) -> dict[str, LabelStatistics]:
    """Return the statistics of labels, sorted by name."""
    names = sorted(sums, key=lambda name: (name.casefold(), name))
    return {name: LabelStatistics.of_sums(sums[name]) for name in names}


def _labels(sums: GroupSums) -> Json:
    return _to_json(sums.labels)


def _to_json(sums: Mapping[str, LabelSums]) -> Json:
    return {name: statistics.to_json() for name, statistics in _statistics(sums).items()}
