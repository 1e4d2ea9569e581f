"""Argmax over probabilities that a guided filter has refined, on a CPU or on a CUDA device.

Only the maps that can win in a tile are computed at its pixels. A GPU takes many tiles at once, and
keeps what it made, see `DeviceSegmentation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    Float32s,
    GuidedFilter,
    Refinement,
    TileGrid,
    check_image,
)
from clearclip_core.segmentation.masks import LabelMasks
from clearclip_core.segmentation.runs import LabelRuns
from clearclip_core.segmentation.scores import GPU_BATCH_ELEMENTS, Scores
from clearclip_core.segmentation.segmentation import Segmentation
from clearclip_core.segmentation.tiles import candidate_batches, find_candidates
from clearclip_core.segmentation.upsampling import AxisUpsampling, Indices, Matrix
from clearclip_core.thread_pools import one_blas_thread, one_thread

Int16s = npt.NDArray[np.int16]

#: A label competes if its probability somewhere is at least this share of the winner's.
SHARE = 0.5


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
    functions, owners = _fit(scores, guided_filter)
    labels = np.empty(scores.plan.image_hw, np.int16)
    confidence = np.empty(scores.plan.image_hw, np.float16)
    for rows, values in guided_filter.argmax(functions, owners).decide(labels):
        probability = torch.from_numpy(values).clamp_(0, 1).square_()
        torch.from_numpy(confidence[rows]).copy_(probability)
        if thresholds.any():
            labels[rows][values < thresholds[labels[rows]]] = -1
    return labels, confidence


def check_image_size(scores: Scores, image: RGBArray) -> None:
    """Check that an image has the size that was scored.

    Raises:
        ValueError: it has not.
    """
    if image.shape[:2] != scores.plan.image_hw:
        raise ValueError(
            f"Expected argument `image` to be of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]}."
        )


#: Yields logits at rows and columns of the image, of some queries or all: ``Scores.logits_at``.
LogitsAt = Callable[
    [Matrix, Matrix, Indices | None], Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]
]


@one_blas_thread()
def competing_probabilities(
    query_labels: Int16s,
    logits_at: LogitsAt,
    y_px: Matrix,
    x_px: Matrix,
    labels: Int16s | None = None,
) -> tuple[Float32s, Int16s]:
    """Compute the probabilities of the labels that compete, at positions of the image.

    Of the other labels no more is kept than a band of rows.

    Args:
        query_labels: (Q,) the label of each query, -1 for the contrast words.
        y_px: (m,) rows, pixel 0 has its centre at 0.
        x_px: (n,) columns.
        labels: the labels that compete, if they are known.

    Returns:
        (K, m, n) probabilities, each that of the label's best query; and (K,) the labels.
    """
    first = _first_queries(query_labels)
    competes, logs = np.zeros(len(first), np.bool_), []
    for _, logits in logits_at(y_px, x_px, None):  # (r, n, Q)
        most = logits.max(axis=2, keepdims=True)
        logits -= most
        best = np.maximum.reduceat(logits, first, axis=2)
        competes |= (best >= math.log(SHARE)).any(axis=(0, 1))
        total = np.exp(logits, out=logits).sum(axis=2, dtype=np.float64)  # in any order the same
        logs.append(most[..., 0] + np.log(total))
    if labels is None:
        labels = query_labels[first][competes]
    queries = np.flatnonzero(np.isin(query_labels, labels))
    first, made = _first_queries(query_labels[queries]), []
    every_log = np.concatenate(logs)[..., None]
    for rows, logits in logits_at(y_px, x_px, queries):
        best = np.maximum.reduceat(logits, first, axis=2)
        made.append(np.exp(best - every_log[rows], dtype=np.float32).transpose(2, 0, 1))
    return np.concatenate(made, axis=1), labels


def _first_queries(query_labels: Int16s) -> Indices:
    """Return the index of each label's first query; a label's queries follow one another."""
    return np.flatnonzero(np.diff(query_labels, prepend=-2))


def _fit(scores: Scores, guided_filter: GuidedFilter) -> tuple[torch.Tensor, Int16s]:
    """Fit square roots of probabilities to the colours, see ``ColourFit.fit_with_detail``.

    They add up to less where labels blend, and a thin object's small probability weighs more.

    Returns:
        (K, 4, rows + 1, columns + 1) functions; and (K,) the labels that compete, -1 for the
        contrast words.
    """
    at = guided_filter.grid.corners_px
    query_labels = np.asarray(scores.vocabulary.query_labels, np.int16)
    probabilities, labels = competing_probabilities(query_labels, scores.logits_at, *at)
    knots, _ = competing_probabilities(query_labels, scores.logits_at_knots, *at, labels)
    roots, root_knots = (torch.from_numpy(each).sqrt_() for each in (probabilities, knots))
    return guided_filter.colour_fit.fit_with_detail(roots, root_knots), labels


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

    Attributes:
        pixels: (rows * columns, 4, tile_px²) uint8, red, green, blue and 1.
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
        corners = functions.permute(2, 1, 0, 3)
        above, below = corners[:-1], corners[1:]
        ends = torch.stack(
            [above[..., :-1], above[..., 1:], below[..., :-1], below[..., 1:]]
        )  # (4, rows, 4, K, columns)
        low, high = (
            extreme.T.reshape(3, *self.grid.tiles_hw)[:, :, None].float()
            for extreme in torch.aminmax(self.pixels[:, :3], dim=2)
        )
        large, _, possible = find_candidates(ends, (high + low) / 2, (high - low) / 2)
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
        (rows, columns), side, (height, width) = (
            *(self.grid.tiles_hw, self.grid.tile_px),
            self.grid.image_hw,
        )
        tiles = values.reshape(rows, columns, side, side).transpose(1, 2)
        return tiles.reshape(rows * side, columns * side)[:height, :width].contiguous()


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
    thresholds = scores.thresholds(threshold)
    has_thresholds, limits = thresholds.any(), to_device(torch.from_numpy(thresholds), device)
    grid = refinement.grid((image.shape[0], image.shape[1]), patch_px or scores.plan.patch_image_px)
    rgb = to_device(torch.from_numpy(np.ascontiguousarray(image)), device)
    tiles = DeviceTiles(rgb, grid)
    functions, owners = _fit_on_device(
        scores, ColourFit(tiles.mean_colours(), grid, refinement.epsilon), grid
    )
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


def _fit_on_device(
    scores: Scores, colour_fit: ColourFit, grid: TileGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit square roots of probabilities to the colours, as `_fit` does.

    Returns:
        (K, 4, rows + 1, columns + 1) float32 functions; and (K,) int16 labels that compete, -1 for
        the contrast words.
    """
    at = grid.corners_px
    at_corners = _probabilities(scores, lambda axis, px: axis.at(axis.positions(px)), at)
    at_knots = _probabilities(scores, lambda axis, px: axis.at_knots(px), at)
    winner = at_corners.amax(dim=0)
    # As indices: the host waits once for their number, and not at each use of a mask.
    competing = (at_corners >= SHARE * winner).flatten(1).any(dim=1).nonzero().flatten()
    owners = to_device(torch.from_numpy(_labels(scores)[0]), competing.device)
    roots, root_knots = at_corners[competing].sqrt(), at_knots[competing].sqrt()
    functions = colour_fit.fit_with_detail(roots, root_knots, _VALUES)
    return functions, owners[competing]


