"""Bands of rows of an array, so small that what is computed of one stays in a core's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

#: Pixels of a band.
_BAND_PX = 1 << 18


def row_bands(
    array: npt.NDArray[Any], band_px: int | None = None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Iterate over bands of whole rows of an array (H, W).

    Args:
        array: the array.
        band_px: pixels of a band, about; so few by default that they stay in the cache.

    Yields:
        The first row, and a view (h, W).
    """
    height, width = array.shape
    rows_at_once = max(1, (band_px or _BAND_PX) // max(1, width))
    for top in range(0, height, rows_at_once):
        yield top, array[top : top + rows_at_once]
