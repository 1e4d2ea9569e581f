"""Argmax over probabilities that a guided filter has refined, on a CPU or on a CUDA device.

Only the maps that can win in a tile are computed at its pixels. A GPU takes many tiles at once, and
keeps what it made, see `DeviceSegmentation`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from clearclip_core.devices import free_bytes
from clearclip_core.images.preprocessing import RGBArray, to_device
from clearclip_core.segmentation.guided_filter import (
    REFINEMENT,
    ColourFit,
    GuidedFilter,
    Refinement,
    TileGrid,
    check_image,
)
from clearclip_core.segmentation.masks import LabelMasks
from clearclip_core.segmentation.runs import LabelRuns
from clearclip_core.segmentation.scores import Scores, check_image_size
from clearclip_core.segmentation.segmentation import Segmentation
from clearclip_core.segmentation.tiles import candidate_batches, find_candidates
from clearclip_core.segmentation.upsampling import Indices, Matrix
from clearclip_core.thread_pools import one_thread

Int16s = npt.NDArray[np.int16]

#: A label competes if its probability somewhere is at least this share of the winner's.
SHARE = 0.5

#: About how many values a CPU computes at once: few enough to stay in its cache.
_CPU_VALUES = 1 << 18


@one_thread()
def decide_refined(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> tuple[Int16s, npt.NDArray[np.float16]]:
    """Compute the label map and probabilities as ``Scores.decide``, but from refined ones.

    Labels compete whose probability somewhere is at least half of the winner's. The contrast words
    compete as one label.

    Args:
        image: (H, W, 3) uint8 RGB, the image itself.
        threshold: refined probability below which a pixel gets no label; one for all labels or
            one for each.
        patch_px: side in px of `image` of the patches that the filter is fitted to; those of the
            scores by default.

    Returns:
        (H, W) int16 labels, -1 where a contrast word wins or the probability is below the
        threshold; and (H, W) float16 refined probabilities in [0, 1] of the winners.
    """
    thresholds = scores.thresholds(threshold)
    check_image_size(scores, image)
    if patch_px is None:
        patch_px = scores.plan.patch_image_px
    guided_filter = GuidedFilter(image, patch_px, refinement)
    functions, owners = _fit(scores, guided_filter.colour_fit, guided_filter.grid, _CPU_VALUES)
    labels = np.empty(scores.plan.image_hw, np.int16)
    confidence = np.empty(scores.plan.image_hw, np.float16)
    for rows, values in guided_filter.argmax(functions, owners.numpy()).decide(labels):
        probability = torch.from_numpy(values).clamp_(0, 1).square_()
        torch.from_numpy(confidence[rows]).copy_(probability)
        if thresholds.any():
            labels[rows][values < thresholds[labels[rows]]] = -1
    return labels, confidence


def _fit(
    scores: Scores, colour_fit: ColourFit, grid: TileGrid, most_values: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit square roots of probabilities to the colours, see ``ColourFit.fit_with_detail``.

    They add up to less where labels blend, and a thin object's small probability weighs more.

    Args:
        most_values: values that are computed at once, about.

    Returns:
        (K, 4, rows + 1, columns + 1) float32 functions; and (K,) int16 the labels that compete, -1
        for the contrast words.
    """
    probabilities, owners = competing_probabilities(scores, grid.corners_px, most_values)
    roots, root_knots = probabilities.sqrt_()
    return colour_fit.fit_with_detail(roots, root_knots, most_values), owners


