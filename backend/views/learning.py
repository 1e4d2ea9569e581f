"""What a project has learned, as pages show it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from backend.feedback.report.periods import Period
from backend.feedback.report.statistics import FEW
from backend.feedback.sums import GroupSums, LabelSums, ProjectSums
from backend.learning.compared_images import ComparedImage
from backend.learning.versions import Version
from backend.views.curve import POINTS, Curve, Line
from backend.views.pace import saved_curve
from clearclip_core import Fit
from clearclip_core.quantities import quantity

_MOST_VERSIONS: Final = 20  # of the plots: the newest

#: The end of a model version that a learned version has made, as in "+120 v4".
_OF_VERSION: Final = re.compile(r"\+\d+ v(\d+)$")


class VersionScore(Struct, frozen=True):
    """What is known of a version's masks."""

    number: int  # 0: the words alone
    gain: float | None  # of the mean IoU over all labels, see `Version.gain`; None: not measured
    left: float | None = None  # share of the paint that people had left to do; None: not known

    @classmethod
    def of(cls, version: Version, left: Mapping[int, float]) -> VersionScore:
        return cls(version.number, version.gain, left.get(version.number))


class LearningPlots(Struct, frozen=True):
    """The plots of the learning page; one without two figures is not drawn."""

    gain: Curve  # by version
    left: Curve  # by version
    saved: Curve  # by day or week

    @property
    def drawn(self) -> tuple[Curve, ...]:
        return tuple(each for each in (self.gain, self.left, self.saved) if each.is_drawn)


def learning_plots(
    versions: Sequence[Version], sums: ProjectSums, periods: Sequence[Period]
) -> LearningPlots:
    """Return the plots of what a project has learned.

    Args:
        versions: the versions of a project, the newest first.
        sums: what was read of its annotations.
        periods: its newest periods, the oldest of them first.
    """
    left = left_to_paint(sums.versions)
    shown = [VersionScore.of(each, left) for each in versions[:_MOST_VERSIONS]][::-1]
    words = VersionScore(0, None, left.get(0))
    return LearningPlots(
        gain_curve(shown), left_curve([words, *shown]), saved_curve(periods, sums.step)
    )


def left_to_paint(versions: Mapping[str, GroupSums]) -> dict[int, float]:
    """Return the share of the paint that people had left to do, by number of the learned version.

    Args:
        versions: model version -> sums of the annotations that began with its predictions.

    Returns:
        0 stands for the words alone. Versions with fewer than `FEW` pictures are left out.
    """
    totals: dict[int, LabelSums] = {}
    for name, group in versions.items():
        found = _OF_VERSION.search(name)
        totals.setdefault(int(found[1]) if found else 0, LabelSums()).add_all(group.total)

    saved = {n: sums.saved_paint for n, sums in totals.items() if sums.pictures >= FEW}
    return {number: 1 - share for number, share in saved.items() if share is not None}


def gain_curve(scores: Sequence[VersionScore]) -> Curve:
    """Return by how much the mean IoU over all labels is above that of the words, by version.

    The mean IoU itself would fall where a version is the first with a figure of a difficult label.

    Args:
        scores: those of the newest versions, the oldest of them first; those without a figure are
            gaps.
    """
    return Curve(
        title="Mean IoU over all labels on held-out pictures: points above the words, by version",
        steps=tuple(f"v{each.number}" for each in scores),
        lines=(Line("points above the words", tuple(each.gain for each in scores)),),
        unit=POINTS,
    )


def left_curve(scores: Sequence[VersionScore]) -> Curve:
    """Return the share that was left to paint on masks of each version that people corrected.

    Args:
        scores: those of the words and of the newest versions, the oldest first.
    """
    known = [each for each in scores if each.left is not None]
    return Curve(
        title="Share of the painting that was left to people, by whose masks they corrected",
        steps=tuple(f"v{each.number}" if each.number else "words" for each in known),
        lines=(Line("left to paint", tuple(each.left for each in known)),),
    )


def told_ious(ious: Mapping[str, float], shown: Mapping[str, int]) -> dict[str, float]:
    """Return the IoUs of the labels that enough corrected pictures show.

    Versions that were made before this rule have an IoU of the others, too.
    """
    return {name: iou for name, iou in ious.items() if shown.get(name, 0) >= Fit.FEWEST_TOLD}


def too_few(shown: Mapping[str, int]) -> dict[str, str]:
    """Say of each label that too few corrected pictures show that it has no figure.

    >>> too_few({"sky": 12, "fence": 2})
    {'fence': '2 pictures: too few to tell'}
    """
    return {
        name: f"{quantity(count, 'picture')}: too few to tell"
        for name, count in shown.items()
        if count < Fit.FEWEST_TOLD
    }


def missing_figures(version: Version) -> str:
    """Say why labels of a version have no figure; "" where all have one.

    Args:
        version: a version that was made of corrections, with the IoUs that are told of it.
    """
    without = len(version.shown) - len(version.text_ious)
    if not without:
        return ""
    if not version.text_ious:
        return (
            f"No label has a figure: that takes {Fit.FEWEST_TOLD} pictures on which it was drawn, "
            "most of it by hand. The pictures below tell more than an IoU would."
        )
    if without > len(too_few(version.shown)):
        return (
            "A dash beside enough pictures stands where less than half of a label was drawn by "
            "hand: there the words would judge themselves."
        )
    return ""


def changes_sentence(pictures: Sequence[ComparedImage], version: int) -> str:
    """Say what the pictures of changes show, and in which order the rows stand.

    Args:
        pictures: those that are shown; without a picture of changes, "" is returned.
        version: number of the version that they compare with the words.
    """
    drawn = [each for each in pictures if each.changes]
    if not drawn:
        return ""
    if drawn[0].gained is None:
        shown = (
            "The last picture of a row shows what changes, in the colour of the label that "
            f"v{version} gives to a place, red where it takes one away."
        )
    else:
        shown = (
            f"The last picture of a row shows what changes: green where v{version} alone is right, "
            "red where the words alone are."
        )
    return f"{shown} The rows with the most changes come first."
