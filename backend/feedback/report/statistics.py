"""Reports what prelabels save in a project, with advice on labels, and defines each figure.

The figures come from annotations that `backend.feedback.annotation_reader` has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from backend.feedback.annotation_table import AnnotationOrigin
from backend.feedback.experiment import Experiment
from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.sums import GroupSums, LabelSums, ProjectSums, by_name
from clearclip_core.quantities import quantity

FEW: Final = 5  # images of a label below which its figures say little

#: Model versions that pages and terminals show, the newest; files have all.
_MOST_SHOWN_VERSIONS: Final = 50

REPORT_DEFINITIONS: Final[Mapping[str, str]] = {
    "compared": "Annotations that began with a prediction of this backend. Each counts by itself, "
    "also where a task has several. Where the prediction has been deleted since, they keep the "
    "figures that they had then.",
    "pictures": "Pictures of compared annotations in which the label was predicted or is "
    "annotated; in a line of all labels, in which any label was or is. Each counts once for each "
    "annotation.",
    "accepted": "Share of the predicted regions that were submitted with the pixels and the label "
    "that they had.",
    "mean IoU": "Intersection over union of what was predicted and what was left, of all pixels of "
    "a label in a picture together, whichever regions they are of; mean over these pictures. A "
    "line of all labels is the mean over all pairs of a label and a picture. It judges the "
    "predictions that annotators were shown, of whatever model version. What a project has "
    "learned is judged on other pictures, on the learning page.",
    "saved paint": "1 - (pixels painted + pixels erased) / pixels of the label in the annotations, "
    "over all pictures: 100 % where nothing was left to do, 0 where drawing it from nothing had "
    "been as much, below 0 where the prediction made more work than none. What was painted again "
    "in place of a deleted region counts as painted.",
    "false": "Predicted regions that were deleted or given another label.",
    "missed": "Regions that the annotator drew, or gave this label in place of another.",
    "seconds": "Median of the time that Label Studio has measured for an annotation (lead_time), "
    "of the last 50 that began with a prediction.",
}

#: The kinds of annotations in words, as the end of a sentence.
ORIGINS_IN_WORDS: Final[Mapping[AnnotationOrigin, str]] = {
    "compared": "began with a prediction of this backend",
    "unchecked": "were submitted unchanged in less than 5 s",
    "scratch": "began from nothing",
    "copy": "are copies of another annotation",
    "converted": "are predictions that were made annotations as they are",
    "reviewed": "were accepted as predicted on the review page",
    "repaired": "were repaired on the review page, where the rest was accepted",
    "foreign": "began with a prediction of another model",
    "lost": "began with a prediction that has been deleted",
    "skipped": "were skipped",
    "broken": "could not be read",
}


@dataclass(frozen=True)
class PrelabelReport:
    """The report on the prelabels of a project."""

    project: int
    sums: ProjectSums
    waiting: int = 0  # annotations that are still to be read
    hours_left: HoursLeft | None = None  # None: not asked for, or not known
    experiment: Experiment | None = None  # the newest one; None where there was none

    @property
    def kinds(self) -> dict[AnnotationOrigin, int]:
        return {kind: self.sums.all.kinds.get(kind, 0) for kind in ORIGINS_IN_WORDS}

    @property
    def newest_versions(self) -> dict[str, GroupSums]:
        """The sums of the newest model versions, the one seen last comes last."""
        return dict([*self.sums.versions.items()][-_MOST_SHOWN_VERSIONS:])

    @cached_property
    def _recent(self) -> dict[str, LabelSums]:
        return recent_labels(self.sums.versions)

    @property
    def harmful(self) -> dict[str, Advice]:
        """Name of a label whose newest predictions make more work than none -> advice."""
        return {name: harm(sums) for name, sums in self._recent.items() if is_alarm(sums)}

    @property
    def missing(self) -> dict[str, Advice]:
        """Name of a label whose newest predictions do no harm, but lack most pixels -> advice."""
        many = {name: sums for name, sums in self._recent.items() if sums.pictures >= FEW}
        return {name: lack(sums) for name, sums in many.items() if sums.misses}

    def figures(self) -> dict[str, Any]:
        """Return the report as JSON, with the definitions."""
        sums = self.sums
        return {
            "project": self.project,
            "annotations": self.kinds,
            "waiting": self.waiting,
            "all": sums.all.figures(),
            "step": sums.step,
            "periods": [{"name": name} | each.figures() for name, each in sums.periods.items()],
            "versions": [{"name": name} | each.figures() for name, each in sums.versions.items()],
            "harmful": {name: str(advice) for name, advice in self.harmful.items()},
            "missing": {name: str(advice) for name, advice in self.missing.items()},
            "hours_left": msgspec.to_builtins(self.hours_left),
            "experiment": msgspec.to_builtins(self.experiment),
            "broken": {str(annotation): why for annotation, why in sums.broken.items()},
            "definitions": dict(REPORT_DEFINITIONS),
        }


def recent_labels(versions: Mapping[str, GroupSums]) -> dict[str, LabelSums]:
    """Add up each label under the newest model versions that have `FEW` pictures of it, or all.

    Errors of an earlier version may be gone: by corrections it has learned from, or by other words.
    """
    recent: dict[str, LabelSums] = {}
    for group in [*versions.values()][::-1]:
        for label, sums in group.labels.items():
            its = recent.setdefault(label, LabelSums())
            if its.pictures < FEW:
                its.add_all(sums)
    return by_name(recent)


@dataclass(frozen=True)
class Advice:
    """What is wrong with a label's predictions, and what to do about it."""

    fact: str  # without a full stop
    remedy: str  # a sentence, equal for all labels with the same trouble

    def __str__(self) -> str:
        return f"{self.fact}. {self.remedy}"


