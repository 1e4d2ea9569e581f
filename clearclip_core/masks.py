"""Label map -> boolean masks without specks: small islands dropped, small holes filled."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]


def label_masks(
    label_map: npt.NDArray[Any], min_island_px: int = 0, min_hole_px: int = 0
) -> dict[int, BoolMask]:
    """One mask for each label that is left after cleaning; -1 stands for none.

    Islands are judged in the label map itself, so the masks stay disjoint unless holes are
    filled.

    Args:
        label_map: (H, W) int, index of the label or -1.
        min_island_px: connected parts of fewer pixels are dropped.
        min_hole_px: holes of fewer pixels are filled.

    Returns:
        index of the label -> (H, W) bool, in ascending order; labels with no pixel left out.

    >>> label_masks(np.array([[0, 0, -1, 2]]))[0].tolist()
    [[True, True, False, False]]
    """
    masks: dict[int, BoolMask] = {}
    for index in np.unique(label_map[label_map >= 0]).tolist():
        mask = fill_holes(drop_islands(label_map == index, min_island_px), min_hole_px)
        if mask.any():
            masks[index] = mask
    return masks


def drop_islands(mask: BoolMask, min_px: int) -> BoolMask:
    """Drop connected parts (8-connectivity) of fewer than `min_px` pixels.

    Args:
        mask: (H, W) bool.
        min_px: area in pixels.

    Returns:
        (H, W) bool, a new array.

    >>> drop_islands(np.array([[True, False, True, True]]), 2).tolist()
    [[False, False, True, True]]
    """
    if min_px <= 1:
        return mask.copy()
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False  # part 0 is everything outside the mask
    return np.asarray(keep[parts], dtype=np.bool_)


def fill_holes(mask: BoolMask, max_px: int) -> BoolMask:
    """Fill holes of fewer than `max_px` pixels; what touches the border is no hole.

    Args:
        mask: (H, W) bool.
        max_px: area in pixels.

    Returns:
        (H, W) bool, a new array.
    """
    if max_px <= 1:
        return mask.copy()
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] < max_px
    fill[[0, parts[0, 0]]] = False  # the mask itself, and the part that touches the border
    return np.asarray(mask | fill[parts][1:-1, 1:-1], dtype=np.bool_)
