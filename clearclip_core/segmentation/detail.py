"""Detail of maps that colours do not explain: kept where scores are clear, left out as noise.

A guided filter keeps of a map what is a function of the colours. The rest is a thin object between
windows of other things, or noise of the scores. Thin objects are in few places of an image and
noise is everywhere. So the rest in most places tells how much of it is noise, and as much detail is
added again as that leaves.

Where little is added, the filter has lowered the peaks of small labels more than those of large
ones, and the large ones would win. So each label's map is raised as far as its peak was lowered.
"""

from __future__ import annotations

import numpy as np

from clearclip_core.segmentation.guided_filter import Float32s, GuidedFilter
from clearclip_core.segmentation.upsampling import Matrix

#: Variance of the logits' noise at which half of the detail is kept, and how fast the kept share
#: falls with it. Chosen on photographs whose scores are made of their masks.
_HALF_KEPT, _STEEPNESS = 0.4, 3

#: Share of the places of an image whose rest is no detail. Many of them lie inside one large thing,
#: where noise leaves little; so the estimate is of those with the most.
PLACES_OF_NOISE = 0.7

#: Share of the places of an image that lie above a label's peak.
ABOVE_PEAK = 0.001

#: Exponent of the factor by which a label's map is raised where no detail is kept: 1 restores its
#: peak, which noise has raised too. And the largest quotient of peaks.
RAISED, MOST_RAISED = 0.75, 4.0

#: A peak is at least this, as the root of a probability: lower ones are of noise alone.
LEAST_PEAK = 0.05

#: Probabilities are at least this where the effect of noise on them is computed.
LEAST_PROBABILITY = 1e-3


def fit_with_detail(
    guided_filter: GuidedFilter, roots: Float32s, root_knots: Float32s | None = None
) -> Float32s:
    """Fit maps to the colours, and add again of the rest what is no noise.

    Args:
        guided_filter: the guided filter of the image.
        roots: (K, rows + 1, columns + 1) square roots of the labels' probabilities at the corners
            of the tiles, see ``TileGrid.corners_px``.
        root_knots: (K, rows + 1, columns + 1) the same in values from which pixels are
            interpolated best, see ``Scores.logits_at_knots``; `roots` by default.

    Returns:
        (K, 4, rows + 1, columns + 1) linear functions, see ``GuidedFilter.fit``.
    """
    functions = np.stack([guided_filter.fit(tiles) for tiles in tile_means(roots)])
    explained = guided_filter.at_corners(functions)
    share = kept_share(noise_variance(explained, roots - explained))
    functions *= raising_factors(roots, explained, 1 - share)[:, None, None, None]
    functions[:, 3] += np.float32(share) * (
        (roots if root_knots is None else root_knots) - explained
    )
    return functions


def raising_factors(roots: Float32s, explained: Float32s, dropped_share: float) -> Float32s:
    """Return the factors that raise labels whose peaks the filter has lowered.

    Args:
        roots: (K, h, w) roots of probabilities.
        explained: (K, h, w) what the colours explain of them.
        dropped_share: share of the detail that is left out, in [0, 1]; with 0, all factors are 1.

    Returns:
        (K,) from 1 on.

    >>> thin = np.zeros((1, 1, 5), np.float32)
    >>> thin[..., 2] = 0.8
    >>> raising_factors(thin, thin / 2, dropped_share=1.0).round(3)  # 2 to the power of 0.75
    array([1.682], dtype=float32)
    """
    before, after = (
        np.quantile(maps.reshape(len(maps), -1), 1 - ABOVE_PEAK, axis=1, method="higher")
        for maps in (roots, explained)
    )
    quotients = np.clip(before / np.maximum(after, LEAST_PEAK), 1, MOST_RAISED)
    factors: Float32s = 1 + np.float32(dropped_share) * (quotients**RAISED - 1)
    return factors.astype(np.float32)


def tile_means(corners: Float32s) -> Float32s:
    """(K, rows + 1, columns + 1) -> (K, rows, columns): means of the values at tiles' corners."""
    above, below = corners[:, :-1], corners[:, 1:]
    sums: Float32s = above[..., :-1] + above[..., 1:] + below[..., :-1] + below[..., 1:]
    return sums * np.float32(0.25)


def noise_variance(explained: Float32s, rest: Float32s) -> float:
    """Estimate the variance of noise that is on the logits in all of an image.

    If each logit has independent noise of variance s², the root of a softmax p has noise of
    variance s² p (1 - 2 p + Σ p²) / 4, to first order. The ratio of the squared rest to that, both
    summed over the labels, is an estimate of s² at one place. Places differ, and where there is
    detail it is far too large; a quantile of all places is returned.

    Args:
        explained: (K, h, w) roots of probabilities as the colours explain them.
        rest: (K, h, w) what they leave of the roots.
    """
    # In float64 the order of the labels changes nothing that is seen.
    probability: Matrix = np.clip(explained.astype(np.float64), LEAST_PROBABILITY**0.5, 1) ** 2
    probability /= probability.sum(axis=0)
    squares = (probability**2).sum(axis=0)
    per_variance = (probability * (1 - 2 * probability + squares)).sum(axis=0) / 4
    places = (rest.astype(np.float64) ** 2).sum(axis=0)
    places /= np.maximum(per_variance, LEAST_PROBABILITY**2)
    return float(np.quantile(places, PLACES_OF_NOISE))


def kept_share(variance: float) -> float:
    """Return the share of the detail that is kept where logits have noise of this variance.

    >>> [round(kept_share(variance), 2) for variance in (0.0, 0.4, 4.0)]
    [1.0, 0.5, 0.0]
    """
    return 1 / (1 + (variance / _HALF_KEPT) ** _STEEPNESS)
