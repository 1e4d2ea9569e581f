"""Refined label maps on a CUDA device by torch, in the same arithmetic as on the CPU.

On a CPU only the maps that can win are computed at a pixel, which takes a quarter of the time of
all. A GPU computes all maps at all pixels, and keeps what it made, see `DeviceSegmentation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import (
    ABOVE_PEAK,
    LEAST_PEAK,
    LEAST_PROBABILITY,
    MOST_RAISED,
    PLACES_OF_NOISE,
    RAISED,
    REFINEMENT,
    Refinement,
    check_image,
    kept_share,
)
from clearclip_core.segmentation.masks import LabelMasks
from clearclip_core.segmentation.refined_argmax import SHARE, check_image_size
from clearclip_core.segmentation.runs import LabelRuns
from clearclip_core.segmentation.scores import GPU_BATCH_ELEMENTS, Scores, to_device
from clearclip_core.segmentation.segmentation import Segmentation
from clearclip_core.segmentation.tiles import TileGrid
from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix


class DeviceWindowMeans:
    """Means over the parts of square windows that lie inside a map.

    The windows are separable, and so is the number of values inside the map. So the means along
    each axis are one product with a band matrix.

    Args:
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
    return to_device((weights / weights.sum(dim=1, keepdim=True)).to(like.dtype), like.device)


#: Pixels whose colours or values are computed at once. A value takes up to 40 bytes meanwhile.
_BAND_PX = 1 << 21

#: Maps whose values are computed at once in a band.
_MAPS = 8

#: Maps are fitted so many at a time that their means have at most this many elements.
_FIT_ELEMENTS = 1 << 23


def precise_dtype(device: torch.device) -> torch.dtype:
    """Return the most precise floating dtype of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class DeviceGuidedFilter:
    """A colour guided filter for one image.

    Args:
        image: (H, W, 3) uint8 RGB, on the device that computes.
        epsilon: variance of colours, see `Refinement`.
        precise: dtype in which functions are fitted; the most precise one of the device by
            default.
    """

    def __init__(
        self,
        image: torch.Tensor,
        grid: TileGrid,
        epsilon: float,
        precise: torch.dtype | None = None,
    ) -> None:
        self.image, self.grid = image, grid
        self.precise = precise or precise_dtype(image.device)
        self._fractions = (torch.arange(grid.tile_px, device=image.device) + 0.5) / grid.tile_px
        tiles = self._tile_colours()  # (3, h, w)
        self._colours = torch.cat([tiles, torch.ones_like(tiles[:1])])
        self._means = DeviceWindowMeans(grid.tiles_hw, grid.radius, tiles)
        self._around = DeviceWindowMeans(grid.tiles_hw, 1, tiles)
        self._mean_colours = self._means.at_values(tiles)
        products = self._means.at_values(tiles[:, None] * tiles)  # (3, 3, h, w)
        covariance = products - self._mean_colours[:, None] * self._mean_colours
        identity = torch.eye(3, dtype=tiles.dtype, device=tiles.device)
        self._inverse = _inverse(covariance + epsilon * identity[..., None, None])

    def fit(self, tiles: torch.Tensor) -> torch.Tensor:
        """Fit maps to the colours in every window, and average the overlapping windows.

        Args:
            tiles: (K, rows, columns) means of the maps in tiles.

        Returns:
            (K, 4, rows + 1, columns + 1) float32 linear functions, see ``GuidedFilter.fit`` of
            `clearclip_core.segmentation.guided_filter`.
        """
        step = max(1, _FIT_ELEMENTS // (4 * tiles[0].numel()))
        return torch.cat([self._fit(some) for some in torch.split(tiles.to(self.precise), step)])

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

    def row_bands(self) -> list[slice]:
        """Return slices of the rows of tiles that are computed together."""
        rows, width = self.grid.tiles_hw[0], self.grid.image_hw[1]
        step = max(1, _BAND_PX // (self.grid.tile_px * width))
        return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]

    def colours(self, rows: slice) -> torch.Tensor:
        """Return (3, n, tile_px, W) float32 colours in [0, 255] of n rows of tiles.

        The last row of pixels is repeated beyond the image.
        """
        band = self._pixels(rows)
        return band.reshape(-1, self.grid.tile_px, *band.shape[1:]).permute(3, 0, 1, 2).float()

    def values(self, functions: torch.Tensor, rows: slice, colours: torch.Tensor) -> torch.Tensor:
        """Evaluate maps' linear functions at every pixel of some rows of tiles.

        Args:
            functions: (K, 4, rows + 1, columns + 1), see `fit`.

        Returns:
            (K, n, tile_px, W) float32, pixels below the image included.
        """
        corners = functions[:, :, rows.start : rows.stop + 1]
        left, right = corners[..., :-1, None], corners[..., 1:, None]
        along = (left + (right - left) * self._fractions).flatten(3)[..., : colours.shape[3]]
        above = along[:, :, :-1, None]  # (K, 4, n, 1, W): at the upper ends of columns
        down = along[:, :, 1:, None] - above
        top, slope = above[:, 3], down[:, 3]
        for number, colour in enumerate(colours):
            top = torch.addcmul(top, colour, above[:, number])
            slope = torch.addcmul(slope, colour, down[:, number])
        return torch.addcmul(top, slope, self._fractions[:, None])

    def _pixels(self, rows: slice) -> torch.Tensor:
        """Return (n * tile_px, W, 3) pixels of rows of tiles; the last row repeated below."""
        first, last = rows.start * self.grid.tile_px, rows.stop * self.grid.tile_px
        height = self.grid.image_hw[0]
        if last <= height:
            return self.image[first:last]
        indices = torch.arange(first, last, device=self.image.device).clamp(max=height - 1)
        return self.image[indices]

    def _tile_colours(self) -> torch.Tensor:
        """Return (3, rows, columns) mean colours of tiles in [0, 1], rounded to whole steps.

        OpenCV rounds halves to the even step, but up where a tile has four pixels.
        """
        tile, width = self.grid.tile_px, self.grid.tiles_hw[1]
        columns = torch.arange(width * tile, device=self.image.device)
        columns = columns.clamp(max=self.grid.image_hw[1] - 1)
        sums = []
        for rows in self.row_bands():
            band = self._pixels(rows)[:, columns].reshape(-1, tile, width, tile, 3)
            sums.append(band.sum(dim=(1, 3), dtype=torch.int32))  # (n, columns, 3)
        means = torch.cat(sums).permute(2, 0, 1).to(self.precise) / tile**2
        steps = (means + 0.5).floor() if tile == 2 else means.round()
        return steps / 255


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Invert (3, 3, ...) symmetric matrices by their cofactors."""
    rows = [
        torch.linalg.cross(matrices[(i + 1) % 3], matrices[(i + 2) % 3], dim=0) for i in range(3)
    ]
    cofactors = torch.stack(rows)
    determinant = (matrices[0] * cofactors[0]).sum(dim=0)
    return cofactors / determinant


