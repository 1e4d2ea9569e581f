"""Argmax over probabilities that a guided filter has refined.

In most tiles one label alone can win, see `tile_candidates`; the others are computed only where
several can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import (
    REFINEMENT,
    GuidedFilter,
    Refinement,
    block_squares,
    tile_corners,
)
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.tiles import Float32s, write_strip
from clearclip_core.segmentation.upsampling import (
    Indices,
    Matrix,
    candidate_batches,
    first_maximum,
)
from clearclip_core.thread_pools import one_blas_thread, one_thread

#: A map this much below the bound is compared all the same: bounds are rounded.
_MARGIN = 1e-5

#: Numbers that are computed at once where parts of tiles are bounded.
_BOUND_ELEMENTS = 1 << 17


class Squares(NamedTuple):
    """Some squares of one size, and the maps that can be the largest in them.

    Attributes:
        top: (N,) first rows in px, inside the image.
        left: (N,) first columns.
        maps: (N, K), ascending; the last is repeated where a square has fewer.
        functions: (K, 4, 4, N), these maps at the four corners of the squares.
    """

    top: Indices
    left: Indices
    side: int
    maps: Indices
    functions: Float32s


class TileCandidates:
    """For each tile, the maps that can be the largest somewhere in it.

    Args:
        functions: (K, 4, rows + 1, columns + 1), see ``ColourFit.fit``.

    Attributes:
        middle_argmax: (rows, columns), the map that is largest in the middle of a tile, at the
            middle of its colours.
        corners: (4, 4, rows, columns), the functions of these maps at the corners of the tiles.
    """

    def __init__(self, guided_filter: GuidedFilter, functions: Float32s) -> None:
        self._by_corner = np.ascontiguousarray(functions.transpose(2, 3, 0, 1))
        self._tiles = guided_filter.tiles
        self._image_hw, self._tile_px = guided_filter.image_hw, guided_filter.tile_px
        middle, half = self._tiles.colour_range()
        at_middle = [_values(tile_corners(one).mean(axis=1), middle) for one in functions]
        self.middle_argmax = np.argmax(at_middle, axis=0)
        y, x = np.indices(self.middle_argmax.shape)
        ends = self._functions_at(y.ravel(), x.ravel(), self.middle_argmax.reshape(-1, 1))
        self.corners = ends.reshape(4, 4, *y.shape)
        self._possible = np.stack(
            [_can_win(self.corners - tile_corners(one), middle, half) for one in functions], axis=2
        )

    def ambiguous_squares(self) -> Iterator[Squares]:
        """Yield the parts of tiles in which another map than `middle_argmax` can be the largest.

        Yields:
            At most `block_squares` of them, with similar numbers of maps.
        """
        parts = self._tiles.parts
        y, x = np.nonzero(self._possible.sum(axis=2) > 1)
        possible = self._possible_in_parts(y, x)  # (P, N, K)
        down, right = (each[:, None] for each in parts.offsets_px)
        top, left = y * self._tile_px + down, x * self._tile_px + right  # (P, N)
        other = possible.copy()
        np.put_along_axis(other, self.middle_argmax[y, x][None, :, None], False, axis=2)
        height, width = self._image_hw
        side = parts.side_px
        wanted = other.any(axis=2) & (top < height) & (left < width)
        inside = (top <= height - side) & (left <= width - side)
        for some in (wanted & inside, wanted & ~inside):  # the former are read and written at once
            part, tile = np.nonzero(some)
            batches = candidate_batches(possible[part, tile], side**2, block_squares(side))
            for batch, maps in batches:
                at = part[batch], tile[batch]
                functions = self._functions_at(
                    y[at[1]], x[at[1]], maps, parts.corner_weights[at[0]]
                )
                yield Squares(top[at], left[at], side, maps, functions)

    def _possible_in_parts(self, y: Indices, x: Indices) -> BoolMask:
        """Return (P, N, K): which maps can be the largest somewhere in the parts of N tiles."""
        count = self._by_corner.shape[2]
        weights = self._tiles.parts.corner_weights
        if len(weights) == 1:
            return self._possible[y, x][None]
        possible = np.empty((len(weights), len(y), count), np.bool_)
        step = max(1, _BOUND_ELEMENTS // (count * weights.size))
        for first in range(0, len(y), step):
            some = slice(first, first + step)
            rows, columns = y[some], x[some]
            maps = np.broadcast_to(np.arange(count), (len(rows), count))
            ends = self._functions_at(rows, columns, maps)  # (K, 4, 4, n)
            corners = (weights @ ends[:, :, None]).swapaxes(0, 1)  # (4, K, P, 4, n)
            middle, half = self._tiles.part_colour_range(rows, columns)  # (3, P, n)
            best = np.argmax(_values(corners.mean(axis=3), middle[:, None]), axis=0)  # (P, n)
            winner = np.take_along_axis(corners, best[None, None, :, None], axis=1)
            ahead = (winner - corners).transpose(0, 3, 1, 2, 4)  # (4, 4, K, P, n)
            can_win = _can_win(ahead, middle[:, None], half[:, None])
            possible[:, some] = can_win.transpose(1, 2, 0) & self._possible[rows, columns]
        return possible

    def _functions_at(
        self, y: Indices, x: Indices, maps: Indices, weights: Float32s | None = None
    ) -> Float32s:
        """Return the functions of (N, K) maps at the corners of N tiles: (K, 4, 4, N).

        Args:
            y: (N,) rows of tiles.
            x: (N,) columns.
            maps: (N, K).
            weights: (N, 4, 4) weights of the tiles' corners in each of four other places.
        """
        below, right = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        at = (y[:, None] + below)[..., None], (x[:, None] + right)[..., None], maps[:, None]
        ends: Float32s = self._by_corner[at]  # (N, corners, K, 4)
        if weights is not None:
            ends = (weights @ ends.reshape(len(y), 4, -1)).reshape(ends.shape)
        return np.ascontiguousarray(ends.transpose(2, 3, 1, 0))


def _can_win(ahead: Float32s, middle: Float32s, half: Float32s) -> BoolMask:
    """Return (...) whether a map can reach another one somewhere in a square.

    Args:
        ahead: (4, 4, ...), by how much the other is ahead at the corners of the squares.
        middle: (3, ...) middle of each colour in the squares.
        half: (3, ...) half of its range.
    """
    least = _values(ahead, middle[:, None]) - (np.abs(ahead[:3]) * half[:, None]).sum(axis=0)
    return np.asarray(least.min(axis=0) <= _MARGIN)


def _values(functions: Float32s, colours: Float32s) -> Float32s:
    """Evaluate (4, ...) linear functions at (3, ...) colours: (...)."""
    values: Float32s = (functions[:3] * colours).sum(axis=0) + functions[3]
    return values


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
    functions, labels_of_maps = _fit(scores, guided_filter)
    candidates = TileCandidates(guided_filter, functions)
    has_threshold, tile = bool(thresholds.any()), guided_filter.tile_px
    height, width = guided_filter.image_hw
    labels, confidence = np.empty((height, width), np.int16), np.empty((height, width), np.float16)
    # The labels of all pixels of a row of the image, by rows of tiles.
    row_owners = labels_of_maps[candidates.middle_argmax].repeat(tile, axis=1)[:, :width]
    for row, owners in enumerate(row_owners):
        labels[row * tile : (row + 1) * tile] = owners
    for rows, roots in guided_filter.row_blocks(candidates.corners):
        probability = roots.clamp_(0, 1).square_()
        torch.from_numpy(confidence[rows]).copy_(probability)
        if has_threshold:
            limits = torch.from_numpy(thresholds[row_owners[rows.start // tile]])
            torch.from_numpy(labels[rows]).masked_fill_(probability < limits, -1)
    for top, left, side, maps, at_corners in candidates.ambiguous_squares():
        values = guided_filter.strip_values(top, left, side, at_corners)
        winners, largest = first_maximum(values)
        first = np.arange(0, maps.size, maps.shape[1]).repeat(side)  # of each column's maps
        owners = labels_of_maps[maps].ravel().take(winners + first)
        probability = torch.from_numpy(largest).clamp_(0, 1).square_()
        if has_threshold:
            owners[probability.numpy() < thresholds[owners]] = -1
        write_strip(labels, top, left, owners)
        write_strip(confidence, top, left, probability.half().numpy())
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


def _fit(scores: Scores, guided_filter: GuidedFilter) -> tuple[Float32s, Int16s]:
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
    roots, root_knots = (torch.from_numpy(each).sqrt() for each in (probabilities, knots))
    return guided_filter.colour_fit.fit_with_detail(roots, root_knots).numpy(), labels
