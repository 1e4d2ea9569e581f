"""How far people who have annotated the same pictures agree, as a whole and by label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.runs import BoolMask

#: Pixels whose pairs of labels are counted at a time, in whole rows: a pair takes some 30 bytes.
_COUNTED_PX: Final = 1 << 20


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two people, at least one of whom has painted the label."""

    people: tuple[int, int]  # their indices
    iou: float  # intersection over union of their masks; 0 where one of them has left the label out


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of several people on a label of an image."""

    pairs: tuple[PairAgreement, ...]  # of each two people of whom one or both have painted it
    disputed_px: int  # pixels to which some of them have given the label, not all


@dataclass(frozen=True, eq=False)
class ImageAgreement:
    """Agreement of several people on an image."""

    labels: Mapping[str, LabelAgreement]  # also of those that nobody has painted
    #: Two labels -> share of the pixels to which one person has given the first and another the
    #: second, mean over the pairs of people; the second is "" for no label.
    confusions: Mapping[tuple[str, str], float]
    disputed: BoolMask = field(repr=False)  # (H, W), pixels with different labels

    @property
    def disputed_share(self) -> float:
        """Share of the pixels that are in dispute, 0 to 1."""
        return int(np.count_nonzero(self.disputed)) / self.disputed.size


def compare_image(maps: Sequence[npt.NDArray[np.uint16]], labels: Sequence[str]) -> ImageAgreement:
    """Compare what several people have painted on an image.

    Memory: some two bytes a pixel and person, and 30 MB.

    Args:
        maps: of each person, (H, W) 0, or 1 + the index of the pixel's label.
        labels: names of all labels that they could paint.

    >>> one, other = (np.array([pixels], np.uint16) for pixels in ([1, 1, 0], [1, 1, 2]))
    >>> made = compare_image([one, other], ["sky", "tree"])
    >>> made.labels["sky"].pairs[0].iou, made.labels["tree"].pairs[0].iou, made.disputed.tolist()
    (1.0, 0.0, [[False, False, True]])
    >>> {labels: round(share, 2) for labels, share in made.confusions.items()}
    {('tree', ''): 0.33}
    """
    disputed = np.zeros(maps[0].shape, np.bool_)
    for each in maps[1:]:
        disputed |= each != maps[0]
    painted = np.zeros(len(labels) + 1, np.bool_)
    for each in maps:
        painted[each] = True
    found = {
        label: _compare_label([each == number for each in maps])
        if painted[number]
        else LabelAgreement((), 0)
        for number, label in enumerate(labels, 1)
    }
    return ImageAgreement(found, _confusions(maps, labels), disputed)


def _compare_label(masks: Sequence[BoolMask]) -> LabelAgreement:
    """Compare the masks (H, W) bool of one label."""
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    pairs = []
    for first, second in combinations(range(len(masks)), 2):
        if areas[first] or areas[second]:
            shared = int(np.count_nonzero(masks[first] & masks[second]))
            iou = shared / (areas[first] + areas[second] - shared)
            pairs.append(PairAgreement((first, second), iou))
    some, all_ = masks[0].copy(), masks[0].copy()
    for mask in masks[1:]:
        some |= mask
        all_ &= mask
    return LabelAgreement(tuple(pairs), int(np.count_nonzero(some)) - int(np.count_nonzero(all_)))


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
