"""Tapering: weights of windows that fall to zero at their borders, so that there are no seams.

Where overlapping windows are averaged with equal weights, their mean jumps at each border of a
window, since there one window more or less takes part in it. With weights that fall linearly from
the centre of a window to that of the next one, as far as both cover the place, nothing jumps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearclip_core.segmentation.upsampling import Indices, Matrix, Values


def window_weights(side_px: int, window_px: int, starts_px: Sequence[int]) -> Matrix:
    """Return the weight of each window at each pixel of a side; at a pixel they sum to 1.

    Args:
        side_px: length of the side.
        window_px: length of a window.
        starts_px: ascending; where the windows begin.

    Returns:
        (windows, side_px) in [0, 1], 0 where a window does not cover a pixel.

    >>> window_weights(6, 4, (0, 2)).round(2).tolist()
    [[1.0, 1.0, 0.75, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]]
    """
    centres = np.arange(side_px) + 0.5
    low, high = _ramps_px(window_px, starts_px)
    # Between windows that do not overlap, the ramp is a step.
    rises = np.clip((centres - low[:, None]) / np.maximum(high - low, 1e-9)[:, None], 0, 1)
    first, last = np.ones((1, side_px)), np.zeros((1, side_px))
    weights: Matrix = np.concatenate([first, rises]) - np.concatenate([rises, last])
    return weights


def straighten(
    rows: Matrix, window_px: int, starts_px: Sequence[int], centres_px: Values
) -> Matrix:
    """Make rows of weights piecewise linear again, which products of ramps with weights are not.

    Rows stay at the patches' centres and at the ends of ramps, and are interpolated between them.

    Args:
        rows: (side_px, n), weights in each pixel.
        window_px: length of a window.
        starts_px: where the windows begin.
        centres_px: (patches,), centres of a window's patches; pixel 0 of it has its centre at 0.

    Returns:
        (side_px, n).
    """
    side_px = len(rows)
    ramps = np.concatenate(_ramps_px(window_px, starts_px)) - 0.5
    bends = np.concatenate([np.add.outer(starts_px, centres_px).ravel(), ramps])
    around = np.concatenate([np.floor(bends), np.ceil(bends), [0, side_px - 1]])
    knots: Indices = np.unique(np.clip(around, 0, side_px - 1).astype(np.intp))
    pixels = np.arange(side_px)
    after = np.clip(np.searchsorted(knots, pixels), 1, max(1, len(knots) - 1)) % len(knots)
    before = np.maximum(after - 1, 0)
    length = np.maximum(knots[after] - knots[before], 1)
    share = ((pixels - knots[before]) / length)[:, None]
    straight: Matrix = rows[knots[before]] * (1 - share) + rows[knots[after]] * share
    return straight


def _ramps_px(window_px: int, starts_px: Sequence[int]) -> tuple[Matrix, Matrix]:
    """Return where the weight begins to pass from each window to the next one, and where it ends.

    From centre to centre, as far as both windows cover it.
    """
    starts = np.asarray(starts_px, np.float64)
    centres, ends = starts + window_px / 2, starts + window_px
    return np.maximum(centres[:-1], starts[1:]), np.minimum(centres[1:], ends[:-1])
