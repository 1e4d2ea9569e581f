"""Colour guided filter: maps that follow the image's edges, fitted on a small image.

Maps made of patches, some 16 px wide, have edges like stairs. A guided filter (He, Sun and Tang,
"Guided Image Filtering", 2013) fits each map by a linear function of the image's colours in every
window of a few patches, so that the map changes where the colours change. The linear functions
vary slowly. So they are fitted on a shrunken image ("Fast Guided Filter", He and Sun, 2015), and
only their products with the colours are computed at full size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.tiles import Float32s, ImageTiles, Scratch, TileGrid
from clearclip_core.segmentation.upsampling import AxisUpsampling, Indices, Matrix
from clearclip_core.thread_pools import one_thread

#: Pixels of a block of `GuidedFilter.row_blocks`: so many that calling torch costs little, and so
#: few that the block stays in a CPU's cache.
BLOCK_PX = 128_000

#: Rows of tiles whose functions are interpolated along their edges at once.
_ROWS_AT_ONCE = 8

Maps = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Refinement:
    """Parameters of the guided filter.

    The defaults are chosen on photographs and on drawn scenes, with and without sensor noise
    and JPEG artefacts.

    Attributes:
        radius_patches: half the side of the windows in which a map is fitted to the colours.
        tiles_per_patch: tiles along a patch's side; a map is fitted to its means in tiles.
        epsilon: variance of colours, each in [0, 1]. Variance far below it is smoothed as noise,
            variance far above it is kept as an edge.

    Raises:
        ValueError: a value is not positive.
    """

    radius_patches: float = 1.5
    tiles_per_patch: int = 2
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("radius_patches", "tiles_per_patch", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"Expected argument `{name}` to be positive, but got {getattr(self, name)}."
                )

    def grid(self, image_hw: tuple[int, int], patch_px: float) -> TileGrid:
        """Return the tiles of an image whose patches have a side of `patch_px`.

        Raises:
            ValueError: `patch_px` is not positive and finite.
        """
        if not 0 < patch_px < np.inf:
            raise ValueError(f"Expected argument `patch_px` to be positive, but got {patch_px}.")
        tile_px = max(1, round(patch_px / self.tiles_per_patch))
        return TileGrid(image_hw, tile_px, max(1, round(self.radius_patches * patch_px / tile_px)))


#: Default parameters.
REFINEMENT = Refinement()


class WindowMeans:
    """Means over the parts of square windows that lie inside a map.

    The windows are separable, and so is the number of values inside the map. So the means along
    each axis are one product with a band matrix.

    Args:
        like: a tensor of the dtype and device of the maps.
    """

    def __init__(self, size_hw: tuple[int, int], radius: int, like: torch.Tensor) -> None:
        self._values = [_band_matrix(n, n, radius, radius + 1, like) for n in size_hw]
        self._corners = [_band_matrix(n + 1, n, radius, radius, like) for n in size_hw]

    def at_values(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., h, w) means over the window around each value."""
        rows, columns = self._values
        return rows @ values @ columns.T

    def at_corners(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., h + 1, w + 1) means over the window around each corner."""
        rows, columns = self._corners
        return rows @ values @ columns.T


def _band_matrix(
    middles: int, count: int, before: int, after: int, like: torch.Tensor
) -> torch.Tensor:
    """Return (middles, count) weights of values in means from `before` to `after` of middles."""
    places = torch.arange(count, device=like.device)
    middle = torch.arange(middles, device=like.device)[:, None]
    weights = ((places >= middle - before) & (places < middle + after)).to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


#: Maps are fitted so many at a time that their means have at most this many elements.
_FIT_ELEMENTS = 1 << 18


class ColourFit:
    """Linear functions of an image's colours that are fitted to maps, on any device.

    Args:
        colours: (3, rows, columns) float64 mean colours of the tiles, in [0, 1]. In float32 the
            rounding error of a constant colour's covariance would not be far below epsilon.
        epsilon: variance of colours, see `Refinement`.
    """

    def __init__(self, colours: torch.Tensor, grid: TileGrid, epsilon: float) -> None:
        self._colours = torch.cat([colours, torch.ones_like(colours[:1])])
        self._means = WindowMeans(grid.tiles_hw, grid.radius, colours)
        self._around = WindowMeans(grid.tiles_hw, 1, colours)
        self._mean_colours = self._means.at_values(colours)
        products = self._means.at_values(colours[:, None] * colours)  # (3, 3, h, w)
        covariance = products - self._mean_colours[:, None] * self._mean_colours
        identity = torch.eye(3, dtype=colours.dtype, device=colours.device)
        self._inverse = _inverse(covariance + epsilon * identity[..., None, None])

    def fit(self, tiles: torch.Tensor) -> torch.Tensor:
        """Fit maps to the colours in every window, and average the overlapping windows.

        Args:
            tiles: (K, rows, columns) means of the maps in tiles.

        Returns:
            (K, 4, rows + 1, columns + 1) float32 linear functions at the corners of the tiles:
            factors of red, green and blue, each in [0, 255], and an offset.
        """
        step = max(1, _FIT_ELEMENTS // (4 * tiles[0].numel()))
        return torch.cat([self._fit(some) for some in torch.split(tiles.double(), step)])

    def _fit(self, tiles: torch.Tensor) -> torch.Tensor:
        means = self._means.at_values(tiles[:, None] * self._colours)  # (K, 4, h, w)
        covariance = means[:, :3] - self._mean_colours * means[:, 3:]
        slopes = (self._inverse * covariance[:, None]).sum(dim=2)
        offsets = means[:, 3:] - (slopes * self._mean_colours).sum(dim=1, keepdim=True)
        return self._means.at_corners(torch.cat([slopes / 255, offsets], dim=1)).float()

    def at_corners(self, functions: torch.Tensor) -> torch.Tensor:
        """Evaluate linear functions at the corners of tiles, at the mean colours around them.

        Args:
            functions: (K, 4, rows + 1, columns + 1), see `fit`.

        Returns:
            (K, rows + 1, columns + 1) float32.
        """
        colours = (255 * self._around.at_corners(self._colours[:3])).float()
        return (functions[:, :3] * colours).sum(dim=1) + functions[:, 3]

    def fit_with_detail(self, roots: torch.Tensor, root_knots: torch.Tensor) -> torch.Tensor:
        """Fit maps to the colours, and add again of the rest what is no noise.

        Args:
            roots: (K, rows + 1, columns + 1) square roots of the labels' probabilities at the
                corners of the tiles, see ``TileGrid.corners_px``.
            root_knots: (K, rows + 1, columns + 1) the same in values from which pixels are
                interpolated best, see ``Scores.logits_at_knots``.

        Returns:
            (K, 4, rows + 1, columns + 1) float32 linear functions, see `fit`.
        """
        rows = roots[:, :-1] + roots[:, 1:]
        functions = self.fit(0.25 * (rows[..., :-1] + rows[..., 1:]))
        explained = self.at_corners(functions)
        share = kept_share(noise_variance(explained, roots - explained)).to(functions)
        functions *= raising_factors(roots, explained, 1 - share)[:, None, None, None]
        functions[:, 3] += share * (root_knots - explained)
        return functions


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Invert (3, 3, ...) symmetric matrices by their cofactors."""
    rows = [
        torch.linalg.cross(matrices[(i + 1) % 3], matrices[(i + 2) % 3], dim=0) for i in range(3)
    ]
    cofactors = torch.stack(rows)
    determinant = (matrices[0] * cofactors[0]).sum(dim=0)
    return cofactors / determinant


