"""Means of maps over square windows, as products with one matrix for each axis."""

from __future__ import annotations

import torch


class DeviceWindowMeans:
    """Means over the parts of square windows that lie inside a map.

    The windows are separable, and so is the number of values inside the map. So the means along
    each axis are one product with a band matrix.

    Args:
        size_hw: height and width of the map.
        radius: half the side of the windows, in values.
        like: a tensor of the dtype and device of the maps.
    """

    def __init__(self, size_hw: tuple[int, int], radius: int, like: torch.Tensor) -> None:
        self._values = [_means(torch.arange(n), n, radius, radius + 1, like) for n in size_hw]
        self._corners = [_means(torch.arange(n + 1), n, radius, radius, like) for n in size_hw]

    def at_values(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., h, w) means over the window around each value."""
        rows, columns = self._values
        return rows @ values @ columns.T

    def at_corners(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., h + 1, w + 1) means over the window around each corner."""
        rows, columns = self._corners
        return rows @ values @ columns.T


def _means(
    middles: torch.Tensor, count: int, before: int, after: int, like: torch.Tensor
) -> torch.Tensor:
    """Return (middles, count) weights of values in means from `before` to `after` of middles."""
    places = torch.arange(count)
    inside = (places >= middles[:, None] - before) & (places < middles[:, None] + after)
    weights = inside.to(torch.float64)
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.dtype).to(like.device)
