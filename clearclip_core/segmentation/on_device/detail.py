"""Detail that colours do not explain, on a device, see `clearclip_core.segmentation.detail`."""

from __future__ import annotations

import torch

from clearclip_core.segmentation.detail import (
    ABOVE_PEAK,
    LEAST_PEAK,
    LEAST_PROBABILITY,
    MOST_RAISED,
    PLACES_OF_NOISE,
    RAISED,
    kept_share,
)
from clearclip_core.segmentation.on_device.guided_filter import DeviceGuidedFilter


def fit_with_detail(
    guided_filter: DeviceGuidedFilter, roots: torch.Tensor, root_knots: torch.Tensor
) -> torch.Tensor:
    """Fit maps to the colours, and add again of the rest what is no noise.

    Args:
        guided_filter: the guided filter of the image.
        roots: (K, rows + 1, columns + 1) square roots of the labels' probabilities at the corners
            of the tiles.
        root_knots: (K, rows + 1, columns + 1) the same in values from which pixels are
            interpolated best, see ``Scores.logits_at_knots``.

    Returns:
        (K, 4, rows + 1, columns + 1) float32 linear functions.
    """
    rows = roots[:, :-1] + roots[:, 1:]
    functions = guided_filter.fit(0.25 * (rows[..., :-1] + rows[..., 1:]))
    explained = guided_filter.at_corners(functions)
    share = kept_share(_noise_variance(explained, roots - explained, guided_filter.precise))
    functions *= _raising_factors(roots, explained, 1 - share)[:, None, None, None]
    functions[:, 3] += share * (root_knots - explained)
    return functions


def _raising_factors(
    roots: torch.Tensor, explained: torch.Tensor, dropped_share: float
) -> torch.Tensor:
    """Return (K,) factors that raise labels whose peaks the filter has lowered."""
    before, after = (_quantile(maps.flatten(1), 1 - ABOVE_PEAK) for maps in (roots, explained))
    quotients = (before / after.clamp(min=LEAST_PEAK)).clamp(1, MOST_RAISED)
    return 1 + dropped_share * (quotients**RAISED - 1)


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return (K,) the value of (K, N) values at or next above a share of them."""
    index = -int(-share * (values.shape[1] - 1) // 1)
    return values.sort(dim=1).values[:, index]


def _noise_variance(explained: torch.Tensor, rest: torch.Tensor, precise: torch.dtype) -> float:
    """Estimate the variance of noise that is on the logits in all of an image."""
    probability = explained.to(precise).clamp(LEAST_PROBABILITY**0.5, 1) ** 2
    probability /= probability.sum(dim=0)
    squares = (probability**2).sum(dim=0)
    per_variance = (probability * (1 - 2 * probability + squares)).sum(dim=0) / 4
    places = (rest.to(precise) ** 2).sum(dim=0)
    places /= per_variance.clamp(min=LEAST_PROBABILITY**2)
    return float(places.flatten().quantile(PLACES_OF_NOISE))