def competing_probabilities(
    scores: Scores, places_px: tuple[Matrix, Matrix], most_values: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the probabilities of the labels that compete, on the device of the scores.

    Args:
        places_px: (m,) rows and (n,) columns, see ``AxisUpsampling.at_knots``.
        most_values: values that are computed at once, about.

    Returns:
        (2, K, m, n) float32 probabilities, each that of the label's best query: at those places,
        and as knots between which they are interpolated; and (K,) int16 the labels.
    """
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    pairs = list(zip(axes, places_px, strict=True))
    places = tuple(axis.at(axis.positions(px)) for axis, px in pairs)
    knots = tuple(axis.at_knots(px) for axis, px in pairs)
    made = [_probabilities(scores, weights, most_values) for weights in (places, knots)]
    # As indices: the host waits once for their number, and not at each use of a mask.
    competes = (made[0] >= SHARE * made[0].amax(dim=0)).flatten(1).any(dim=1).nonzero().flatten()
    owners = to_device(torch.from_numpy(_labels(scores)[0]), competes.device)[competes]
    return torch.stack([each[competes] for each in made]), owners


def _labels(scores: Scores) -> tuple[Int16s, Indices]:
    """Return the labels, -1 for the contrast words; and (Q,) the index of each query's label."""
    queries = np.asarray(scores.vocabulary.query_labels, np.int16)
    first = np.flatnonzero(np.diff(queries, prepend=-2))  # a label's queries follow one another
    return queries[first], np.arange(len(first)).repeat(np.diff(first, append=len(queries)))


def _probabilities(scores: Scores, weights: tuple[Matrix, ...], most_values: int) -> torch.Tensor:
    """Return (L, m, n) float32 probabilities of each label's best query at places of the image.

    Args:
        weights: (m, patches) of rows and (n, patches) of columns.
    """
    device = scores.cosines.device
    down, along = (to_device(torch.from_numpy(each), device) for each in weights)
    labels, groups = _labels(scores)
    cosines = scores.cosines.double()
    of_query = to_device(torch.from_numpy(groups), cosines.device)[:, None, None]
    made = []
    for band in torch.split(down, max(1, most_values // (len(cosines) * len(along)))):
        logits = (band @ (cosines @ along.T)).to(scores.cosines.dtype) * scores.temperature
        exponents = (logits - logits.amax(dim=0)).exp_()  # (Q, r, n)
        total = exponents.sum(dim=0, dtype=torch.float64)
        if len(labels) < len(exponents):
            best = exponents.new_zeros(len(labels), *exponents.shape[1:])
            exponents = best.scatter_reduce_(0, of_query.expand_as(exponents), exponents, "amax")
        made.append((exponents / total).float())
    return torch.cat(made, dim=1)


# ---- on a CUDA device ----------------------------------------------------------------------------

#: Values of maps that are computed at once on a device, at most: one takes some 24 bytes meanwhile,
#: and all may take an eighth of what is free, since several threads decide.
_VALUES, _VALUE_BYTES, _SHARE_OF_FREE = 1 << 23, 24, 8


def _values_at_once(device: torch.device) -> int:
    if device.type != "cuda":
        return _VALUES
    return max(1, min(_VALUES, free_bytes(device) // (_SHARE_OF_FREE * _VALUE_BYTES)))


class DeviceTiles:
    """The pixels of an image on a device, tile by tile; the last ones are repeated beyond it.

    Args:
        image: (H, W, 3) uint8 RGB, on the device that computes.
    """

    def __init__(self, image: torch.Tensor, grid: TileGrid) -> None:
        self.grid = grid
        (rows, columns), side = grid.tiles_hw, grid.tile_px
        y, x = (
            torch.arange(tiles * side, device=image.device).clamp_(max=px - 1)
            for tiles, px in zip(grid.tiles_hw, grid.image_hw, strict=True)
        )
        padded = F.pad(image[y][:, x], (0, 1), value=1)
        tiles = padded.reshape(rows, side, columns, side, 4).permute(0, 2, 4, 1, 3)
        #: (rows * columns, 4, tile_px²) uint8, red, green, blue and 1
        self.pixels = tiles.reshape(rows * columns, 4, side**2)
        along = (torch.arange(side, device=image.device) + 0.5) / side
        ends = torch.stack([1 - along, along])  # (2, tile_px)
        self._weights = (ends[:, None, :, None] * ends[:, None, :]).reshape(4, side**2)
        corner = torch.arange((rows + 1) * (columns + 1), device=image.device)
        corner = corner.reshape(rows + 1, columns + 1)
        parts = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
        self._corners = torch.stack(parts, dim=-1).reshape(-1, 4)  # of each tile

    def mean_colours(self) -> torch.Tensor:
        """Return (3, rows, columns) float64 mean colours of tiles in [0, 1], in whole steps.

        OpenCV rounds halves to the even step, but up where a tile has four pixels.
        """
        sums = self.pixels[:, :3].sum(dim=2, dtype=torch.int32)
        means = sums.T.reshape(3, *self.grid.tiles_hw).double() / self.grid.tile_px**2
        steps = (means + 0.5).floor() if self.grid.tile_px == 2 else means.round()
        return steps / 255

    def possible(self, functions: torch.Tensor) -> npt.NDArray[np.bool_]:
        """Find which maps can win in a tile: (tiles, K) bool, for which the host waits.

        Args:
            functions: (K, 4, rows + 1, columns + 1), see `ColourFit.fit`.
        """
        colours = self.pixels[:, :3].short()
        colours[:, ::2] -= colours[:, 1:2]
        low, high = (
            extreme.T.reshape(3, *self.grid.tiles_hw)[:, :, None].float()
            for extreme in torch.aminmax(colours, dim=2)
        )
        corners = functions.permute(2, 1, 0, 3)
        large, possible = find_candidates(corners, (high + low) / 2, (high - low) / 2)
        possible.scatter_(1, large[:, None], True)
        return np.asarray(possible.transpose(1, 2).reshape(-1, len(functions)).cpu())

    def largest(
        self, functions: torch.Tensor, tiles: torch.Tensor, maps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the largest of k maps at each pixel of n tiles.

        Args:
            functions: (K, corners of tiles, 4), see `ColourFit.fit`.
            tiles: (n,) indices.
            maps: (n, k) indices.

        Returns:
            (n, tile_px²) float32 values and int64 indices of the maps.
        """
        ends = functions[maps.unsqueeze(2), self._corners[tiles].unsqueeze(1)]  # (n, k, 4 ends, 4)
        values = ends.transpose(2, 3) @ self._weights  # (n, k, 4, tile_px²)
        values *= self.pixels[tiles].unsqueeze(1)
        best, winner = values.sum(dim=2).max(dim=1)
        return best, maps.gather(1, winner)

    def image(self, values: torch.Tensor) -> torch.Tensor:
        """Lay (tiles, tile_px²) values of pixels as in the image: (H, W)."""
        rows, columns = self.grid.tiles_hw
        height, width = self.grid.image_hw
        side = self.grid.tile_px
        tiles = values.reshape(rows, columns, side, side).transpose(1, 2)
        return tiles.reshape(rows * side, columns * side)[:height, :width].contiguous()


#: Pixels whose confidence is summed at once: 8 bytes each.
_RUNS_BAND_PX = 1 << 24


@torch.inference_mode()
def find_runs(
    label_map: torch.Tensor, confidence: torch.Tensor
) -> tuple[LabelRuns, npt.NDArray[np.float64]]:
    """Find the runs of a label map (H, W) int16, -1 for none, and sum the confidence over each.

    That is (H, W) float16, on the same device. Return what `LabelRuns.of` and its `sums` do.
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
    """Compute what `decide_refined` computes, on the device of the scores and of its results.

    `image` is (H, W, 3) uint8 RGB; return (H, W) int16 labels and (H, W) float16 probabilities.
    """
    check_image_size(scores, image)
    check_image(image)

    device = scores.cosines.device
    thresholds = scores.thresholds(threshold)
    has_thresholds, limits = thresholds.any(), to_device(torch.from_numpy(thresholds), device)

    grid = refinement.grid((image.shape[0], image.shape[1]), patch_px or scores.plan.patch_image_px)
    rgb = to_device(torch.from_numpy(np.require(image, requirements=["C", "W"])), device)
    tiles = DeviceTiles(rgb, grid)
    colour_fit = ColourFit(tiles.mean_colours(), grid, refinement.epsilon)

    functions, owners = _fit(scores, colour_fit, grid, _VALUES)
    possible = tiles.possible(functions)
    functions = functions.flatten(2).transpose(1, 2).contiguous()
    labels = owners.new_empty(len(possible), grid.tile_px**2)
    confidence = torch.empty_like(labels, dtype=torch.float16)

    for some, maps in candidate_batches(
        possible, grid.tile_px**2, most_values=_values_at_once(device)
    ):
        sent = to_device(torch.from_numpy(np.column_stack([some, maps])), device)
        own, chosen = sent[:, 0], sent[:, 1:]
        best, winner = tiles.largest(functions, own, chosen)
        winner, probability = owners[winner], best.clamp_(0, 1).square_()
        if has_thresholds:
            winner.masked_fill_(probability < limits[winner.int()], -1)
        labels[own], confidence[own] = winner, probability.half()

    return tiles.image(labels), tiles.image(confidence)


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
        self, min_island_px: int = 0, min_hole_px: int = 0, numbers: npt.NDArray[Any] | None = None
    ) -> LabelMasks:
        """Return the masks of all labels, see `Segmentation.label_masks`."""
        runs, sums = find_runs(self._labels_there, self._confidence_there)
        return LabelMasks(runs, sums, min_island_px, min_hole_px, numbers)

    @torch.inference_mode()
    def above(self, thresholds: Mapping[str, float]) -> "DeviceSegmentation":
        """Return the segmentation without pixels below a threshold, see `Segmentation.above`."""
        limits = torch.from_numpy(self._limits(thresholds))
        if not limits.any():
            return self
        labels, confidence = self._labels_there, self._confidence_there
        low = confidence < to_device(limits, labels.device)[labels.int()]
        return type(self)(labels.masked_fill(low, -1), confidence, self.labels)
