"""Sums up what prelabels save in a project: by label, by time and by model version, with advice.

The figures come from annotations that `backend.feedback.annotation_reader` has read.
`backend.feedback.report.definitions` defines each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

import msgspec

from backend.feedback.annotation_table import AnnotationOrigin
from backend.feedback.report.definitions import FEW, REPORT_DEFINITIONS
from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.report.safe_scores import SafeScore, safe_scores
from backend.feedback.sums import GroupSums, LabelSums, ProjectSums, Seconds, Step
from clearclip_core.quantities import quantity

_T = TypeVar("_T")


@dataclass(frozen=True)
class Group:
    """The figures of some annotations.

    Attributes:
        name: the first day of a period, or a model version.
        annotations: the number of annotations that were compared with a prediction.
        labels: name of a label -> its figures, sorted by name.
    """

    name: str
    annotations: int
    total: LabelSums
    labels: Mapping[str, LabelSums]
    seconds: Seconds

    @classmethod
    def of(cls, name: str, sums: GroupSums, label: str | None = None) -> Group:
        """Take the figures of running sums, of one label or of all."""
        labels = _by_name(sums.labels)
        if label is None:
            return cls(name, sums.compared, sums.total, labels, sums.seconds)
        total = labels.get(label, LabelSums())
        own = {label: total} if label in labels else {}
        return cls(name, sums.compared, total, own, sums.seconds)

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.figures(),
            "labels": {label: sums.figures() for label, sums in self.labels.items()},
            "seconds": msgspec.to_builtins(self.seconds),
        }


def _by_name(labels: Mapping[str, _T]) -> dict[str, _T]:
    return {name: labels[name] for name in sorted(labels, key=lambda name: (name.casefold(), name))}


@dataclass(frozen=True)
class RecentLabel:
    """The figures of a label under the newest model versions, which advice is about.

    What an earlier version got wrong may be solved: by what was learned, or by other words.

    Attributes:
        figures: of the newest versions that together have `FEW` pictures of the label, or of all.
        since: the oldest of these versions; empty where no version is left out.
    """

    figures: LabelSums
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
    return {label: _recent(its) for label, its in _by_name(by_label).items()}


def _recent(newest_first: Sequence[tuple[str, LabelSums]]) -> RecentLabel:
    recent = LabelSums()
    for number, (version, sums) in enumerate(newest_first, start=1):
        recent.add_all(sums)
        if recent.pictures >= FEW and number < len(newest_first):
            return RecentLabel(recent, since=version)
    return RecentLabel(recent)


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


def advice(statistics: LabelSums) -> str:
    """Return advice on a label whose predictions make more work than none.

    >>> made = LabelSums(pictures=9, relabelled={"dog": 7}, corrected=2, predicted_px=5)
    >>> print(advice(made))
    7 of its 9 regions became "dog": give the two labels predicted_values that tell them apart.
    """
    few = _few(statistics)
    prelabels = statistics.prelabels
    if 2 * sum(statistics.relabelled.values()) >= prelabels > 0:
        name, count = min(statistics.relabelled.items(), key=lambda each: (-each[1], each[0]))
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


def _few(statistics: LabelSums) -> str:
    return (
        f" So far: {quantity(statistics.pictures, 'picture')} only."
        if statistics.pictures < FEW
        else ""
    )


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

    def figures(self) -> dict[str, Any]:
        """Return the report as JSON, with the definitions."""
        return {
            "project": self.project,
            "label": self.label,
            "annotations": dict(self.kinds),
            "waiting": self.waiting,
            "all": self.all.figures(),
            "step": self.step,
            "periods": [group.figures() for group in self.periods],
            "versions": [group.figures() for group in self.versions],
            "harmful": self.harmful,
            "missing": self.missing,
            "safe_scores": {label: each.figures() for label, each in self.safe_scores.items()},
            "hours_left": msgspec.to_builtins(self.hours_left),
            "broken": {str(annotation): why for annotation, why in self.broken.items()},
            "definitions": dict(REPORT_DEFINITIONS),
        }


def make_report(
    project: int, sums: ProjectSums, *, waiting: int = 0, label: str | None = None
) -> PrelabelReport:
    """Make the report of the sums of a project.

    Args:
        sums: over its annotations.
        label: count this label only; by default all labels.
    """
    newest_first = [*sums.last_seen][::-1]
    return PrelabelReport(
        project=project,
        kinds={kind: sums.all.kinds.get(kind, 0) for kind in get_args(AnnotationOrigin)},
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
