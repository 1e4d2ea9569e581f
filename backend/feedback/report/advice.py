"""Advises on labels whose predictions cost more than they save, or miss most of what is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backend.feedback.report.definitions import FEW
from backend.feedback.report.groups import DaySums
from backend.feedback.report.label_statistics import LabelStatistics, LabelSums


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
    versions: Iterable[tuple[str, DaySums]], newest_first: Sequence[str]
) -> dict[str, RecentLabel]:
    """Return the recent figures of each label, sorted by name.

    Args:
        versions: model versions, each with running sums of some of its annotations.
        newest_first: the model versions, the one seen last first.
    """
    by_label: dict[str, dict[str, LabelSums]] = {}
    for version, sums in versions:
        for label, each in sums.labels.items():
            by_label.setdefault(label, {}).setdefault(version, LabelSums()).add_all(each)
    return {
        label: _recent(by_label[label], newest_first)
        for label in sorted(by_label, key=str.casefold)
    }


def _recent(by_version: dict[str, LabelSums], newest_first: Sequence[str]) -> RecentLabel:
    there = [version for version in newest_first if version in by_version]
    recent = LabelSums()
    for number, version in enumerate(there, start=1):
        recent.add_all(by_version[version])
        if recent.pictures >= FEW and number < len(there):
            return RecentLabel(recent.statistics(), since=version)
    return RecentLabel(recent.statistics())


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
            f'{count} of its {prelabels} regions became "{name}": give the two labels '
            f"predicted_values that tell them apart.{few}"
        )
    if 2 * statistics.deleted >= prelabels > 0:
        return (
            f"{statistics.deleted} of its {prelabels} regions were deleted: raise its "
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
        f" So far there are {statistics.pictures} pictures only."
        if statistics.pictures < FEW
        else ""
    )
