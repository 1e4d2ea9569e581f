"""Parts of a tile: large tiles are cut into four squares, in each of which fewer labels can win."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.upsampling import Indices

#: Tiles from this side on are cut: the pixels of smaller ones cost less than to bound their parts.
_CUT_FROM_PX = 32

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TileParts:
    """The squares of one size into which each tile is cut; one square where it is not.

    Two squares share a row or column of pixels where the tile's side is odd.

    Attributes:
        tile_px: side of a tile.

    >>> TileParts(33).starts_px, TileParts(33).side_px
    ((0, 16), 17)
    >>> TileParts(8).starts_px, TileParts(8).side_px
    ((0,), 8)
    """

    tile_px: int

    @property
    def side_px(self) -> int:
        """Side of a square."""
        return -(-self.tile_px // 2) if self.tile_px >= _CUT_FROM_PX else self.tile_px

    @property
    def starts_px(self) -> tuple[int, ...]:
        """Where the squares begin along a side of the tile."""
        return (0,) if self.side_px == self.tile_px else (0, self.tile_px - self.side_px)

    @property
    def offsets_px(self) -> tuple[Indices, Indices]:
        """(P,) rows and (P,) columns in the tile at which its P squares begin."""
        starts = np.array(self.starts_px)
        return np.repeat(starts, len(starts)), np.tile(starts, len(starts))

    @cached_property
    def corner_weights(self) -> Float32s:
        """(P, 4, 4) weights of the tile's corners in each corner of a square.

        What is bilinear in the tile is so in the squares.
        """
        starts = np.array(self.starts_px)
        ends = np.stack([starts, starts + self.side_px], axis=1) / self.tile_px  # (squares, 2)
        along = np.stack([1 - ends, ends], axis=2)  # (squares, ends, ends of the tile)
        weights: Float32s = np.einsum("aij,bkl->abikjl", along, along).astype(np.float32)
        return weights.reshape(-1, 4, 4)
