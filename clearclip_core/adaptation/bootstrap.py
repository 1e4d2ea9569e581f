"""The bootstrap (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979)."""

from __future__ import annotations

import numpy as np

from clearclip_core.adaptation.sufficient_statistics import Float64Array

#: Number of draws, and the share of them that may lie beyond a bound.
_DRAWS = 400
BEYOND = 0.1


def draw_images(count: int) -> Float64Array:
    """Return (draws, count) how often each draw of `count` images has each of them.

    It always returns the same draws.

    Args:
        count: number of images, at least one.
    """
    shares = np.full(count, 1 / count)
    drawn = np.random.default_rng(0).multinomial(count, shares, size=_DRAWS)
    return drawn.astype(np.float64)
