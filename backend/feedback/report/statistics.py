"""Sums up what prelabels save in a project: by label, by time and by model version.

The figures come from annotations that `backend.feedback.annotation_reader` has read.
`backend.feedback.report.definitions` defines each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from backend.feedback.read_annotation import AnnotationOrigin, ReadAnnotation
from backend.feedback.report.advice import RecentLabel, harm, lack, recent_labels
from backend.feedback.report.definitions import DEFINITIONS
from backend.feedback.report.groups import Group
from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.report.safe_scores import SafeScore, safe_scores
from backend.feedback.sums import ProjectSums, Step

Json = dict[str, Any]
T = TypeVar("T")


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
            "safe_scores": {label: each.to_json() for label, each in self.safe_scores.items()},
            "hours_left": None if self.hours_left is None else self.hours_left.to_json(),
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
        reads: in whatever order; none of them is kept in memory.
        waiting: how many annotations are still to be read.
        step: the length of a period; by default a day, or a week where annotations span more than
            three weeks.
        label: count this label only; by default all labels.

    Raises:
        ValueError: `step` is neither day nor week.
    """
    return make_report(project, ProjectSums.of(reads, step), waiting=waiting, label=label)


def make_report(
    project: int, sums: ProjectSums, *, waiting: int = 0, label: str | None = None
) -> PrelabelReport:
    """Make the report of the sums of a project.

    Args:
        project: its id.
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


def _of_label(found: Mapping[str, T], label: str | None) -> dict[str, T]:
    return {name: each for name, each in found.items() if label in (None, name)}
