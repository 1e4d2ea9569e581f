"""Boundary F-measure of two masks: do their edges lie near each other?

Each pixel of an edge is matched where the other mask has an edge within a tolerance. F is the
harmonic mean of the shares that are matched (Csurka, Larlus and Perronnin, *What is a good
evaluation measure for semantic segmentation?*, BMVC 2013), with the tolerance of the DAVIS
benchmark (Perazzi et al., CVPR 2016): 0.8 % of the image's diagonal, rounded up to whole pixels.
The measure does not depend on the order of the masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from clearclip_core.segmentation.runs import BoolMask

#: Tolerance as a share of the image's diagonal.
TOLERANCE: Final = 0.008

_CROSS: Final = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, eq=False)
class Edge:
    """The edge of a mask, and what lies near it.

    Attributes:
        pixels: (H, W) bool, pixels of the mask beside one that is not of the mask. The image's
            border is no edge.
        near: (H, W) bool, pixels within the tolerance of them.
        count_px: pixels of the edge.
    """

    pixels: BoolMask
    near: BoolMask
    count_px: int

    @classmethod
    def of(cls, mask: BoolMask, tolerance_px: float) -> Edge:
        """Find the edge of a mask (H, W) bool.

        Args:
            mask: the mask.
            tolerance_px: distance in px up to which an edge of another mask matches, see
                `tolerance_px`.
        """
        values = mask.view(np.uint8)
        pixels: BoolMask = mask & (cv2.erode(values, _CROSS) == 0)  # by default no border erodes
        if not pixels.any():
            return cls(pixels, np.zeros_like(pixels), 0)
        distances = cv2.distanceTransform(
            (~pixels).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        return cls(pixels, distances <= tolerance_px, int(np.count_nonzero(pixels)))


def tolerance_px(size_hw: tuple[int, int]) -> int:
    """Return the tolerance in px for an image of that height and width.

    >>> tolerance_px((480, 854))
    8
    """
    return math.ceil(TOLERANCE * math.hypot(*size_hw))


def boundary_f(first: Edge | None, second: Edge | None) -> float | None:
    """Return the boundary F-measure of two masks of one image, 0 to 1.

    Args:
        first: the edge of a mask; None for a mask without a pixel.
        second: the edge of another one.

    Returns:
        0 where only one of them has an edge; None where neither has one.

    >>> edges = [Edge.of(np.arange(9)[None] >= start, 1.0) for start in (4, 5, 6)]
    >>> boundary_f(edges[0], edges[1]), boundary_f(edges[0], edges[2]), boundary_f(edges[0], None)
    (1.0, 0.0, 0.0)
    """
    counts = [0 if edge is None else edge.count_px for edge in (first, second)]
    if not any(counts):
        return None
    if first is None or second is None or not all(counts):
        return 0.0
    precision = np.count_nonzero(first.pixels & second.near) / counts[0]
    recall = np.count_nonzero(second.pixels & first.near) / counts[1]
    if not precision + recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)
