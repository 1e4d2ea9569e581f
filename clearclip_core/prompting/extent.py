"""How far a click reaches: of masks from large to small, the likeliest.

A click says where a thing is, and not how large it is: the same log-odds cut at several levels give
masks from a crowd to a wheel. The likeliest of them stays as it is where the level moves a little,
as SAM's stability score says, holds what is like the click, and ends where what is around is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from clearclip_core.prompting.prompted_image import FloatMap, Pixel
from clearclip_core.segmentation.runs import BoolMask

_STEP = 1.5  # log-odds between two levels
_LEVELS = tuple(_STEP * step for step in range(-2, 5))  # from the largest mask to the smallest

_RIM = 0.6  # width of a mask's surroundings, in radii of a disc of its size

# Both come from a regression of the IoU of masks on drawn scenes and street photographs, with and
# without a label, rounded. The bench measures clicks in the same worlds.
_SMALL = 0.15  # added for each unit of the negative logarithm of a mask's share of the image
_LEAK = 1.6  # subtracted where all that is around is like the click

#: Added to the mask of level 0, where log-odds are even: another one has to be likelier by as much.
_EVEN = 0.1

_SIZES = 3  # masks of one click that are offered, as SAM offers them
_SAME_SIZE = 0.8  # IoU of two masks from which on they are one size

_CORRECTION = 3.0  # a further click adds at most so many times the cells of the first one's mask

_LEAST_CELLS = 6  # smaller masks are stable and alike by chance: the clicked cell alone always is


@dataclass(frozen=True)
class Extent:
    """One of the masks that a click may mean."""

    level: float  # log-odds above which its cells are
    likelihood: float  # to compare the masks of one click, of no unit
    mask: BoolMask  # (h, w) bool, its cells


def extents(log_odds: FloatMap, alike: FloatMap, click: Pixel) -> list[Extent]:
    """Return the masks that a click may mean, the likeliest first.

    Args:
        log_odds: (h, w) float32 of the cells, by the click.
        alike: (h, w) float32 in [0, 1], how much a cell is what was clicked.
        click: row and column of the clicked cell, which every mask holds.
    """
    masks = [_part_at(log_odds > level, click) for level in (*_LEVELS, _LEVELS[-1] + _STEP)]
    everything = float(alike[masks[0]].sum())
    made = [
        Extent(level, _likelihood(mask, smaller, alike, everything) + _EVEN * (level == 0), mask)
        for level, mask, smaller in zip(_LEVELS, masks, masks[1:], strict=False)
    ]
    return sorted(made, key=lambda each: -each.likelihood)


def three_sizes(found: Sequence[Extent]) -> list[Extent]:
    """Return of the masks of a click, in their order, three at most that differ in size.

    Args:
        found: one or more, as `extents` returns them.
    """
    chosen: list[Extent] = []
    for each in found:
        if all(_iou(each.mask, other.mask) < _SAME_SIZE for other in chosen):
            chosen.append(each)
    return chosen[:_SIZES]


def correction_level(found: Sequence[Extent], first_cells: int) -> float:
    """Return the level of a further click, which corrects: what it corrects is most often small.

    It reaches as far as its likeliest mask, no farther than at the middle level, and adds no more
    than three times what the first click found: on the border of a thing, it would flood what is
    around.

    Args:
        found: masks of the further click, one or more, as `extents` returns them.
        first_cells: number of cells of the first click's mask.
    """
    level = max(found[0].level, 0.0)
    closer = sorted((each for each in found if each.level >= level), key=lambda each: each.level)
    fitting = (e.level for e in closer if e.mask.sum() <= _CORRECTION * first_cells)
    return next(fitting, closer[-1].level)


def _iou(one: BoolMask, other: BoolMask) -> float:
    return float((one & other).sum() / (one | other).sum())


def _likelihood(mask: BoolMask, smaller: BoolMask, alike: FloatMap, everything: float) -> float:
    """Return how likely a mask is; `smaller` is that of the next level.

    Of a mask of n cells, about ``inside / (n + everything - inside)`` is the expected IoU, as in
    `best_level`, if a thing is what is alike in the largest mask.
    """
    size, inside = int(mask.sum()), float(alike[mask].sum())
    stability = smaller.sum() / size if size > _LEAST_CELLS else 0.0
    expected_iou = inside / (size + everything - inside)
    rim = _rim(mask, size)
    leak = float(alike[rim].mean()) if rim.any() else 0.0
    preference = -_SMALL * np.log(size / mask.size) - _LEAK * leak
    return float(stability * inside / size + expected_iou * preference)


def _part_at(mask: BoolMask, cell: Pixel) -> BoolMask:
    """Return the connected part (8-connectivity) of a mask that holds a cell, or the cell alone."""
    held = mask.astype(np.uint8)
    held[cell] = 1
    _, parts = cv2.connectedComponents(held, connectivity=8)
    return np.asarray(parts == parts[cell])


def _rim(mask: BoolMask, size: int) -> BoolMask:
    """Return (h, w) bool: the cells around a mask, in a width that grows with it."""
    side = max(3, int(_RIM * (size / np.pi) ** 0.5) | 1)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(grown.astype(bool) & ~mask)