def _labels(scores: Scores) -> tuple[Int16s, Indices]:
    """Return the labels, -1 for the contrast words; and (Q,) the index of each query's label."""
    queries = np.asarray(scores.vocabulary.query_labels, np.int16)
    first = _first_queries(queries)
    return queries[first], np.arange(len(first)).repeat(np.diff(first, append=len(queries)))


def _probabilities(
    scores: Scores,
    weights: Callable[[AxisUpsampling, Matrix], Matrix],
    places_px: tuple[Matrix, Matrix],
) -> torch.Tensor:
    """Return (L, m, n) float32 probabilities of each label's best query at places of the image.

    Args:
        weights: makes (places, patches) weights of an axis.
        places_px: (m,) rows and (n,) columns.
    """
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    down, along = (
        to_device(torch.from_numpy(weights(axis, px)).double(), scores.cosines.device)
        for axis, px in zip(axes, places_px, strict=True)
    )
    labels, groups = _labels(scores)
    cosines = scores.cosines.double()
    of_query = to_device(torch.from_numpy(groups), cosines.device)[:, None, None]
    made = []
    for band in torch.split(down, max(1, GPU_BATCH_ELEMENTS // (len(cosines) * len(along)))):
        logits = (band @ cosines @ along.T).to(scores.cosines.dtype) * scores.temperature
        exponents = (logits - logits.amax(dim=0)).exp_()  # (Q, r, n)
        total = exponents.sum(dim=0, dtype=torch.float64)
        if len(labels) < len(exponents):
            best = exponents.new_zeros(len(labels), *exponents.shape[1:])
            exponents = best.scatter_reduce_(0, of_query.expand_as(exponents), exponents, "amax")
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
        return LabelMasks(runs, sums, min_island_px, min_hole_px, numbers)

    @torch.inference_mode()
    def above(self, thresholds: Mapping[str, float]) -> DeviceSegmentation:
        """Return the segmentation without pixels below a threshold, see `Segmentation.above`."""
        limits = torch.from_numpy(self._limits(thresholds))
        if not limits.any():
            return self
        labels, confidence = self._labels_there, self._confidence_there
        low = confidence < to_device(limits, labels.device)[labels.int()]
        return type(self)(labels.masked_fill(low, -1), confidence, self.labels)