def fit_on_device(
    guided_filter: DeviceGuidedFilter, roots: torch.Tensor, root_knots: torch.Tensor
) -> torch.Tensor:
    """Fit maps to the colours, and add again of the rest what is no noise.

    Args:
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
    variance = _noise_variance(explained, roots - explained, guided_filter.precise)
    share = kept_share(variance).to(functions)
    functions *= _raising_factors(roots, explained, 1 - share)[:, None, None, None]
    functions[:, 3] += share * (root_knots - explained)
    return functions


def _raising_factors(
    roots: torch.Tensor, explained: torch.Tensor, dropped_share: torch.Tensor
) -> torch.Tensor:
    """Return (K,) factors that raise labels whose peaks the filter has lowered."""
    before, after = (_quantile(maps.flatten(1), 1 - ABOVE_PEAK) for maps in (roots, explained))
    quotients = (before / after.clamp(min=LEAST_PEAK)).clamp(1, MOST_RAISED)
    return 1 + dropped_share * (quotients**RAISED - 1)


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return (K,) the value of (K, N) values at or next above a share of them."""
    index = -int(-share * (values.shape[1] - 1) // 1)
    return values.sort(dim=1).values[:, index]


def _noise_variance(
    explained: torch.Tensor, rest: torch.Tensor, precise: torch.dtype
) -> torch.Tensor:
    """Estimate the variance of noise on an image's logits: (), so that the host need not wait."""
    probability = explained.to(precise).clamp(LEAST_PROBABILITY**0.5, 1) ** 2
    probability /= probability.sum(dim=0)
    squares = (probability**2).sum(dim=0)
    per_variance = (probability * (1 - 2 * probability + squares)).sum(dim=0) / 4
    places = (rest.to(precise) ** 2).sum(dim=0)
    places /= per_variance.clamp(min=LEAST_PROBABILITY**2)
    ordered = places.flatten().sort().values
    place = PLACES_OF_NOISE * (len(ordered) - 1)
    low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    return low + (place % 1) * (high - low)


#: Pixels whose confidence is summed at once: 8 bytes each.
_RUNS_BAND_PX = 1 << 24


@torch.inference_mode()
def find_runs(
    label_map: torch.Tensor, confidence: torch.Tensor
) -> tuple[LabelRuns, npt.NDArray[np.float64]]:
    """Find the runs of a label map, and sum the confidence over each.

    Args:
        label_map: (H, W) int16, index of the label or -1.
        confidence: (H, W) float16, on the same device.

    Returns:
        The runs, as of `LabelRuns.of`; and (N,) float64, as of `LabelRuns.sums`.
    """
    height, width = label_map.shape
    rows_at_once = max(1, _RUNS_BAND_PX // max(1, width))
    starts, labels, sums = [], [], []
    for top in range(0, height, rows_at_once):
        band = label_map[top : top + rows_at_once]
        begins = torch.ones(band.shape, dtype=torch.bool, device=band.device)
        torch.ne(band[:, 1:], band[:, :-1], out=begins[:, 1:])
        first = begins.flatten().nonzero().flatten()
        before = confidence[top : top + rows_at_once].flatten().cumsum(0, dtype=torch.float64)
        ends = F.pad(first[1:], (0, 1), value=band.numel()) - 1
        sums.append(before[ends].diff(prepend=before.new_zeros(1)))
        labels.append(band.flatten()[first])
        starts.append((first + top * width).int())
    # As one copy, for which the host waits once.
    parts = [torch.cat(each) for each in (sums, starts, labels)]
    packed = torch.cat([part.view(torch.uint8) for part in parts]).cpu().numpy()
    count = len(parts[0])
    cuts = 8 * count, 12 * count
    runs = LabelRuns(
        packed[cuts[0] : cuts[1]].view(np.int32), packed[cuts[1] :].view(np.int16), (height, width)
    )
    return runs, packed[: cuts[0]].view(np.float64)


@torch.inference_mode()
def decide_refined_on_device(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what `decide_refined` computes, on the device of the scores.

    Args:
        image: (H, W, 3) uint8 RGB, the image itself.

    Returns:
        (H, W) int16 labels and (H, W) float16 probabilities, on the device.
    """
    check_image_size(scores, image)
    check_image(image)
    device = scores.cosines.device
    limits = to_device(torch.from_numpy(scores.thresholds(threshold)), device)
    grid = refinement.grid((image.shape[0], image.shape[1]), patch_px or scores.plan.patch_image_px)
    rgb = to_device(torch.from_numpy(np.ascontiguousarray(image)), device)
    guided_filter = DeviceGuidedFilter(rgb, grid, refinement.epsilon)
    functions, owners = _fit(scores, guided_filter)
    height, width = grid.image_hw
    labels = torch.empty((height, width), dtype=torch.int16, device=device)
    confidence = torch.empty((height, width), dtype=torch.float16, device=device)
    for rows in guided_filter.row_bands():
        pixels = slice(rows.start * grid.tile_px, min(rows.stop * grid.tile_px, height))
        colours = guided_filter.colours(rows)
        best, winner = guided_filter.values(functions[:_MAPS], rows, colours).max(dim=0)
        for first in range(_MAPS, len(functions), _MAPS):
            some = functions[first : first + _MAPS]
            largest, index = guided_filter.values(some, rows, colours).max(dim=0)
            winner = torch.where(largest > best, index + first, winner)
            best = torch.maximum(best, largest)
        winner = owners[winner]
        probability = best.clamp_(0, 1).square_()
        low = probability < limits[winner.int()]
        count = pixels.stop - pixels.start
        labels[pixels] = winner.masked_fill_(low, -1).reshape(-1, width)[:count]
        confidence[pixels] = probability.reshape(-1, width)[:count]
    return labels, confidence


def _fit(scores: Scores, guided_filter: DeviceGuidedFilter) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit square roots of probabilities to the colours, as `refined_argmax` does.

    Returns:
        (K, 4, rows + 1, columns + 1) float32 functions; and (K,) int16 labels that compete, -1 for
        the contrast words.
    """
    y_px, x_px = guided_filter.grid.corners_px
    precise = guided_filter.precise
    at_corners = _probabilities(
        scores, lambda axis, px: axis.at(axis.positions(px)), (y_px, x_px), precise
    )
    at_knots = _probabilities(scores, lambda axis, px: axis.at_knots(px), (y_px, x_px), precise)
    winner = at_corners.amax(dim=0)
    # As indices: the host waits once for their number, and not at each use of a mask.
    competing = (at_corners >= SHARE * winner).flatten(1).any(dim=1).nonzero().flatten()
    owners = to_device(torch.tensor(_labels(scores)[0], dtype=torch.int16), competing.device)
    functions = fit_on_device(
        guided_filter, at_corners[competing].sqrt(), at_knots[competing].sqrt()
    )
    return functions, owners[competing]


def _labels(scores: Scores) -> tuple[list[int], list[int]]:
    """Return the labels, -1 for the contrast words; and where their queries begin, and the last's
    end.
    """
    queries = np.asarray(scores.vocabulary.query_labels)
    first = np.flatnonzero(np.diff(queries, prepend=-2))  # a label's queries follow one another
    return queries[first].tolist(), [*first.tolist(), len(queries)]


def _probabilities(
    scores: Scores,
    weights: Callable[[AxisUpsampling, Matrix], Matrix],
    places_px: tuple[Matrix, Matrix],
    precise: torch.dtype,
) -> torch.Tensor:
    """Return (L, m, n) float32 probabilities of each label's best query at places of the image.

    Args:
        weights: makes (places, patches) weights of an axis.
        places_px: (m,) rows and (n,) columns.
        precise: dtype of the products with the weights.
    """
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    down, along = (
        to_device(torch.from_numpy(weights(axis, px)).to(precise), scores.cosines.device)
        for axis, px in zip(axes, places_px, strict=True)
    )
    labels, ends = _labels(scores)
    cosines = scores.cosines.to(precise)
    made = []
    for band in torch.split(down, max(1, GPU_BATCH_ELEMENTS // (len(cosines) * len(along)))):
        logits = (band @ cosines @ along.T).to(scores.cosines.dtype) * scores.temperature
        exponents = (logits - logits.amax(dim=0)).exp_()  # (Q, r, n)
        total = exponents.sum(dim=0, dtype=precise)
        if len(labels) < len(exponents):
            pairs = pairwise(ends)
            exponents = torch.stack([exponents[one:end].amax(dim=0) for one, end in pairs])
        made.append((exponents / total).float())
    return torch.cat(made, dim=1)


class DeviceSegmentation(Segmentation):
    """A segmentation whose label map and probabilities stay on a device until they are asked for.

    Of masks, only the runs of the label map and the confidence in each leave the device.

    Args:
        label_map: (H, W) int16, index into `labels`, -1 for no label.
        confidence: (H, W) float16 in [0, 1], probability of the winning query.
    """

    _labels_there: torch.Tensor
    _confidence_there: torch.Tensor

    def __init__(
        self, label_map: torch.Tensor, confidence: torch.Tensor, labels: tuple[str, ...]
    ) -> None:
        fields = {"_labels_there": label_map, "_confidence_there": confidence, "labels": labels}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @cached_property
    def label_map(self) -> npt.NDArray[np.int16]:
        """(H, W) int16, copied from the device."""
        return np.asarray(self._labels_there.cpu())

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) float16, copied from the device."""
        return np.asarray(self._confidence_there.cpu())

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self._labels_there.shape[0], self._labels_there.shape[1]

    def label_masks(
        self,
        min_island_px: int = 0,
        min_hole_px: int = 0,
        numbers: npt.NDArray[Any] | None = None,
    ) -> LabelMasks:
        """Return the masks of all labels, see `Segmentation.label_masks`."""
        runs, sums = find_runs(self._labels_there, self._confidence_there)
        return LabelMasks.of_runs(runs, min_island_px, min_hole_px, sums, numbers)

    @torch.inference_mode()
    def above(self, thresholds: Mapping[str, float]) -> DeviceSegmentation:
        """Return the segmentation without pixels below a threshold, see `Segmentation.above`."""
        limits = torch.from_numpy(self._limits(thresholds))
        if not limits.any():
            return self
        labels, confidence = self._labels_there, self._confidence_there
        low = confidence < limits.to(labels.device)[labels.int()]
        return type(self)(labels.masked_fill(low, -1), confidence, self.labels)
