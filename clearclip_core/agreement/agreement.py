"""How far people who have annotated the same pictures agree, as a whole and by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.evaluation.metrics import Edge, boundary_f, tolerance_px
from clearclip_core.segmentation.runs import BoolMask


@dataclass(frozen=True)
class BinaryValues:
    """Values 0 and 1 that several people have given to units; sums are added with ``+``.

    1 - observed disagreement / disagreement that is expected by chance, for nominal data with any
    number of people a unit: Krippendorff, *Computing Krippendorff's Alpha-Reliability*, 2011,
    sections C and D. It is 1 for perfect agreement, and 0 where people agree as if by chance.

    Attributes:
        ones: number of values 1.
        disagreement: over all units, the ordered pairs of different values in the unit divided by
            the number of the unit's people less one.

    >>> values = BinaryValues.of([4, 4, 2])  # two people: both 0 of 4 units, one 1 of 4, both of 2
    >>> round(values.alpha, 3)
    0.208
    """

    ones: int = 0
    values: int = 0
    disagreement: float = 0.0

    @classmethod
    def of(cls, counts: Sequence[int]) -> BinaryValues:
        """Sum up units to which equally many people have given a value, at least two.

        Args:
            counts: units to which none has given a 1, one person has, and so on up to all.
        """
        people = len(counts) - 1
        pairs = sum(2 * count * ones * (people - ones) for ones, count in enumerate(counts))
        return cls(
            sum(ones * count for ones, count in enumerate(counts)),
            people * sum(counts),
            pairs / (people - 1),
        )

    def __add__(self, other: BinaryValues) -> BinaryValues:
        """Add the values of other units."""
        return BinaryValues(
            self.ones + other.ones,
            self.values + other.values,
            self.disagreement + other.disagreement,
        )

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha; None where all values are equal, and chance says nothing."""
        expected = 2 * self.ones * (self.values - self.ones)
        return 1 - (self.values - 1) * self.disagreement / expected if expected else None


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two people, at least one of whom has painted the label.

    Attributes:
        iou: intersection over union of their masks; 0 where one of them has left the label out.
        boundary_f: see `clearclip_core.evaluation.metrics`; 0 where one of them has left the
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


#: Pixels whose pairs of labels are counted at a time, in whole rows: a pair takes some 30 bytes.
_COUNTED_PX: Final = 1 << 20


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

    Memory: two bytes a pixel and person, and one a pixel, beside that of `compare_people`; some 30
    MB more for the pixels that are counted at a time.

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
        found[label] = compare_people(masks, disputed)
    return ImageAgreement(found, _confusions(tops, labels), disputed)


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
