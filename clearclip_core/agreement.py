"""How far people who have annotated the same pictures agree, as a whole and by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.runs import BoolMask

#: Pixels whose pairs of labels are counted at a time, in whole rows: a pair takes some 30 bytes.
_COUNTED_PX: Final = 1 << 20


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two people, at least one of whom has painted the label.

    Attributes:
        people: their indices.
        iou: intersection over union of their masks; 0 where one of them has left the label out.
    """

    people: tuple[int, int]
    iou: float


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of several people on a label of an image.

    Attributes:
        pairs: of each two people, if at least one of them has painted the label.
        disputed_px: pixels to which some of them have given the label, not all.
    """

    pairs: tuple[PairAgreement, ...]
    disputed_px: int


@dataclass(frozen=True, eq=False)
class ImageAgreement:
    """Agreement of several people on an image.

    Attributes:
        labels: name of a label -> agreement on it, also of those that nobody has painted.
        confusions: two labels -> share of the pixels to which one person has given the first and
            another the second, mean over the pairs of people; the second is "" for no label. Where
            labels overlap, the last of the given ones counts.
        disputed: (H, W) bool, the pixels to which not all have given the same labels.
    """

    labels: Mapping[str, LabelAgreement]
    confusions: Mapping[tuple[str, str], float]
    disputed: BoolMask = field(repr=False)

    @property
    def disputed_share(self) -> float:
        """Share of the pixels that are in dispute, 0 to 1."""
        return int(np.count_nonzero(self.disputed)) / self.disputed.size


def compare_image(
    people: Sequence[Mapping[str, BoolMask]], labels: Sequence[str], size_hw: tuple[int, int]
) -> ImageAgreement:
    """Compare what several people have painted on an image, one label at a time.

    Memory: some four bytes a pixel and person, and 30 MB.

    Args:
        people: of each person, name of a label -> mask (H, W) bool; each mask is asked for once.
            Masks of an image may overlap.
        labels: names of all labels that they could paint.
        size_hw: height and width of the image in px.

    >>> sky = np.array([[True, True, False]])
    >>> made = compare_image([{"sky": sky}, {"sky": sky, "tree": ~sky}], ["sky", "tree"], (1, 3))
    >>> made.labels["sky"].pairs[0].iou, made.labels["tree"].pairs[0].iou, made.disputed.tolist()
    (1.0, 0.0, [[False, False, True]])
    >>> {labels: round(share, 2) for labels, share in made.confusions.items()}
    {('tree', ''): 0.33}
    """
    disputed = np.zeros(size_hw, np.bool_)
    found = {}
    tops = [np.zeros(size_hw, np.uint16) for _ in people]
    for number, label in enumerate(labels, 1):
        masks = [own.get(label) for own in people]
        for top, mask in zip(tops, masks, strict=True):
            if mask is not None:
                top[mask] = number
        found[label] = _compare_label(masks, disputed)
    return ImageAgreement(found, _confusions(tops, labels), disputed)


def _compare_label(masks: Sequence[BoolMask | None], disputed: BoolMask) -> LabelAgreement:
    """Compare the masks of one label, None for who has left it out; add to the disputed pixels."""
    box = _box_around(masks)
    parts = [None if mask is None or not mask[box].any() else mask[box] for mask in masks]
    votes = np.zeros(disputed[box].shape, np.min_scalar_type(len(masks)))
    for part in parts:
        if part is not None:
            votes += part
    differ = (votes > 0) & (votes < len(masks))
    disputed[box] |= differ
    pairs = tuple(
        PairAgreement((first, second), _iou(parts[first], parts[second]))
        for first, second in combinations(range(len(parts)), 2)
        if parts[first] is not None or parts[second] is not None
    )
    return LabelAgreement(pairs, int(np.count_nonzero(differ)))


def _iou(first: BoolMask | None, second: BoolMask | None) -> float:
    if first is None or second is None:
        return 0.0
    return int(np.count_nonzero(first & second)) / int(np.count_nonzero(first | second))


def _box_around(masks: Sequence[BoolMask | None]) -> tuple[slice, slice]:
    """Return the rows and columns of all masks."""
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks if mask is not None]
    boxes = [each for each in boxes if each[2]]
    if not boxes:
        return slice(0, 0), slice(0, 0)
    left, top = (min(each[axis] for each in boxes) for axis in (0, 1))
    right, bottom = (max(each[axis] + each[axis + 2] for each in boxes) for axis in (0, 1))
    return slice(top, bottom), slice(left, right)


def _confusions(
    tops: Sequence[npt.NDArray[np.uint16]], labels: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Count the pixels to which two people have given different labels.

    Args:
        tops: (H, W) of each person, 0 or 1 + the index of the pixel's label.
    """
    bins = len(labels) + 1
    counts = np.zeros(bins * bins, np.int64)
    pairs = list(combinations(tops, 2))
    height, width = tops[0].shape
    rows = max(1, _COUNTED_PX // max(1, width))
    for first, second in pairs:
        for top in range(0, height, rows):
            upper, lower = first[top : top + rows], second[top : top + rows]
            differ = upper != lower
            one, other = upper[differ].astype(np.int64), lower[differ].astype(np.int64)
            codes = np.minimum(one, other) * bins + np.maximum(one, other)
            counts += np.bincount(codes, minlength=len(counts))
    found = {}
    for code in np.flatnonzero(counts).tolist():
        low, high = divmod(code, bins)
        names = (labels[low - 1], labels[high - 1]) if low else (labels[high - 1], "")
        found[names] = int(counts[code]) / (len(pairs) * tops[0].size)
    return found