def by_remedy(advice: Mapping[str, Advice]) -> dict[str, dict[str, str]]:
    """Group advice on labels: remedy -> name of a label -> fact.

    >>> by_remedy({"car": Advice("3 of 4", "Add words."), "dog": Advice("2 of 5", "Add words.")})
    {'Add words.': {'car': '3 of 4', 'dog': '2 of 5'}}
    """
    groups: dict[str, dict[str, str]] = {}
    for label, each in advice.items():
        groups.setdefault(each.remedy, {})[label] = each.fact
    return groups


def is_alarm(sums: LabelSums) -> bool:
    """Whether predictions do harm, on as many pictures as it takes to say so."""
    return sums.pictures >= FEW and sums.harms


def harm(sums: LabelSums) -> Advice:
    """Return advice on a label whose predictions make more work than none.

    >>> made = LabelSums(pictures=9, relabelled={"dog": 7}, corrected=2, predicted_px=5)
    >>> print(harm(made))
    7 of its 9 regions became "dog". Give the two labels predicted_values that tell them apart.
    """
    prelabels = sums.prelabels
    if 2 * sum(sums.relabelled.values()) >= prelabels > 0:
        name, count = min(sums.relabelled.items(), key=lambda each: (-each[1], each[0]))
        return Advice(
            f'{count} of its {quantity(prelabels, "region")} became "{name}"',
            "Give the two labels predicted_values that tell them apart.",
        )

    if 2 * sums.deleted >= prelabels > 0:
        return Advice(
            f"{sums.deleted} of its {quantity(prelabels, 'region')} were deleted, with a mean IoU "
            f"of {in_percent(sums.mean_iou)}",
            "Raise its model_score_threshold, or leave the label out of the predictions with "
            'model_score_threshold="1".',
        )

    wrong = round(100 * (1 - sums.shared_px / sums.predicted_px)) if prelabels else 0
    return Advice(
        f"{wrong} % of its predicted pixels were erased",
        "Raise its model_score_threshold, or add words for it to its predicted_values.",
    )


def lack(sums: LabelSums) -> Advice:
    """Return advice on a label whose predictions lack most of the annotated pixels."""
    share = round(100 * (1 - sums.shared_px / sums.true_px))
    return Advice(
        f"{share} % of its pixels were painted by hand",
        "Add words for it to its predicted_values. What was painted teaches the project's next "
        "version, where that is on.",
    )


def in_percent(value: float | None) -> str:
    """Write a share or an IoU in percent, as all pages and terminals do; a dash for None.

    A share below 1 is never written as 100 %.

    >>> in_percent(0.9996), in_percent(1.0), in_percent(-0.255), in_percent(None)
    ('99.9 %', '100.0 %', '-25.5 %', '–')
    """
    if value is None:
        return "–"
    shown = round(100 * value, 1) + 0.0  # no -0
    if value < 1:
        shown = min(shown, 99.9)
    return f"{shown:.1f} %"
