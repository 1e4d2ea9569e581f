"""Sums up what prelabels save in a project: by label, by time and by model version, with advice.

The figures come from annotations that `backend.feedback.annotation_reader` has read.
`backend.feedback.report.definitions` defines each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, get_args

import msgspec

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.definitions import FEW, REPORT_DEFINITIONS
from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.report.safe_scores import SafeScore, safe_scores
from backend.feedback.sums import SUMMED, GroupSums, LabelSums, ProjectSums, Step
from clearclip_core.quantities import quantity


@dataclass(frozen=True)
class LabelStatistics:
    """Sums over the differences of a label, or of all labels, on images.

    Attributes:
        pictures: images where the label was predicted or is annotated.
        corrected: predicted regions that cover other pixels now.
        relabelled: name of another label -> predicted regions that have that label now.
        added: regions that the annotator drew.
        received: regions that were predicted with another label.
        true_px: pixels of the annotations.
        mean_iou: mean over `pictures`, in [0, 1]; None where there is none.
        mean_boundary_iou: mean over images with a boundary, in [0, 1]; None without any.

    >>> diff = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
    >>> made = LabelStatistics.of([diff])
    >>> made.saved_paint, made.accepted_share, made.mean_iou
    (0.4, 0.0, 0.5)
    """

    pictures: int = 0
    accepted: int = 0
    corrected: int = 0
    deleted: int = 0
    relabelled: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    received: int = 0
    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    mean_iou: float | None = None
    mean_boundary_iou: float | None = None

    @classmethod
    def of(cls, changes: Iterable[LabelDiff]) -> LabelStatistics:
        """Sum up differences."""
        sums = LabelSums()
        for change in changes:
            sums.add(change)
        return cls.of_sums(sums)

    @classmethod
    def of_sums(cls, sums: LabelSums) -> LabelStatistics:
        """Take the figures of running sums; the most frequent other label comes first."""
        relabelled: Sequence[tuple[str, int]] = ()
        if sums.relabelled:
            relabelled = sorted(sums.relabelled.items(), key=lambda each: (-each[1], each[0]))
        return cls(
            pictures=sums.pictures,
            relabelled=dict(relabelled),
            mean_iou=sums.mean_iou,
            mean_boundary_iou=sums.mean_boundary_iou,
            **dict(zip(SUMMED, sums.counts, strict=True)),
        )

    @property
    def prelabels(self) -> int:
        """Predicted regions."""
        return self.accepted + self.corrected + self.false

    @property
    def false(self) -> int:
        """Predicted regions that were deleted or given another label."""
        return self.deleted + sum(self.relabelled.values())

    @property
    def missed(self) -> int:
        """Regions that were drawn by hand, or given this label in place of another."""
        return self.added + self.received

    @property
    def accepted_share(self) -> float | None:
        """Share of the predicted regions that were accepted; None where none was predicted."""
        return self.accepted / self.prelabels if self.prelabels else None

    @property
    def saved_paint(self) -> float | None:
        """Saved paint, at most 1, see `REPORT_DEFINITIONS`; None where no pixel is annotated."""
        wrong = self.predicted_px + self.true_px - 2 * self.shared_px
        return 1 - wrong / self.true_px if self.true_px else None

    @property
    def harms(self) -> bool:
        """Whether the predictions make more work than drawing from nothing."""
        return self.predicted_px - self.shared_px > self.shared_px

    @property
    def misses(self) -> bool:
        """Whether the predictions do no harm, but lack most of the annotated pixels."""
        return not self.harms and 2 * self.shared_px < self.true_px

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON; shares to six digits."""
        return {
            "pictures": self.pictures,
            "prelabels": self.prelabels,
            "accepted": self.accepted,
            "corrected": self.corrected,
            "deleted": self.deleted,
            "relabelled": dict(self.relabelled),
            "added": self.added,
            "received": self.received,
            "false": self.false,
            "missed": self.missed,
            "accepted_share": _round(self.accepted_share),
            "mean_iou": _round(self.mean_iou),
            "mean_boundary_iou": _round(self.mean_boundary_iou),
            "saved_paint": _round(self.saved_paint),
            "harms": self.harms,
            "predicted_px": self.predicted_px,
            "true_px": self.true_px,
            "shared_px": self.shared_px,
        }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


