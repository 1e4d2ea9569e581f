"""The guided filter against least squares in one window after the other."""

from itertools import product

import numpy as np
import pytest

from clearclip_core.segmentation.guided_filter import GuidedFilter, Refinement, guided
from tests.core.conftest import picture


def around(middle: float, radius: float, count: int) -> range:
    """Indices of what lies within a radius and inside."""
    low, high = int(np.ceil(middle - radius)), int(np.floor(middle + radius))
    return range(max(low, 0), min(high, count - 1) + 1)


def one_by_one(
    image: np.ndarray, target: np.ndarray, tile: int, radius: int, epsilon: float
) -> np.ndarray:
    """Windows, corners and pixels, each by itself, in float64; a target value for each tile."""
    height, width = image.shape[:2]
    assert height % tile == width % tile == 0
    rows, columns = height // tile, width // tile
    colours = np.empty((rows, columns, 3))
    for y, x in product(range(rows), range(columns)):
        inside = slice(y * tile, (y + 1) * tile), slice(x * tile, (x + 1) * tile)
        colours[y, x] = image[inside].reshape(-1, 3).mean(axis=0) / 255
    fits = np.empty((rows, columns, 4))
    for y, x in product(range(rows), range(columns)):
        window = [(i, j) for i in around(y, radius, rows) for j in around(x, radius, columns)]
        equations = [[*colours[at], 1] for at in window]
        wanted = [target[at] for at in window]
        # Ridge regression: slopes are to be small, as if so many more equations said so.
        ridge = np.sqrt(len(window) * epsilon)
        equations += [[ridge if i == j else 0 for j in range(4)] for i in range(3)]
        answers = np.array([*wanted, 0, 0, 0])
        fits[y, x], *_ = np.linalg.lstsq(np.array(equations), answers, rcond=None)
    corners = np.empty((rows + 1, columns + 1, 4))
    for y, x in product(range(rows + 1), range(columns + 1)):
        near = (around(y - 0.5, radius - 0.5, rows), around(x - 0.5, radius - 0.5, columns))
        corners[y, x] = np.mean([fits[at] for at in product(*near)], axis=0)
    made = np.empty((height, width))
    for y, x in product(range(height), range(width)):
        down, along = (y + 0.5) / tile, (x + 0.5) / tile
        i, j = int(down), int(along)
        down, along = down - i, along - j
        above = (1 - along) * corners[i, j] + along * corners[i, j + 1]
        below = (1 - along) * corners[i + 1, j] + along * corners[i + 1, j + 1]
        function = (1 - down) * above + down * below
        made[y, x] = function[:3] @ (image[y, x] / 255) + function[3]
    return made


@pytest.mark.parametrize(
    ("size_hw", "patch_px", "tile", "radius"),
    [((24, 18), 4, 1, 4), ((24, 36), 12, 3, 4), ((12, 60), 12.4, 3, 4), ((6, 4), 1, 1, 1)],
)
def test_it_is_ridge_regression_window_by_window(
    size_hw: tuple[int, int], patch_px: float, tile: int, radius: int
) -> None:
    refinement = Refinement(radius_patches=1, tiles_per_patch=4, epsilon=1e-3)
    target = np.random.default_rng(1).random((size_hw[0] // tile, size_hw[1] // tile))
    # A tile's mean colour has whole steps of 1/255 only.
    colours = picture(size_hw[0] // tile, size_hw[1] // tile).repeat(tile, 0).repeat(tile, 1)
    expected = one_by_one(colours, target, tile, radius, 1e-3)
    made = guided(colours, np.stack([target, 1 - target]), patch_px, refinement)
    assert made.dtype == np.float32
    assert made == pytest.approx(np.stack([expected, 1 - expected]), abs=1e-5)


ODD_SIZES = [(1, 1), (1, 40), (40, 1), (16, 16), (16, 1200), (57, 83)]


@pytest.mark.parametrize("size_hw", ODD_SIZES)
@pytest.mark.parametrize("kind", ["constant", "grey", "colours"])
def test_a_constant_stays_and_parts_add_up(size_hw: tuple[int, int], kind: str) -> None:
    image = picture(*size_hw)
    if kind == "grey":
        image[:] = image[..., :1]
    elif kind == "constant":
        image[:] = 77
    parts = np.random.default_rng(2).random((3, 5, 7))
    parts[2] = 1 - parts[0] - parts[1]
    assert guided(image, parts, patch_px=5).sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert guided(image, np.full((1, 5, 7), 0.3), patch_px=5) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("patch_px", [16, 53.3])
def test_a_blurred_map_gets_the_edge_of_the_picture(patch_px: float) -> None:
    """A slanted edge between two colours, and a map that is off by half a patch."""
    size = round(14 * patch_px)
    y, x = np.mgrid[:size, :size]
    left = 2 * x + y < 1.3 * size
    image = np.where(left[..., None], np.uint8([90, 120, 60]), np.uint8([120, 100, 90]))
    blurred = 1 / (1 + np.exp((2 * x + y - 1.3 * size - 0.5 * patch_px) / (0.7 * patch_px)))
    assert not np.array_equal(blurred > 0.5, left)
    assert np.array_equal(guided(image, blurred[None], patch_px)[0] > 0.5, left)


@pytest.mark.parametrize("size_hw", [*ODD_SIZES, (150, 170)])
@pytest.mark.parametrize("patch_px", [5, 70])
def test_what_is_above_zero_is_found_in_a_box(size_hw: tuple[int, int], patch_px: int) -> None:
    image = picture(*size_hw)
    blob = np.full((2, 15, 17), -2.0)
    blob[:, 4:9, 3:6] = np.random.default_rng(3).uniform(-1, 2, (2, 5, 3))
    guided_filter = GuidedFilter(image, patch_px)
    for maps in (blob[:1], blob, -blob, np.full_like(blob, -2.0)):
        expected = (guided(image, maps, patch_px) > 0).all(axis=0)
        assert np.array_equal(guided_filter.all_above_zero(maps), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, "`image`"),
        ({"image": np.zeros((4, 4, 3))}, "`image`"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "`image`"),
        ({"maps": np.zeros((4, 4))}, "`maps`"),
        ({"maps": np.zeros((1, 4, 4), int)}, "`maps`"),
        ({"maps": np.zeros((0, 4, 4))}, "`maps`"),
        ({"patch_px": 0}, "`patch_px`"),
        ({"patch_px": float("inf")}, "`patch_px`"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    right = {"image": picture(4, 4), "maps": np.zeros((1, 4, 4)), "patch_px": 2}
    with pytest.raises(ValueError, match=message):
        guided(**right | arguments)


@pytest.mark.parametrize("name", ["radius_patches", "tiles_per_patch", "epsilon"])
def test_a_refinement_is_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Refinement(**{name: 0})
