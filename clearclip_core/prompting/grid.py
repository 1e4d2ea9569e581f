"""The grid of cells of an image: its size, and the cells of pixels and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearclip_core.segmentation.runs import BoolMask

Pixel = tuple[int, int]  # row, column
Box = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class GridGeometry:
    """Sizes of one image as it is, at the size where masks are decided, and as a grid of cells.

    Attributes:
        image_hw: size of the image in px.
        fine_hw: size in px at which masks are decided.
        cells_hw: number of cells.
        patch_px: side of a patch in px of the fine size.
    """

    image_hw: tuple[int, int]
    fine_hw: tuple[int, int]
    cells_hw: tuple[int, int]
    patch_px: float

    @property
    def cell_area_px(self) -> int:
        """Area of a cell in px of the fine size, rounded down."""
        return self.fine_hw[0] * self.fine_hw[1] // (self.cells_hw[0] * self.cells_hw[1])

    def cell(self, pixel: Pixel) -> Pixel:
        """Return row and column of the cell that holds a pixel of the image."""
        return _scaled(pixel, self.image_hw, self.cells_hw)

    def cells(self, pixels: Sequence[Pixel]) -> BoolMask:
        """Return (h, w) bool: the cells that hold these pixels of the image."""
        mask = np.zeros(self.cells_hw, bool)
        for pixel in pixels:
            mask[self.cell(pixel)] = True
        return mask

    def box_cells(self, box: Box) -> BoolMask:
        """Return (h, w) bool: the cells in a box of pixels of the image, at least one."""
        rows, columns = box
        top, left = self.cell((rows.start, columns.start))
        bottom, right = self.cell((rows.stop - 1, columns.stop - 1))
        mask = np.zeros(self.cells_hw, bool)
        mask[top : bottom + 1, left : right + 1] = True
        return mask

    def fine_pixels(self, pixels: Sequence[Pixel]) -> list[Pixel]:
        """Return the positions of pixels of the image at the fine size."""
        return [_scaled(pixel, self.image_hw, self.fine_hw) for pixel in pixels]

    def is_within_patch(self, box: Box) -> bool:
        """Whether a box of pixels of the image is smaller than a patch in both directions."""
        side = max(each.stop - each.start for each in box)
        return bool(side * self.fine_hw[0] < self.patch_px * self.image_hw[0])


def _scaled(pixel: Pixel, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Pixel:
    """Return row and column of a pixel's centre in the image resized to another size."""
    y, x = (
        (2 * at + 1) * new // (2 * old) for at, old, new in zip(pixel, old_hw, new_hw, strict=True)
    )
    return y, x
