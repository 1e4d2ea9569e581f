"""The argmax against every query computed in every pixel, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.argmax import ArgmaxBands, first_maximum
from clearclip_core.segmentation.windows import Axis

#: Overlapping windows, the last one pushed back; 18 and 30 patches in all.
ROWS = Axis(211, 100, 48, (0, 24, 48, 52), 16)
COLUMNS = Axis(333, 160, 48, (0, 24, 48, 72, 96, 112), 16)


def cosines(queries: int, spread: float, dtype: type = np.float64) -> np.ndarray:
    """(h, w, Q), smooth from patch to patch as features are, of a standard deviation `spread`."""
    rng = np.random.default_rng(queries)
    (height, width) = (axis.matrix.shape[1] for axis in (ROWS, COLUMNS))
    noise = rng.standard_normal((height, width, queries))
    smooth = noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))
    return (spread * smooth / smooth.std()).astype(dtype)


def everywhere(values: np.ndarray) -> np.ndarray:
    """(h, w, Q) -> (H, W, Q): both matrices in full."""
    return np.einsum("yi,xj,ijq->yxq", ROWS.matrix, COLUMNS.matrix, values, optimize=True)


@pytest.mark.parametrize(
    ("dtype", "queries", "spread"),
    [
        (np.float64, 1, 0.03),
        (np.float32, 2, 0.3),
        (np.float32, 7, 0.001),
        (np.float64, 7, 0.3),
        (np.float32, 60, 0.001),
        (np.float64, 60, 0.03),
    ],
)
def test_winners_are_those_of_all_queries(dtype: type, queries: int, spread: float) -> None:
    values = cosines(queries, spread, dtype)
    full = everywhere(values.astype(np.float64))
    query_labels = np.arange(queries, dtype=np.int16)[::-1]
    argmax = ArgmaxBands(values, query_labels, ROWS.upsampling, COLUMNS.upsampling)
    covered = 0
    for bare, band in zip(argmax.bands(False), argmax.bands(True), strict=True):
        assert bare.rows == band.rows
        assert band.rows.start == covered
        covered = band.rows.stop
        part = full[band.rows]
        assert np.array_equal(bare.labels, band.labels)
        won = np.take_along_axis(part, (queries - 1 - band.labels)[..., None].astype(int), axis=2)
        # Where two are equal up to rounding, either may win.
        assert won[..., 0] == pytest.approx(part.max(axis=2), abs=1e-6)
        assert band.cosines == pytest.approx(part.max(axis=2), abs=1e-6)
        assert (band.labels == query_labels[part.argmax(axis=2)]).mean() > 0.999
    assert covered == ROWS.image_px


@pytest.mark.parametrize("count", [1, 2, 12, 300])
def test_the_first_of_the_largest_candidates_wins(count: int) -> None:
    generator = np.random.default_rng(2)
    values = generator.integers(0, 40, (5, count, 50)) / 8  # many are equal
    labels = generator.permutation(5 * count).reshape(5, count).astype(np.int16) - 1
    winner, largest = first_maximum(values, labels)
    assert np.array_equal(largest, values.max(axis=1))
    assert np.array_equal(winner, np.take_along_axis(labels, values.argmax(axis=1), axis=1))
