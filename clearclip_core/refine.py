"""Maps that follow the picture's edges: a colour guided filter, fitted small, applied full size.

Patches are some 16 px wide, so what is made of them has edges of stairs. A guided filter (He, Sun
and Tang, "Guided Image Filtering", 2013) takes each map for a linear function of the picture's
colours in every window of some patches: where the map changes, it changes where colours do. The
linear functions vary slowly; so they are fitted on a shrunken picture ("Fast Guided Filter", He
and Sun, 2015), and only their products with the colours are computed at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.lattice import Course, Matrix
from clearclip_core.pictures import RGBArray

Maps = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Refinement:
    """How far and how closely maps follow the picture.

    Attributes:
        radius_patches: half the side of the windows in which a map is fitted to the colours.
        tiles_per_patch: tiles along a patch's side; a map is fitted by its means in tiles.
        epsilon: variance of colours, each in [0, 1], from which on they count: what is far below
            is smoothed away as noise, what is far above is an edge.

    Raises:
        ValueError: a value is not positive.
    """

    radius_patches: float = 2.0
    tiles_per_patch: int = 4
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("radius_patches", "tiles_per_patch", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Expected argument `{name}` to be positive, but got {getattr(self, name)}."
                )


#: What is used where nobody says otherwise.
REFINEMENT = Refinement()


def guided(
    image: RGBArray, maps: Maps, patch_px: float, refinement: Refinement = REFINEMENT
) -> npt.NDArray[np.float32]:
    """Refine maps of a picture, each for itself.

    The filter is linear: maps that add up to 1 still do, and a constant map stays as it is. Next
    to edges it may overshoot by some percent.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: (K, h, w) float, maps of the whole picture in its own size or a smaller one.
        patch_px: side of a patch in px of `image`, the unit of the radius.
        refinement: how far and how closely.

    Raises:
        ValueError: an argument is not as described.

    Returns:
        (K, H, W) float32.

    >>> picture = np.zeros((32, 32, 3), np.uint8)
    >>> picture[:, 13:] = 200
    >>> left = np.array([[[1.0, 0.0], [1.0, 0.0]]])  # the edge is at a patch's end, at 16 px
    >>> np.flatnonzero(guided(picture, left, patch_px=16)[0, 0] > 0.5)[-1]
    np.int64(12)
    """
    guide = Guide(image, patch_px, refinement)
    if maps.ndim != 3 or not maps.size or not np.issubdtype(maps.dtype, np.floating):
        raise ValueError(
            f"Expected argument `maps` to be (K, h, w) float, but got {maps.shape} {maps.dtype}."
        )
    functions = np.stack([guide.fit(guide.tiles(each)) for each in maps])
    made = np.empty((len(maps), *image.shape[:2]), np.float32)
    for rows, band in guide.bands(functions):
        made[:, rows] = band
    return made


class Guide:
    """A picture cut into square tiles, to whose colours maps are fitted.

    Tiles at the right and at the bottom may reach out of the picture, whose last pixels are
    repeated there.

    Args:
        image: (H, W, 3) uint8 RGB.
        patch_px: side of a patch in px of `image`.
        refinement: how far and how closely.

    Raises:
        ValueError: an argument is not as described.
    """

    def __init__(
        self, image: RGBArray, patch_px: float, refinement: Refinement = REFINEMENT
    ) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                "Expected argument `image` to be (H, W, 3) uint8, but got "
                f"{image.shape} {image.dtype}."
            )
        if not 0 < patch_px < np.inf:
            raise ValueError(f"Expected argument `patch_px` to be positive, but got {patch_px}.")
        self.image_hw = image.shape[0], image.shape[1]
        self.tile_px = max(1, round(patch_px / refinement.tiles_per_patch))
        self.tiles_hw = -(-image.shape[0] // self.tile_px), -(-image.shape[1] // self.tile_px)
        self._radius = max(1, round(refinement.radius_patches * patch_px / self.tile_px))
        self._padded = self._pad(image)
        colours = self._means(self._padded) / 255
        self._mean_colours = _window_means(colours, self._radius)
        self._colours = np.dstack([colours, np.ones(self.tiles_hw)])  # (h, w, 4)
        products = colours[..., :, None] * colours[..., None, :]
        covariance = _window_means(products.reshape(*self.tiles_hw, 9), self._radius)
        covariance = covariance.reshape(products.shape)
        covariance -= self._mean_colours[..., :, None] * self._mean_colours[..., None, :]
        # In float64 what rounding leaves of a constant colour's covariance is far below epsilon.
        self._inverse = np.linalg.inv(covariance + refinement.epsilon * np.eye(3))

    @property
    def centres_px(self) -> tuple[Matrix, Matrix]:
        """Rows and columns of the tiles' centres; pixel 0 has its centre at 0."""
        height, width = self.tiles_hw
        rows = (np.arange(height, dtype=np.float64) + 0.5) * self.tile_px - 0.5
        columns = (np.arange(width, dtype=np.float64) + 0.5) * self.tile_px - 0.5
        return rows, columns

    def tiles(self, each: Maps) -> Matrix:
        """Shrink one map (h, w) of the whole picture, of its size or less, to the tiles."""
        if each.shape == self.image_hw:
            return self._means(self._pad(each))
        courses = [Course(np.eye(n), px) for n, px in zip(each.shape, self.image_hw, strict=True)]
        down, along = (
            course.at(course.positions(centres))
            for course, centres in zip(courses, self.centres_px, strict=True)
        )
        return np.asarray(down @ each @ along.T, np.float64)

    def fit(self, tiles: Matrix) -> npt.NDArray[np.float32]:
        """Fit one map's values in tiles to the colours in every window, and average the windows.

        Args:
            tiles: (rows, columns), see `tiles`.

        Returns:
            (4, rows + 1, columns + 1) at the corners of the tiles: what red, green and blue, each
            in [0, 255], are multiplied by, and what is added.
        """
        means = _window_means(tiles[..., None] * self._colours, self._radius)  # (h, w, 4)
        covariance = means[..., :3] - self._mean_colours * means[..., 3:]
        slopes = (self._inverse @ covariance[..., None])[..., 0]
        offset = means[..., 3] - (slopes * self._mean_colours).sum(axis=-1)
        function = _corner_means(np.dstack([slopes / 255, offset]), self._radius)
        return np.ascontiguousarray(function.transpose(2, 0, 1), np.float32)

    def bands(
        self, functions: npt.NDArray[np.float32]
    ) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Values of linear functions at full size, in bands of rows.

        Args:
            functions: (K, 4, rows + 1, columns + 1), see `fit`.

        Yields:
            Which rows of the picture, and their (K, r, W).
        """
        height, width = self.image_hw
        place = (np.arange(self.tile_px, dtype=np.float32) + 0.5) / self.tile_px
        for row in range(self.tiles_hw[0]):
            rows = slice(row * self.tile_px, min((row + 1) * self.tile_px, height))
            colours = self._padded[rows].astype(np.float32).transpose(2, 0, 1)[..., :width]
            ends = functions[:, :, row : row + 2]
            lines = ends[..., :-1, None] + np.diff(ends)[..., None] * place  # (K, 4, 2, w, tile)
            lines = lines.reshape(*ends.shape[:3], -1)[..., :width]
            growth = (lines[:, :, 1] - lines[:, :, 0])[:, :, None]
            planes = growth * place[: len(colours[0]), None] + lines[:, :, :1]  # (K, 4, r, W)
            planes[:, :3] *= colours
            yield rows, planes.sum(axis=1)

    def _pad(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Repeat the last row and column up to whole tiles."""
        missing = [
            n * self.tile_px - px for n, px in zip(self.tiles_hw, values.shape, strict=False)
        ]
        below, right = missing
        return np.asarray(cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_REPLICATE))

    def _means(self, padded: npt.NDArray[Any]) -> Matrix:
        """(rows, columns, ...) float64 means in tiles."""
        height, width = self.tiles_hw
        shrunken = cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(shrunken, np.float64)


def _window_means(values: Matrix, radius: int) -> Matrix:
    """(h, w, C) -> means over the windows around each value, as far as they are inside."""
    side = (2 * radius + 1, 2 * radius + 1)
    return _box(values, side) / _box(np.ones((*values.shape[:2], 1)), side)


def _corner_means(values: Matrix, radius: int) -> Matrix:
    """(h, w, C) -> (h + 1, w + 1, C) means over the windows around each corner."""
    side = (2 * radius, 2 * radius)  # the value at OpenCV's anchor is the one behind the corner
    padded, ones = (
        np.pad(each, ((0, 1), (0, 1), (0, 0))) for each in (values, np.ones((*values.shape[:2], 1)))
    )
    return _box(padded, side) / _box(ones, side)


def _box(values: Matrix, side: tuple[int, int]) -> Matrix:
    """Sums in windows, by running sums; outside there is nothing."""
    sums = cv2.boxFilter(values, -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums).reshape(values.shape)  # without OpenCV's dropping of a last 1