class Seconds(msgspec.Struct, frozen=True):
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


@dataclass(frozen=True)
class Group:
    """The statistics of some annotations.

    Attributes:
        name: the first day of a period, or a model version.
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

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.to_json(),
            "labels": _to_json(self.sums) if self.kept is None else self.kept.kept(_labels),
            "seconds": msgspec.to_builtins(self.seconds),
        }


def _statistics(sums: Mapping[str, LabelSums]) -> dict[str, LabelStatistics]:
    """Return the statistics of labels, sorted by name."""
    names = sorted(sums, key=lambda name: (name.casefold(), name))
    return {name: LabelStatistics.of_sums(sums[name]) for name in names}


def _labels(sums: GroupSums) -> dict[str, Any]:
    return _to_json(sums.labels)


def _to_json(sums: Mapping[str, LabelSums]) -> dict[str, Any]:
    return {name: statistics.to_json() for name, statistics in _statistics(sums).items()}


@dataclass(frozen=True)
class RecentLabel:
    """The figures of a label under the newest model versions, which advice is about.

    What an earlier version got wrong may be solved: by what was learned, or by other words.

    Attributes:
        figures: of the newest versions that together have `FEW` pictures of the label, or of all.
        since: the oldest of these versions; empty where no version is left out.
    """

    figures: LabelStatistics
    since: str = ""


def recent_labels(
    versions: Mapping[str, GroupSums], newest_first: Sequence[str]
) -> dict[str, RecentLabel]:
    """Return the recent figures of each label, sorted by name.

    Args:
        versions: model version -> sums over the annotations that began with it.
        newest_first: the model versions, the one seen last first.
    """
    by_label: dict[str, list[tuple[str, LabelSums]]] = {}
    for version in newest_first:
        for label, sums in versions[version].labels.items():
            by_label.setdefault(label, []).append((version, sums))
    return {
        label: _recent(by_label[label])
        for label in sorted(by_label, key=lambda name: (name.casefold(), name))
    }


def _recent(newest_first: Sequence[tuple[str, LabelSums]]) -> RecentLabel:
    recent = LabelSums()
    for number, (version, sums) in enumerate(newest_first, start=1):
        recent.add_all(sums)
        if recent.pictures >= FEW and number < len(newest_first):
            return RecentLabel(LabelStatistics.of_sums(recent), since=version)
    return RecentLabel(LabelStatistics.of_sums(recent))


def harm(label: RecentLabel) -> str:
    """Return advice on a label whose predictions make more work than none."""
    return advice(label.figures) + _condition(label)


def lack(label: RecentLabel) -> str:
    """Return advice on a label whose predictions lack most of the annotated pixels."""
    made = label.figures
    return (
        f"{round(100 * (1 - made.shared_px / made.true_px))} % of its pixels were "
        "painted by hand: add words for it to its predicted_values. What was painted "
        f"teaches the project's next version, where that is on.{_few(made)}{_condition(label)}"
    )


def _condition(label: RecentLabel) -> str:
    if not label.since:
        return ""
    return f" Counted are the last {label.figures.pictures} pictures, since {label.since}."


def advice(statistics: LabelStatistics) -> str:
    """Return advice on a label whose predictions make more work than none.

    >>> made = LabelStatistics(pictures=9, relabelled={"dog": 7}, corrected=2, predicted_px=5)
    >>> print(advice(made))
    7 of its 9 regions became "dog": give the two labels predicted_values that tell them apart.
    """
    few = _few(statistics)
    prelabels = statistics.prelabels
    if 2 * sum(statistics.relabelled.values()) >= prelabels > 0:
        name, count = next(iter(statistics.relabelled.items()))
        return (
            f'{count} of its {quantity(prelabels, "region")} became "{name}": give the two labels '
            f"predicted_values that tell them apart.{few}"
        )
    if 2 * statistics.deleted >= prelabels > 0:
        return (
            f"Deleted: {statistics.deleted} of its {quantity(prelabels, 'region')}. Raise its "
            "model_score_threshold, or leave the label out of the predictions with "
            f'model_score_threshold="1".{few}'
        )
    wrong = round(100 * (1 - statistics.shared_px / statistics.predicted_px)) if prelabels else 0
    return (
        f"{wrong} % of its predicted pixels were erased: raise its model_score_threshold, or add "
        f"words for it to its predicted_values.{few}"
    )


def _few(statistics: LabelStatistics) -> str:
    return (
        f" So far: {quantity(statistics.pictures, 'picture')} only."
        if statistics.pictures < FEW
        else ""
    )


_T = TypeVar("_T")


@dataclass(frozen=True)
class PrelabelReport:
    """The report on the prelabels of a project.

    Attributes:
        kinds: kind -> number of annotations.
        all: the statistics of all annotations.
        periods: by the day or week (from Monday, UTC) in which annotations were submitted.
        versions: by model version, in the order in which they were first seen.
        last_seen: model version -> when the last annotation that began with it was made, in seconds
            since the epoch; the version seen last comes last.
        recent: name of a label -> its figures under the newest model versions.
        safe_scores: name of a label -> the score from which on its masks needed no change.
        broken: id of an annotation that could not be read -> the reason.
        waiting: how many annotations are still to be read.
        hours_left: the hours left in the project; None where nobody has asked, or nothing is known.
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
    safe_scores: Mapping[str, SafeScore] = field(default_factory=dict)
    broken: Mapping[int, str] = field(default_factory=dict)
    waiting: int = 0
    hours_left: HoursLeft | None = None
    label: str | None = None

    @property
    def harmful(self) -> dict[str, str]:
        """Name of a label whose newest predictions make more work than none -> advice."""
        return {name: harm(each) for name, each in self.recent.items() if each.figures.harms}

    @property
    def missing(self) -> dict[str, str]:
        """Name of a label whose newest predictions do no harm, but lack most pixels -> advice."""
        return {name: lack(each) for name, each in self.recent.items() if each.figures.misses}

    def to_json(self) -> dict[str, Any]:
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
            "safe_scores": {label: each.to_json() for label, each in self.safe_scores.items()},
            "hours_left": msgspec.to_builtins(self.hours_left),
            "broken": {str(annotation): why for annotation, why in self.broken.items()},
            "definitions": dict(REPORT_DEFINITIONS),
        }


