"""Grid of square tiles over an image, to which a guided filter is fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearclip_core.segmentation.upsampling import Matrix


@dataclass(frozen=True)
class TileGrid:
    """Square tiles from the top left of an image on.

    Tiles at the right and at the bottom may reach beyond the image.

    Attributes:
        image_hw: size of the image in px.
        tile_px: side of a tile.
        radius: half the side in tiles of the windows in which maps are fitted.

    >>> TileGrid((5, 9), tile_px=4, radius=1).tiles_hw
    (2, 3)
    """

    image_hw: tuple[int, int]
    tile_px: int
    radius: int

    @classmethod
    def of(
        cls,
        image_hw: tuple[int, int],
        patch_px: float,
        radius_patches: float,
        tiles_per_patch: int,
    ) -> TileGrid:
        """Return the grid whose tiles come nearest to a size given in patches.

        Args:
            image_hw: size of the image in px.
            patch_px: side of a patch in px of the image.
            radius_patches: half the side of the windows, in patches.
            tiles_per_patch: tiles along a patch's side.

        Raises:
            ValueError: `patch_px` is not positive and finite.
        """
        if not 0 < patch_px < np.inf:
            raise ValueError(f"Expected argument `patch_px` to be positive, but got {patch_px}.")
        tile_px = max(1, round(patch_px / tiles_per_patch))
        return cls(image_hw, tile_px, max(1, round(radius_patches * patch_px / tile_px)))

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
