"""Bands of rows."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation import row_bands


@pytest.mark.parametrize(("band_px", "tops"), [(1, [0, 1, 2]), (4, [0, 2]), (99, [0])])
def test_bands_are_whole_rows_and_cover_all(
    monkeypatch: pytest.MonkeyPatch, band_px: int, tops: list[int]
) -> None:
    monkeypatch.setattr(row_bands, "_BAND_PX", band_px)
    array = np.arange(6).reshape(3, 2)
    bands = list(row_bands.row_bands(array))
    assert [top for top, _ in bands] == tops
    assert np.array_equal(np.concatenate([band for _, band in bands]), array)


def test_an_array_without_columns_has_bands_without_pixels() -> None:
    assert [band.shape for _, band in row_bands.row_bands(np.empty((2, 0)))] == [(2, 0)]
