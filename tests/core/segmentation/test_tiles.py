"""The argmax against every query computed in every pixel, in float64."""

import numpy as np
import pytest

from clearclip_core.segmentation.tiles import TileArgmax, first_maximum
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
    cells = (axis.upsampling.cells(12.0) for axis in (ROWS, COLUMNS))
    argmax = TileArgmax(values.swapaxes(1, 2)[:, None], query_labels, *cells)
    bare, labels = np.full((2, ROWS.image_px, COLUMNS.image_px), -2, np.int16)
    covered = 0
    both = zip(argmax.decide(bare, with_values=False), argmax.decide(labels), strict=True)
    for (rows, none), (again, found) in both:
        assert rows == again
        assert rows.start == covered
        covered = rows.stop
        part = full[rows]
        assert not none.size
        assert np.array_equal(bare[rows], labels[rows])
        won = np.take_along_axis(part, (queries - 1 - labels[rows])[..., None].astype(int), axis=2)
        # Where two are equal up to rounding, either may win.
        assert won[..., 0] == pytest.approx(part.max(axis=2), abs=1e-6)
        assert found == pytest.approx(part.max(axis=2), abs=1e-6)
        assert (labels[rows] == query_labels[part.argmax(axis=2)]).mean() > 0.999
    assert covered == ROWS.image_px


def test_cells_without_a_pixel_decide_nothing() -> None:
    """A picture that is made larger for the model bends more often than it has pixels."""
    axis = Axis(12, 160, 48, (0, 24, 48, 72, 96, 112), 16)
    values = np.random.default_rng(0).random((axis.matrix.shape[1], axis.matrix.shape[1], 5))
    full = np.einsum("yi,xj,ijq->yxq", axis.matrix, axis.matrix, values)
    cells = axis.upsampling.cells(12.0)
    assert (cells.sizes_px == 0).any()
    maps, owners = values.swapaxes(1, 2)[:, None], np.arange(5, dtype=np.int16)
    labels = np.empty((axis.image_px, axis.image_px), np.int16)
    list(TileArgmax(maps, owners, cells, cells).decide(labels))
    assert np.array_equal(labels, full.argmax(axis=2))


@pytest.mark.parametrize("count", [1, 2, 12, 300])
@pytest.mark.parametrize("width", [50, 1000])
def test_the_first_of_the_largest_candidates_wins(count: int, width: int) -> None:
    values = np.random.default_rng(2).integers(0, 40, (count, 5, width)) / 8  # many are equal
    winner, largest = first_maximum(values)
    assert np.array_equal(largest, values.max(axis=0))
    assert np.array_equal(winner, values.argmax(axis=0))


AXES = [
    Axis(1367, 448, 448, (0,), 16),  # made larger afterwards, one window
    Axis(2048, 671, 448, (0, 223), 16),
    Axis(333, 160, 48, (0, 24, 48, 72, 96, 112), 16),
    Axis(50, 160, 48, (0, 24, 48, 72, 96, 112), 16),  # made smaller afterwards
    Axis(160, 160, 45, (0, 24, 48, 72, 96, 115), 16),  # padded
    Axis(1, 64, 64, (0,), 16),
    Axis(16, 3, 3, (0,), 16),
    Axis(1, 1, 1, (0,), 16),
]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("most_px", [1.0, 5.0, 12.0, 1000.0])
def test_every_pixel_is_linear_between_the_ends_of_its_cell(axis: Axis, most_px: float) -> None:
    cells = axis.upsampling.cells(most_px)
    cell, place = np.repeat(np.arange(len(cells.sizes_px)), cells.sizes_px), cells.fractions
    first, last = cells.matrix[cell], cells.matrix[cell + 1]
    assert first + place[:, None] * (last - first) == pytest.approx(axis.matrix, abs=1e-12)
    assert cells.sizes_px.max() <= max(np.ceil(most_px), 1) + 1


@pytest.mark.parametrize("axis", AXES)
def test_samples_make_cubics_exactly(axis: Axis) -> None:
    """The cube of what is linear in a piece is a cubic in it."""
    slope = np.linspace(-1, 1, axis.matrix.shape[1])
    for spacing_px in (1.0, 4.0, 30.0, np.inf):
        samples = axis.upsampling.samples(np.full(len(axis.upsampling.breakpoints) - 1, spacing_px))
        made = samples.cubics @ (samples.matrix @ slope) ** 3
        assert made == pytest.approx((axis.matrix @ slope) ** 3, abs=1e-9)
    assert len(samples.matrix) <= axis.image_px
