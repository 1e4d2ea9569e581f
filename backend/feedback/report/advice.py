"""Advises on labels whose predictions cost more than they save, or miss most of what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.feedback.report.definitions import FEW
from backend.feedback.report.label_statistics import LabelStatistics
from backend.feedback.sums import GroupSums, LabelSums
from clearclip_core.quantities import quantity


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
