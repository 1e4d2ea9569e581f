"""Agreement of several people on one label of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from clearclip_core.agreement.krippendorff import BinaryValues
from clearclip_core.evaluation.boundary_match import Edge, boundary_f, tolerance_px
from clearclip_core.segmentation.runs import BoolMask


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two people, at least one of whom has painted the label.

    Attributes:
        people: indices of the two, in ascending order.
        iou: intersection over union of their masks; 0 where one of them has left the label out.
        boundary_f: see `clearclip_core.evaluation.boundary_match`; 0 where one of them has left the
            label out, None where no edge lies inside the image.
    """

    people: tuple[int, int]
    iou: float
    boundary_f: float | None


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of several people on a label of an image.

    Attributes:
        pairs: of each two people, if at least one of them has painted the label.
        values: who has given the label to how many pixels, for Krippendorff's alpha.
        disputed_px: pixels to which some of them have given the label, not all.
    """

    pairs: tuple[PairAgreement, ...]
    values: BinaryValues
    disputed_px: int


def compare_people(masks: Sequence[BoolMask | None], disputed: BoolMask) -> LabelAgreement:
    """Compare the masks that several people have painted of one label.

    Memory: of the box around all masks, three bytes a pixel and person, and four a pixel for the
    distances from one edge at a time.

    Args:
        masks: (H, W) bool of each person; None for one who has left the label out.
        disputed: (H, W) bool, to which the pixels in dispute are added.

    >>> left, right = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    >>> disputed = np.zeros((1, 4), bool)
    >>> made = compare_people([left, right, None], disputed)
    >>> [(pair.people, round(pair.iou, 2)) for pair in made.pairs], disputed.tolist()
    ([((0, 1), 0.33), ((0, 2), 0.0), ((1, 2), 0.0)], [[True, True, True, False]])
    """
    size_hw = disputed.shape[0], disputed.shape[1]
    box = _box_around(masks, size_hw)
    parts = [None if mask is None or not mask[box].any() else mask[box] for mask in masks]
    votes = np.zeros(disputed[box].shape, np.min_scalar_type(len(masks)))
    for part in parts:
        if part is not None:
            votes += part
    counts = [int(np.count_nonzero(votes == given)) for given in range(len(masks) + 1)]
    counts[0] += disputed.size - votes.size
    disputed[box] |= (votes > 0) & (votes < len(masks))
    return LabelAgreement(
        _pairs(parts, tolerance_px(size_hw)),
        BinaryValues.of(counts),
        sum(counts[1:-1]),
    )


def _pairs(parts: Sequence[BoolMask | None], tolerance: int) -> tuple[PairAgreement, ...]:
    edges = [
        None if part is None else Edge.of(np.ascontiguousarray(part), tolerance) for part in parts
    ]
    found = []
    for first, second in combinations(range(len(parts)), 2):
        if parts[first] is None and parts[second] is None:
            continue
        iou, f = _iou(parts[first], parts[second]), boundary_f(edges[first], edges[second])
        found.append(PairAgreement((first, second), iou, f))
    return tuple(found)


def _iou(first: BoolMask | None, second: BoolMask | None) -> float:
    if first is None or second is None:
        return 0.0
    return int(np.count_nonzero(first & second)) / int(np.count_nonzero(first | second))


def _box_around(masks: Sequence[BoolMask | None], size_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of all masks and of the pixels beside them, for their edges."""
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks if mask is not None]
    boxes = [each for each in boxes if each[2]]
    if not boxes:
        return slice(0, 0), slice(0, 0)
    left, top = (min(each[axis] for each in boxes) for axis in (0, 1))
    right, bottom = (max(each[axis] + each[axis + 2] for each in boxes) for axis in (0, 1))
    height, width = size_hw
    rows = slice(max(0, top - 1), min(height, bottom + 1))
    return rows, slice(max(0, left - 1), min(width, right + 1))
