"""Judge another way to predict beside the one in use, on held-out images that both predict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.fitting import LABEL_LOSS, UNSURE, find_losing
from clearclip_core.images.label_maps import IGNORE, Truth

_DRAWS = 200  # draws of images with replacement (bootstrap)
_TAIL = 0.05  # share of the draws below the range of a gain, and above it

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """What another way gains beside the one in use.

    Attributes:
        gain: of the mean IoU over the labels that are there, in [-1, 1].
        is_better: whether three draws of the images in four say that the mean gains, and no label
            loses too much.
        losing: indices of labels that surely lose more than `LABEL_LOSS`.
        low: gain that 19 draws in 20 are above.
        high: gain that 19 draws in 20 are below.
    """

    gain: float
    is_better: bool
    losing: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0


def count_overlaps(label_map: npt.NDArray[np.int16], truth: Truth, labels: int) -> Counts:
    """Count the pixels of each label that are right, predicted, and true.

    Args:
        label_map: (H, W) int16 of predicted labels, -1 for none.
        truth: (H, W) uint8 of true labels; 255 is not counted, other values are no label.
        labels: number of the labels, K.

    Returns:
        (K, 3) int64.

    >>> count_overlaps(np.array([[0, 0, -1]], np.int16), np.array([[0, 254, 0]], np.uint8), 1)
    array([[1, 2, 2]])
    """
    counted = truth != IGNORE
    made, true = label_map[counted].astype(np.int64), truth[counted].astype(np.int64)
    columns = (made[made == true], made, true)
    kept = (each[(each >= 0) & (each < labels)] for each in columns)
    return np.stack([np.bincount(each, minlength=labels) for each in kept], axis=1)


def judge(now: Sequence[Counts], other: Sequence[Counts], label_loss: float = LABEL_LOSS) -> Trial:
    """Judge another way to predict by what `count_overlaps` says of n images.

    Args:
        now: n arrays (K, 3), of the way in use.
        other: n arrays (K, 3), of the other way, image by image.
        label_loss: IoU in [0, 1] that no label may surely lose.

    Raises:
        ValueError: no image, or another number of them.
    """
    if not now or len(now) != len(other):
        raise ValueError(f"Expected as many images twice, but got {len(now)} and {len(other)}.")
    counts = np.stack([np.stack(now), np.stack(other)]).astype(np.float64)  # (2, n, K, 3)
    images = counts.shape[1]
    drawn = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), _DRAWS)
    draws = np.vstack([np.ones((1, images)), drawn])
    sums = draws @ counts.transpose(3, 0, 1, 2)  # (3, 2, 1 + draws, K)

    right, predicted, true = sums
    ious = right / np.maximum(predicted + true - right, 1)
    is_there = true[0, 0] > 0
    change = ious[1] - ious[0]
    gains = change[:, is_there].mean(axis=1) if is_there.any() else np.zeros(len(change))
    losing = np.flatnonzero(find_losing(change, label_loss) & is_there).tolist()
    is_better = bool(np.quantile(gains[1:], UNSURE) > 0) and not losing
    low, high = np.quantile(gains[1:], (_TAIL, 1 - _TAIL)).tolist()
    return Trial(float(gains[0]), is_better, tuple(losing), low, high)
