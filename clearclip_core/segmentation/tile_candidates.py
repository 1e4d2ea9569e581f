"""For each tile of an image, the refined maps that can be the largest somewhere in it.

A map is a linear function of the pixel's colour, whose factors are bilinear within a tile (see
`guided_filter`). So its factors at a tile's corners and the range of the tile's colours bound it.
Where several maps can win, the parts of the tile are bounded in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.candidates import candidate_batches
from clearclip_core.segmentation.guided_filter import (
    Float32s,
    GuidedFilter,
    block_squares,
    tile_corners,
)
from clearclip_core.segmentation.upsampling import Indices

Bools = npt.NDArray[np.bool_]

#: A map this much below the bound is compared all the same: bounds are rounded.
_MARGIN = 1e-5

#: Numbers that are computed at once where parts of tiles are bounded.
_BOUND_ELEMENTS = 1 << 17


class Squares(NamedTuple):
    """Some squares of one size, and the maps that can be the largest in them.

    Attributes:
        top: (N,) first rows in px, inside the image.
        left: (N,) first columns.
        side: rows and columns of a square.
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
        guided_filter: the guided filter of the image.
        functions: (K, 4, rows + 1, columns + 1), see ``GuidedFilter.fit``.

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

    def _possible_in_parts(self, y: Indices, x: Indices) -> Bools:
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


def _can_win(ahead: Float32s, middle: Float32s, half: Float32s) -> Bools:
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