def project_statistics(
    project: int,
    reads: Iterable[ReadAnnotation],
    *,
    waiting: int = 0,
    step: Step | None = None,
    label: str | None = None,
) -> PrelabelReport:
    """Make the report of what was read of a project's annotations.

    Args:
        reads: in whatever order; none of them is kept in memory.
        waiting: how many annotations are still to be read.
        step: the length of a period; by default a day, or a week where annotations span more than
            three weeks.
        label: count this label only; by default all labels.
    """
    return make_report(project, ProjectSums.of(reads, step), waiting=waiting, label=label)


def make_report(
    project: int, sums: ProjectSums, *, waiting: int = 0, label: str | None = None
) -> PrelabelReport:
    """Make the report of the sums of a project.

    Args:
        sums: over its annotations.
        waiting: how many annotations are still to be read.
        label: count this label only; by default all labels.
    """
    newest_first = [*sums.last_seen][::-1]
    return PrelabelReport(
        project=project,
        kinds={kind: sums.all.kinds[kind] for kind in get_args(AnnotationOrigin)},
        all=Group.of("all", sums.all, label),
        periods=tuple(Group.of(start, each, label) for start, each in sums.periods.items()),
        step=sums.step,
        versions=tuple(Group.of(name, each, label) for name, each in sums.versions.items()),
        last_seen=sums.last_seen,
        recent=_of_label(recent_labels(sums.versions, newest_first), label),
        safe_scores=_of_label(safe_scores(sums.versions, newest_first), label),
        broken=sums.broken,
        waiting=waiting,
        label=label,
    )


def _of_label(found: Mapping[str, _T], label: str | None) -> dict[str, _T]:
    return {name: each for name, each in found.items() if label in (None, name)}
