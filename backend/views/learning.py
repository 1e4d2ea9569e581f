"""What a project has learned, as pages show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.views.curve import Curve, Line

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
