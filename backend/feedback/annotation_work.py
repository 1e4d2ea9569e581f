"""Bound the work that one annotation takes, before anything of it is drawn.

Masks are drawn again where they are needed, as large ones take memory. So many regions on a large
image, or labels, could take hours. The work is counted as in `backend.label_studio.drawing_steps`:
what each region and label takes at most, whether or not it is drawn that often.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from backend.feedback.evidence import AreasByLabel
from backend.label_studio.drawing_steps import check_steps, drawing_steps

#: How often an area is drawn at most, to be compared and to be learned from.
_DRAWN: Final = 8
#: Steps of a pixel of a label whose masks are compared, with their boundary bands.
_LABEL_PX: Final = 12


def check_work(images: Iterable[tuple[tuple[int, int], Iterable[AreasByLabel]]]) -> None:
    """Refuse an annotation that would take too many steps.

    Args:
        images: of each image its height and width in px, and the areas of the prediction and of the
            annotation.

    Raises:
        BadRequest: it would.
        ValueError: an area has a broken geometry.
    """
    steps = 0
    for size_hw, sides in images:
        labels: set[str] = set()
        for side in sides:
            labels |= side.keys()
            steps += _DRAWN * sum(drawing_steps(area) for areas in side.values() for area in areas)
        steps += _LABEL_PX * len(labels) * size_hw[0] * size_hw[1]
    check_steps(steps)
