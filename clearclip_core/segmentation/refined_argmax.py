"""The best label of each pixel by probabilities that follow the picture's edges.

A refined probability is a linear function of the pixel's colour, whose factors are bilinear within
a tile (see `refine`). So from the factors at a tile's corners and the range of its colours follows
which labels can win in it: mostly one. The others are computed only in tiles where several can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.argmax import candidates, first_maximum
from clearclip_core.segmentation.guided_filter import (
    REFINEMENT,
    Float32s,
    GuidedFilter,
    Refinement,
    tile_corners,
)
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Indices, Matrix

Labels = npt.NDArray[np.int16]
Number = TypeVar("Number", bound=np.generic)

#: A label competes that somewhere has this share of the winner's probability.
_SHARE = 0.5

#: A label this much below another is compared all the same: bounds are rounded.
_MARGIN = 1e-5


def decide_refined(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
) -> tuple[Labels, npt.NDArray[np.float16]]:
    """``Scores.decide`` by refined probabilities.

    Labels compete that somewhere have half of the winner's probability or more, and the contrast
    words as one.

    Args:
        scores: of the picture's features and words.
        image: (H, W, 3) uint8 RGB, the picture itself.
        threshold: refined probability below which a pixel gets no label; one for all labels or
            one for each.
        refinement: how far and how closely.

    Raises:
        ValueError: `image` is not of the size that was scored, or neither one threshold nor one
            for each label.

    Returns:
        (H, W) int16 labels, -1 where a contrast word wins or the probability is below the
        threshold; and (H, W) float16 refined probabilities in [0, 1] of what wins.
    """
    thresholds = scores.thresholds(threshold)
    if image.shape[:2] != scores.plan.image_hw:
        raise ValueError(
            f"Expected argument `image` to be of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]}."
        )
    guide = GuidedFilter(image, scores.plan.patch_image_px, refinement)
    probabilities, owners = competitors(scores, *guide.centres_px)
    contest = TileCandidates(guide, np.stack([guide.fit(each) for each in probabilities]))
    tile = guide.tile_px
    tiles = guide.tiles_hw[0], tile, guide.tiles_hw[1], tile
    labels, confidence = np.empty(tiles, np.int16), np.empty(tiles, np.float16)
    for row, favourites in enumerate(contest.favourites):
        values = guide.row_values(row, contest.corners[:, :, row]).reshape(tiles[1:])
        labels[row], confidence[row] = _limit(thresholds, owners[favourites, None], values)
    for y, x, rivals in contest.doubtful():
        values = guide.tile_values(y, x, contest.functions_at(y, x, rivals))
        owner, best = first_maximum(values, owners[rivals])
        made = _limit(thresholds, owner, best)
        labels[y, :, x], confidence[y, :, x] = (each.reshape(-1, tile, tile) for each in made)
    return _crop(labels, guide.image_hw), _crop(confidence, guide.image_hw)


def competitors(scores: Scores, y_px: Matrix, x_px: Matrix) -> tuple[Float32s, Labels]:
    """Probabilities at some places, of what may win somewhere.

    Args:
        scores: of a picture.
        y_px: (m,) rows, pixel 0 has its centre at 0.
        x_px: (n,) columns.

    Returns:
        (K, m, n) probabilities, of each label's queries the largest, and (K,) the labels, -1 for
        the contrast words.
    """
    owners = np.asarray(scores.vocabulary.query_labels, np.int16)
    first = np.flatnonzero(np.diff(owners, prepend=-2))  # a label's queries follow one another
    made = np.empty((len(first), len(y_px), len(x_px)), np.float32)
    for some, logits in scores.logits_at(y_px, x_px):  # (r, n, Q)
        exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
        best = np.maximum.reduceat(exponents, first, axis=2)
        made[:, some] = (best / exponents.sum(axis=2, keepdims=True)).transpose(2, 0, 1)
    winner = made.max(axis=0)
    competing = np.array([(each >= _SHARE * winner).any() for each in made])
    return made[competing], owners[first[competing]]


class TileCandidates:
    """Which of some maps can be the largest in which tiles.

    Args:
        guide: the picture.
        functions: (K, 4, rows + 1, columns + 1), see ``GuidedFilter.fit``.

    Attributes:
        favourites: (rows, columns), the map that is largest in a tile's middle, at the middle of
            its colours.
        corners: (4, 4, rows, columns), the favourites' functions at the corners of the tiles.
    """

    def __init__(self, guide: GuidedFilter, functions: Float32s) -> None:
        self._functions, self._pixels = functions, guide.tile_px**2
        middle, half = guide.colour_range()
        at_middle = [_values(tile_corners(each).mean(axis=1), middle) for each in functions]
        self.favourites = np.argmax(at_middle, axis=0)
        y, x = np.indices(self.favourites.shape)
        ends = self.functions_at(y.ravel(), x.ravel(), self.favourites.reshape(-1, 1))
        self.corners = np.ascontiguousarray(ends[:, 0].transpose(1, 2, 0)).reshape(4, 4, *y.shape)
        self._may_win = np.stack([self._rivals(each, middle, half) for each in functions], axis=2)

    def _rivals(
        self, function: Float32s, middle: Float32s, half: Float32s
    ) -> npt.NDArray[np.bool_]:
        """(rows, columns), whether a map may somewhere in a tile be as large as the favourite."""
        ahead = self.corners - tile_corners(function)  # (4, 4, rows, columns)
        least = _values(ahead, middle[:, None]) - (np.abs(ahead[:3]) * half[:, None]).sum(axis=0)
        return np.asarray(least.min(axis=0) <= _MARGIN)

    def doubtful(self) -> Iterator[tuple[Indices, Indices, Indices]]:
        """Tiles in which more than one map can be the largest.

        Yields:
            (N,) rows and (N,) columns of tiles, and (N, K) the maps that can.
        """
        y, x = np.nonzero(self._may_win.sum(axis=2) > 1)
        for some, maps in candidates(self._may_win[y, x], self._pixels):
            yield y[some], x[some], maps

    def functions_at(self, y: Indices, x: Indices, maps: Indices) -> Float32s:
        """The functions of (N, K) maps at the corners of N tiles: (N, K, 4, 4)."""
        below, right = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        at = maps[..., None], (y[:, None] + below)[:, None], (x[:, None] + right)[:, None]
        ends: Float32s = self._functions.transpose(0, 2, 3, 1)[at]  # (N, K, corners, 4)
        return ends.swapaxes(2, 3)


def _values(functions: Float32s, colours: Float32s) -> Float32s:
    """(4, ...) functions of (3, ...) colours -> (...)."""
    values: Float32s = (functions[:3] * colours).sum(axis=0) + functions[3]
    return values


def _limit(thresholds: Float32s, owners: Labels, values: Float32s) -> tuple[Labels, Float32s]:
    """Labels that reach their thresholds, -1 for the others, and values within [0, 1]."""
    probability = np.clip(values, 0, 1, out=values)
    return np.where(probability < thresholds[owners], np.int16(-1), owners), probability


def _crop(tiles: npt.NDArray[Number], image_hw: tuple[int, int]) -> npt.NDArray[Number]:
    """(rows, tile, columns, tile) -> (H, W), without what reaches out of the picture."""
    rows, tile, columns, _ = tiles.shape
    whole = tiles.reshape(rows * tile, columns * tile)
    return np.ascontiguousarray(whole[: image_hw[0], : image_hw[1]])