#: Variance of the logits' noise at which half of the detail is kept, and how fast the kept share
#: falls with it. Chosen on photographs whose scores are made of their masks.
_HALF_KEPT, _STEEPNESS = 0.4, 3

#: Share of the places of an image whose rest is no detail. Many of them lie inside one large thing,
#: where noise leaves little; so the estimate is of those with the most.
_PLACES_OF_NOISE = 0.7

#: Share of the places of an image that lie above a label's peak.
_ABOVE_PEAK = 0.001

#: Exponent of the factor by which a label's map is raised where no detail is kept: 1 restores its
#: peak, which noise has raised too. And the largest quotient of peaks.
_RAISED, _MOST_RAISED = 0.75, 4.0

#: A peak is at least this, as the root of a probability: lower ones are of noise alone.
_LEAST_PEAK = 0.05

#: Probabilities are at least this where the effect of noise on them is computed.
_LEAST_PROBABILITY = 1e-3


def raising_factors(
    roots: torch.Tensor, explained: torch.Tensor, dropped_share: torch.Tensor
) -> torch.Tensor:
    """Return the factors that raise labels whose peaks the filter has lowered: (K,) from 1 on.

    Args:
        roots: (K, h, w) roots of probabilities.
        explained: (K, h, w) what the colours explain of them.
        dropped_share: share of the detail that is left out, in [0, 1]; with 0, all factors are 1.

    >>> thin = torch.zeros(1, 1, 5)
    >>> thin[..., 2] = 0.8
    >>> raising_factors(thin, thin / 2, torch.ones(()))  # 2 to the power of 0.75
    tensor([1.6818])
    """
    places = roots[0].numel()
    above = places + int(-(1 - _ABOVE_PEAK) * (places - 1) // 1)
    before, after = (
        maps.flatten(1).topk(above, dim=1).values[:, -1] for maps in (roots, explained)
    )
    quotients = (before / after.clamp(min=_LEAST_PEAK)).clamp(1, _MOST_RAISED)
    return 1 + dropped_share * (quotients**_RAISED - 1)


def noise_variance(explained: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Estimate the variance of noise that is on the logits in all of an image: () float64.

    If each logit has independent noise of variance s², the root of a softmax p has noise of
    variance s² p (1 - 2 p + Σ p²) / 4, to first order. The ratio of the squared rest to that, both
    summed over the labels, is an estimate of s² at one place. Places differ, and where there is
    detail it is far too large; a quantile of all places is returned.

    Args:
        explained: (K, h, w) roots of probabilities as the colours explain them.
        rest: (K, h, w) what they leave of the roots.
    """
    # In float64 the order of the labels changes nothing that is seen.
    probability = explained.double().clamp(_LEAST_PROBABILITY**0.5, 1) ** 2
    probability /= probability.sum(dim=0)
    squares = (probability**2).sum(dim=0)
    per_variance = (probability * (1 - 2 * probability + squares)).sum(dim=0) / 4
    places = (rest.double() ** 2).sum(dim=0)
    places /= per_variance.clamp(min=_LEAST_PROBABILITY**2)
    ordered = places.flatten().sort().values  # torch's quantile would make the host wait
    place = _PLACES_OF_NOISE * (len(ordered) - 1)
    low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    return low + (place % 1) * (high - low)


def kept_share(variance: torch.Tensor) -> torch.Tensor:
    """Return the share of the detail that is kept where logits have noise of this variance.

    >>> kept_share(torch.tensor([0.0, 0.4, 4.0])).round(decimals=2)
    tensor([1.0000, 0.5000, 0.0000])
    """
    return 1 / (1 + (variance / _HALF_KEPT) ** _STEEPNESS)


@one_thread()
def guided(
    image: RGBArray, maps: Maps, patch_px: float, refinement: Refinement = REFINEMENT
) -> Float32s:
    """Refine maps of an image, each by itself: (K, H, W) float32.

    The filter is linear: maps that add up to 1 still do, and a constant map stays constant. Next
    to edges values may overshoot by some percent.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: (K, h, w) float, maps of the whole image; a value stands in the middle of its part.
        patch_px: side of a patch in px of `image`, the unit of the radius.

    Raises:
        ValueError: an argument is not as described.

    >>> image = np.zeros((32, 32, 3), np.uint8)
    >>> image[:, 13:] = 200
    >>> left = np.array([[[1.0, 0.0], [1.0, 0.0]]])  # the edge is at a patch's end, at 16 px
    >>> np.flatnonzero(guided(image, left, patch_px=16)[0, 0] > 0.5)[-1]
    np.int64(12)
    """
    guided_filter = GuidedFilter(image, patch_px, refinement)
    if maps.ndim != 3 or not maps.size or not np.issubdtype(maps.dtype, np.floating):
        raise ValueError(
            f"Expected argument `maps` to be (K, h, w) float, but got {maps.shape} {maps.dtype}."
        )
    tiles = torch.from_numpy(np.stack([guided_filter.tile_means(one) for one in maps]))
    functions = guided_filter.colour_fit.fit(tiles).numpy()
    refined = np.empty((len(maps), *image.shape[:2]), np.float32)
    for own, function in zip(refined, functions, strict=True):
        for rows, values in guided_filter.row_blocks(tile_corners(function)):
            own[rows] = values.numpy()
    return refined


class GuidedFilter:
    """A colour guided filter for one image, which is cut into square tiles.

    Tiles at the right and at the bottom may reach beyond the image, whose last pixels are
    repeated there.

    Args:
        image: (H, W, 3) uint8 RGB.
        patch_px: side of a patch in px of `image`.
    """

    def __init__(
        self, image: RGBArray, patch_px: float, refinement: Refinement = REFINEMENT
    ) -> None:
        check_image(image)
        self.grid = refinement.grid((image.shape[0], image.shape[1]), patch_px)
        self.image_hw, self.tile_px = self.grid.image_hw, self.grid.tile_px
        self.tiles_hw = self.grid.tiles_hw
        self._fraction = _fractions(self.tile_px)
        self._scratch = Scratch()
        self.tiles = ImageTiles(image, self.grid)
        colours = torch.from_numpy(self.tiles.mean_colours().transpose(2, 0, 1) / 255)
        self.colour_fit = ColourFit(colours, self.grid, refinement.epsilon)

    def tile_means(self, values: Maps) -> Matrix:
        """Interpolate a map (h, w) of the whole image in the middles of tiles: (rows, columns)."""
        upsamplings = [
            AxisUpsampling(np.eye(n), px) for n, px in zip(values.shape, self.image_hw, strict=True)
        ]
        down, along = (
            axis.at(axis.positions(centres))
            for axis, centres in zip(upsamplings, self.grid.centres_px, strict=True)
        )
        return np.asarray(down @ values @ along.T, np.float64)

    def row_blocks(self, corners: Float32s) -> Iterator[tuple[slice, torch.Tensor]]:
        """Evaluate one linear function for each tile at all of its pixels, by blocks of rows.

        Args:
            corners: (4, 4, rows, columns): the functions, see `ColourFit.fit`, at the corners of
                the tiles.

        Yields:
            Rows of the image, and (h, W) float32 values of their pixels, which the next block
            overwrites.
        """
        width, px = self.image_hw[1], self.tile_px
        for first in range(0, self.tiles_hw[0], _ROWS_AT_ONCE):
            some = corners[:, :, first : first + _ROWS_AT_ONCE].transpose(2, 0, 1, 3)
            above, down = (torch.from_numpy(each[..., None, :width]) for each in _ends(some, px))
            for row, ends in enumerate(zip(above, down, strict=True), first):
                yield from self._blocks_of_row(row, *(each.unbind() for each in ends))

    def _blocks_of_row(
        self, row: int, above: Sequence[torch.Tensor], down: Sequence[torch.Tensor]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the blocks of one row of tiles; see `_values` for the functions."""
        pixels = self.tiles.row_inside(row)
        height, width = pixels.shape[:2]
        fractions = torch.from_numpy(self._fraction)[:height, None]
        count = min(height, -(-height * width // BLOCK_PX))
        # Arrays are split at once: each view costs as much of the interpreter as a product.
        blocks = zip(
            fractions.tensor_split(count),
            *(each.tensor_split(count) for each in planes(pixels)),
            strict=True,
        )
        first = row * self.tile_px
        for some, *colours in blocks:
            yield (
                slice(first, first + len(some)),
                _values(above, down, colours, some, self._scratch),
            )
            first += len(some)

    def strip_values(
        self, top: Indices, left: Indices, side: int, functions: Float32s
    ) -> npt.NDArray[np.float32]:
        """Evaluate several linear functions for each of some squares at all of their pixels.

        Args:
            top: (N,) first rows of the squares in px, at most `block_squares`.
            left: (N,) first columns.
            functions: (K, 4, 4, N): the functions, see `ColourFit.fit`, at the four corners of
                the squares.

        Returns:
            (K, side, N * side) float32 values of each function, pixels beyond the image included;
            squares lie side by side. The next call overwrites them.
        """
        above, down = (_by_factor(each) for each in _ends(functions, side))
        fractions = torch.from_numpy(_fractions(side))[:, None]
        colours = planes(self.tiles.strip(top, left, side))
        return _values(above, down, colours, fractions, self._scratch).numpy()


def block_squares(side: int) -> int:
    """Return how many squares are about a block together."""
    return max(1, BLOCK_PX // side**2)


def _fractions(side: int) -> Float32s:
    """Return (side,) where pixels have their centres along the side of a square, in [0, 1]."""
    fractions: Float32s = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return fractions


def _ends(corners: Float32s, side: int) -> tuple[Float32s, Float32s]:
    """Interpolate functions along squares: (..., 4, 4, N) -> above and below, (..., 4, n) each.

    The second is what it is more below than above.
    """
    left, right = corners[..., 0::2, :], corners[..., 1::2, :]
    along = left[..., None] + (right - left)[..., None] * _fractions(side)
    along = along.reshape(*corners.shape[:-2], 2, -1)
    above, below = along[..., 0, :], along[..., 1, :]
    return above, below - above


def _by_factor(ends: Float32s) -> tuple[torch.Tensor, ...]:
    """(..., 4, n) -> four of (..., 1, n)."""
    return torch.from_numpy(ends).unsqueeze(-2).unbind(-3)


def _values(
    above: Sequence[torch.Tensor],
    down: Sequence[torch.Tensor],
    colours: Sequence[torch.Tensor],
    fractions: torch.Tensor,
    scratch: Scratch,
) -> torch.Tensor:
    """Evaluate functions at pixels of squares: (..., h, n).

    Args:
        above: four (..., 1, n), see `_ends`.
        down: four (..., 1, n).
        colours: red, green and blue, uint8 (h, n) each.
        fractions: (h, 1), where the pixels have their centres along the side of a square.
    """
    (*factors, value), (*slopes, slope) = above, down
    shape = (*value.shape[:-2], *colours[0].shape)
    values, rises = scratch.get("values", shape), scratch.get("rises", shape)
    colour = scratch.get("colour", tuple(colours[0].shape))
    for plane, factor, rise in zip(colours, factors, slopes, strict=True):
        colour.copy_(plane)
        value = torch.addcmul(value, colour, factor, out=values)
        slope = torch.addcmul(slope, colour, rise, out=rises)
    return values.addcmul_(rises, fractions)


def planes(pixels: RGBArray) -> list[torch.Tensor]:
    """Return red, green and blue of (h, n, 3) pixels, uint8 (h, n) each."""
    return [torch.from_numpy(plane) for plane in cv2.split(pixels)]


def check_image(image: RGBArray) -> None:
    """Check that an image is (H, W, 3) uint8 with a pixel.

    Raises:
        ValueError: it is not.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"Expected argument `image` to be (H, W, 3) uint8, but got {image.shape} {image.dtype}."
        )


def tile_corners(functions: Float32s) -> Float32s:
    """(..., rows + 1, columns + 1) -> (..., 4, rows, columns): values at each tile's corners."""
    above, below = functions[..., :-1, :], functions[..., 1:, :]
    ends = [above[..., :-1], above[..., 1:], below[..., :-1], below[..., 1:]]
    return np.stack(ends, axis=-3)
