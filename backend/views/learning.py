"""What a project has learned, as pages show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.views.curve import Curve, Line
from clearclip_core import Fit
from clearclip_core.quantities import quantity

_MOST_VERSIONS: Final = 20  # of the plot: the newest


def iou_curve(versions: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the mean IoU on held-out pictures by version, and that of the words on the same.

    Args:
        versions: the versions of a project as its description has them, the newest first.

    Returns:
        A plot of the newest versions, the oldest of them first; those without a figure are gaps.
    """
    shown = versions[:_MOST_VERSIONS][::-1]
    own = (each["adapted_iou"] if each["text_ious"] else None for each in shown)
    words = (each["text_iou"] if each["text_ious"] else None for each in shown)
    return Curve(
        title="Mean IoU on held-out pictures by version, and by the words alone",
        steps=tuple(f"v{each['number']}" for each in shown),
        lines=(Line("the version", tuple(own)), Line("the words alone", tuple(words))),
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


def missing_figures(version: Mapping[str, Any]) -> str:
    """Say why labels of a version have no figure; "" where all have one.

    Args:
        version: a version that was made of corrections, as the description of a project has it.
    """
    without = len(version["shown"]) - len(version["text_ious"])
    if not without:
        return ""
    if not version["text_ious"]:
        return (
            f"No label has a figure: that takes {Fit.FEWEST_TOLD} pictures on which it was drawn, "
            "most of it by hand. The pictures below tell more than an IoU would."
        )
    if without > len(version["too_few"]):
        return (
            "A dash beside enough pictures stands where less than half of a label was drawn by "
            "hand: there the words would judge themselves."
        )
    return ""
