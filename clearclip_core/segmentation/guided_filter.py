"""Colour guided filter: maps that follow the image's edges, fitted on a small image.

Maps made of patches, some 16 px wide, have edges like stairs. A guided filter (He, Sun and Tang,
"Guided Image Filtering", 2013) fits each map by a linear function of the image's colours in every
window of a few patches, so that the map changes where the colours change. The linear functions
vary slowly. So they are fitted on a shrunken image ("Fast Guided Filter", He and Sun, 2015), and
only their products with the colours are computed at full size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.images.preprocessing import RGBArray, to_device
from clearclip_core.segmentation.masks import bounding_box
from clearclip_core.segmentation.runs import BoolMask, PixelBox
from clearclip_core.segmentation.tiles import TileArgmax
from clearclip_core.segmentation.upsampling import AxisCells, AxisUpsampling, Matrix
from clearclip_core.thread_pools import one_thread

#: Tiles from this side on are cut in two along it: in smaller cells fewer maps can win, but the
#: pixels of cells that are small anyway cost less than to bound maps in more of them.
_CUT_FROM_PX = 32

#: Values are rounded: one that is at most this much below 0 is computed before it counts as such.
_MARGIN = 1e-4

Float32s = npt.NDArray[np.float32]
Maps = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class TileGrid:
    """Square tiles from the top left of an image on.

    Tiles at the right and at the bottom may reach beyond the image.

    >>> TileGrid((5, 9), tile_px=4, radius=1).tiles_hw
    (2, 3)
    """

    image_hw: tuple[int, int]  #: size of the image in px
    tile_px: int
    radius: int  #: half the side in tiles of the windows in which maps are fitted

    @property
    def tiles_hw(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.image_hw
        return -(-height // self.tile_px), -(-width // self.tile_px)

    @property
    def centres_px(self) -> tuple[Matrix, Matrix]:
        """Rows and columns of the tiles' centres in px; pixel 0 has its centre at 0."""
        rows, columns = (np.arange(n, dtype=np.float64) + 0.5 for n in self.tiles_hw)
        return rows * self.tile_px - 0.5, columns * self.tile_px - 0.5

    @property
    def corners_px(self) -> tuple[Matrix, Matrix]:
        """Rows and columns of the tiles' corners in px; pixel 0 has its centre at 0."""
        rows, columns = (np.arange(n + 1, dtype=np.float64) for n in self.tiles_hw)
        return rows * self.tile_px - 0.5, columns * self.tile_px - 0.5

    @property
    def cells(self) -> tuple[AxisCells, AxisCells]:
        """Rows and columns of the cells, one or two along a tile, in which the image has pixels."""
        rows, columns = map(self._axis_cells, self.image_hw)
        return rows, columns

    def _axis_cells(self, image_px: int) -> AxisCells:
        tiles = -(-image_px // self.tile_px)
        cuts = [0, -(-self.tile_px // 2)] if self.tile_px >= _CUT_FROM_PX else [0]
        starts = np.add.outer(self.tile_px * np.arange(tiles), cuts).ravel()
        ends = np.append(starts, self.tile_px * tiles)[: np.count_nonzero(starts < image_px) + 1]
        at = ends[:, None] / self.tile_px
        weights = np.maximum(1 - np.abs(at - np.arange(tiles + 1)), 0)
        return AxisCells.of(weights, ends - 0.5, np.arange(image_px, dtype=np.float64))


@dataclass(frozen=True)
class Refinement:
    """Parameters of the guided filter.

    The defaults are chosen on photographs and on drawn scenes, with and without sensor noise
    and JPEG artefacts.

    Raises:
        ValueError: a value is not positive.
    """

    radius_patches: float = 1.5  #: half the side of the windows in which maps are fitted to colours
    tiles_per_patch: int = 2  #: tiles along a patch's side; a map is fitted to its means in tiles
    #: variance of colours, each in [0, 1]. Variance far below it is smoothed as noise, variance far
    #: above it is kept as an edge.
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
        return rows @ (values @ columns.T)

    def at_corners(self, values: torch.Tensor) -> torch.Tensor:
        """Return (..., h + 1, w + 1) means over the window around each corner."""
        rows, columns = self._corners
        return rows @ (values @ columns.T)


def _band_matrix(
    middles: int, count: int, before: int, after: int, like: torch.Tensor
) -> torch.Tensor:
    """Return (middles, count) weights of values in means from `before` to `after` of middles."""
    places, middle = np.arange(count), np.arange(middles)[:, None]
    inside = (places >= middle - before) & (places < middle + after)
    weights = torch.from_numpy(inside / inside.sum(axis=1, keepdims=True)).to(like.dtype)
    return to_device(weights, like.device)


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
        around = WindowMeans(grid.tiles_hw, 1, colours)
        self._corner_colours = (255 * around.at_corners(colours)).float()
        self._mean_colours = self._means.at_values(colours)
        products = self._means.at_values(colours[:, None] * colours)  # (3, 3, h, w)
        covariance = products - self._mean_colours[:, None] * self._mean_colours
        identity = torch.eye(3, dtype=colours.dtype, device=colours.device)
        inverse = _inverse(covariance + epsilon * identity[..., None, None])
        self._inverse = inverse.unbind(dim=1)

    def fit(self, tiles: torch.Tensor) -> torch.Tensor:
        """Fit maps to the colours in every window, and average the overlapping windows.

        Args:
            tiles: (K, rows, columns) means of the maps in tiles.

        Returns:
            (K, 4, rows + 1, columns + 1) float32 linear functions at the corners of the tiles:
            factors of red, green and blue, each in [0, 255], and an offset.
        """
        means = self._means.at_values(tiles.double()[:, None] * self._colours)  # (K, 4, h, w)
        covariance = means[:, :3] - self._mean_colours * means[:, 3:]
        own, *others = covariance.unsqueeze(2).unbind(dim=1)  # (K, 1, h, w) each
        slopes = self._inverse[0] * own
        for inverse, own in zip(self._inverse[1:], others, strict=True):
            slopes.addcmul_(inverse, own)
        offsets = means[:, 3:] - (slopes * self._mean_colours).sum(dim=1, keepdim=True)
        return self._means.at_corners(torch.cat([slopes / 255, offsets], dim=1)).float()

    def at_corners(self, functions: torch.Tensor) -> torch.Tensor:
        """Evaluate functions of `fit` at the mean colours around the corners: (K, ...) float32."""
        return (functions[:, :3] * self._corner_colours).sum(dim=1) + functions[:, 3]

    def fit_with_detail(
        self, roots: torch.Tensor, root_knots: torch.Tensor, most_elements: int
    ) -> torch.Tensor:
        """Fit maps to the colours, and add the part of the residual back that is no noise.

        Beside its arguments and its result it needs memory for a few maps only.

        Args:
            roots: (K, rows + 1, columns + 1) square roots of the labels' probabilities at the
                corners of the tiles, see ``TileGrid.corners_px``.
            root_knots: (K, rows + 1, columns + 1) the same in values from which pixels are
                interpolated best, see ``AxisUpsampling.at_knots``.
            most_elements: most elements of the functions that are fitted at a time.

        Returns:
            (K, 4, rows + 1, columns + 1) float32 linear functions, see `fit`.
        """
        functions = roots.new_empty(len(roots), 4, *roots.shape[1:])
        step = max(1, most_elements // functions[0].numel())
        parts = (torch.split(each, step) for each in (functions, roots, root_knots))
        batches = list(zip(*parts, strict=True))
        for own, some, _ in batches:
            own.copy_(self.fit(F.avg_pool2d(some, 2, stride=1)))
        pairs = ((some, self.at_corners(own)) for own, some, _ in batches)
        share = kept_share(noise_variance(pairs)).to(functions)
        for own, some, knots in batches:
            explained = self.at_corners(own)
            own *= raising_factors(some, explained, 1 - share)[:, None, None, None]
            own[:, 3] += share * (knots - explained)
        return functions


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Invert (3, 3, ...) symmetric matrices by their cofactors."""
    rows = [torch.linalg.cross(matrices[i - 2], matrices[i - 1], dim=0) for i in range(3)]
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
        roots: (K, h, w) roots of probabilities; `explained` is what the colours explain of them.
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


def noise_variance(maps: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Estimate the variance of noise that is on the logits in all of an image: () float64.

    If each logit has independent noise of variance s², the root of a softmax p has noise of
    variance s² p (1 - 2 p + Σ p²) / 4, to first order. The ratio of the squared rest to that, both
    summed over the labels, is an estimate of s² at one place. Places differ, and where there is
    detail it is far too large; a quantile of all places is returned.

    Args:
        maps: of some labels each, (k, h, w) roots of probabilities, and (k, h, w) what the colours
            explain of them.
    """
    sums: list[torch.Tensor] = []
    for roots, explained in maps:
        # In float64 the order of the labels changes nothing that is seen.
        squares = explained.double().clamp(_LEAST_PROBABILITY**0.5, 1) ** 2
        rest = (roots - explained).double()
        sums.append(torch.stack([each.sum(dim=0) for each in (squares, squares**2, rest**2)]))
    total, total_square, places = torch.stack(sums).sum(dim=0).unbind()
    per_variance = (1 - total_square / total**2) / 4  # as Σ p is 1
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
    functions = guided_filter.fit(maps)
    whole = slice(0, image.shape[0]), slice(0, image.shape[1])
    return np.stack([guided_filter.values(one, whole) for one in torch.split(functions, 1)])


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
        self._image = image
        colours = torch.from_numpy(mean_colours(image, self.grid).transpose(2, 0, 1) / 255)
        self.colour_fit = ColourFit(colours, self.grid, refinement.epsilon)

    def fit(self, maps: Maps) -> torch.Tensor:
        """Fit maps (K, h, w) of the whole image to its colours, see `ColourFit.fit`."""
        return self.colour_fit.fit(torch.from_numpy(np.stack([*map(self.tile_means, maps)])))

    def values(self, function: torch.Tensor, box: PixelBox) -> Float32s:
        """Evaluate one function of `fit`, (1, ...), at the pixels of a box of tiles: (h, w)."""
        maps = function.numpy().transpose(2, 1, 0, 3)
        rows, columns = (axis.part(px) for axis, px in zip(self._cells, box, strict=True))
        tiles = TileArgmax(maps, np.zeros(1, np.int16), rows, columns, self._image[box])
        values: Float32s = tiles.values()
        return values

    @one_thread()
    def all_above_zero(self, maps: Maps) -> BoolMask:
        """Decide where all maps are above 0 once they are refined: (H, W) bool.

        It is what `guided` says of them. Only the pixels of a box are computed: in tiles outside
        of it, one of the maps is not above 0 in any colour.

        Args:
            maps: (K, h, w) float, maps of the whole image.
        """
        above = np.zeros(self.grid.image_hw, np.bool_)
        functions = self.fit(maps)

        most = functions[:, 3] + 255 * functions[:, :3].clamp(min=0).sum(dim=1)  # at corners
        possible = (F.max_pool2d(most, 2, stride=1) > -_MARGIN).all(dim=0).numpy()
        if possible.any():
            rows, columns = map(self._pixels, bounding_box(possible), self.grid.image_hw)
            box = rows, columns
            values = (self.values(one, box) > 0 for one in torch.split(functions, 1))
            above[box] = np.logical_and.reduce([*values])
        return above

    def _pixels(self, tiles: slice, image_px: int) -> slice:
        """Return the pixels along an axis of the image that some tiles have."""
        tile_px = self.grid.tile_px
        return slice(tiles.start * tile_px, min(tiles.stop * tile_px, image_px))

    @cached_property
    def _cells(self) -> tuple[AxisCells, AxisCells]:
        return self.grid.cells

    def argmax(self, functions: torch.Tensor, owners: npt.NDArray[np.int16]) -> TileArgmax:
        """Prepare the argmax over functions, see `ColourFit.fit`, with (K,) the label of each."""
        maps = functions.numpy().transpose(2, 1, 0, 3)
        return TileArgmax(maps, owners, *self._cells, self._image)

    def tile_means(self, values: Maps) -> Matrix:
        """Interpolate a map (h, w) of the whole image in the middles of tiles: (rows, columns)."""
        upsamplings = [
            AxisUpsampling(np.eye(n), px)
            for n, px in zip(values.shape, self.grid.image_hw, strict=True)
        ]
        down, along = (
            axis.at(axis.positions(centres))
            for axis, centres in zip(upsamplings, self.grid.centres_px, strict=True)
        )
        return np.asarray(down @ values @ along.T, np.float64)


def mean_colours(image: RGBArray, grid: TileGrid) -> Matrix:
    """Return (rows, columns, 3) mean colours of tiles, in whole steps of [0, 255]."""
    tile, (rows, columns) = grid.tile_px, grid.tiles_hw
    dtype = np.uint16 if 255 * tile < 1 << 16 else np.uint32
    sums = np.empty((rows, columns * tile, 3), dtype)
    width = image.shape[1]
    for row, own in enumerate(sums):
        inside = image[row * tile : (row + 1) * tile]
        np.add.reduce(inside, dtype=dtype, out=own[:width])
        own[:width] += (tile - len(inside)) * inside[-1].astype(dtype)  # repeated below the image
    sums[:, width:] = sums[:, width - 1 : width]
    return _rounded_means(sums, tile).astype(np.float64)


def _rounded_means(
    sums: npt.NDArray[np.unsignedinteger[Any]], tile_px: int
) -> npt.NDArray[np.uint8]:
    """Return (rows, columns, 3) means of tiles, rounded as by OpenCV, in half its time.

    `sums` is (rows, columns * tile_px, 3), of the columns of pixels in rows of tiles.
    """
    first = np.arange(0, sums.shape[1], tile_px)
    totals = np.add.reduceat(sums, first, axis=1, dtype=np.uint32)
    if tile_px == 2:  # halves are rounded up there, else to even numbers
        return np.asarray((totals + 2) // 4, np.uint8)
    share = np.float32(1) / np.float32(tile_px**2)
    return np.asarray(np.rint(totals.astype(np.float32) * share), np.uint8)


def check_image(image: RGBArray) -> None:
    """Check that an image is (H, W, 3) uint8 with a pixel.

    Raises:
        ValueError: it is not.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"Expected argument `image` to be (H, W, 3) uint8, but got {image.shape} {image.dtype}."
        )
