"""Rank wordings by the paint that they leave to do, on few corrected images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def rank_wordings(wrong_px: npt.ArrayLike, is_raised: Sequence[bool]) -> list[int]:
    """Rank wordings by their wrong pixels, and thresholds only where they gain beyond chance.

    A high threshold that happens to suit a few images saves paint there and loses it elsewhere. So
    a wording with a raised threshold comes right behind the best one without, unless the mean of
    what it gains per image is above its standard error (the one-standard-error rule of Breiman et
    al., 1984, with paired differences).

    Args:
        wrong_px: (R, I) pixels to paint and to erase: R wordings on the same I images.
        is_raised: of each wording, whether its threshold is above that of the label config.

    Returns:
        Ranks from 1 on; equal wordings share one.

    >>> rank_wordings([[9, 9], [3, 9], [8, 8]], [False, True, False])
    [3, 2, 1]
    >>> rank_wordings([[9, 9], [3, 4], [8, 8]], [False, True, False])
    [3, 1, 2]
    """
    wrong = np.asarray(wrong_px, dtype=np.float64)
    keys = [(float(total), False) for total in wrong.sum(axis=1)]
    plain = [row for row, raised in enumerate(is_raised) if not raised]
    if plain:
        best = min(plain, key=keys.__getitem__)
        for row, raised in enumerate(is_raised):
            if raised and keys[row] < keys[best] and not _gains(wrong[best] - wrong[row]):
                keys[row] = keys[best][0], True
    return [1 + sum(other < key for other in keys) for key in keys]


def _gains(saved_px: npt.NDArray[np.float64]) -> bool:
    """Return whether the mean of a gain per image is above its standard error."""
    count = len(saved_px)
    error = float(saved_px.std(ddof=1)) / count**0.5 if count > 1 else float("inf")
    return float(saved_px.mean()) > error
