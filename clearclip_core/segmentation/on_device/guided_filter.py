"""Colour guided filter on the device of the image, see `clearclip_core.segmentation.guided_filter`.

Linear functions are fitted as on a CPU. They are evaluated at all pixels of some rows of tiles at
once: on a GPU that is faster than to find out where which map can win.
"""

from __future__ import annotations

import torch

from clearclip_core.segmentation.on_device.window_means import DeviceWindowMeans
from clearclip_core.segmentation.tile_grid import TileGrid

#: Pixels whose colours or values are computed at once. A value takes up to 40 bytes meanwhile.
_BAND_PX = 1 << 21

#: Maps are fitted so many at a time that their means have at most this many elements.
_FIT_ELEMENTS = 1 << 23


def precise_dtype(device: torch.device) -> torch.dtype:
    """Return the most precise floating dtype of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class DeviceGuidedFilter:
    """A colour guided filter for one image.

    Args:
        image: (H, W, 3) uint8 RGB, on the device that computes.
        grid: the tiles.
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

    def values(self, function: torch.Tensor, rows: slice, colours: torch.Tensor) -> torch.Tensor:
        """Evaluate one map's linear functions at every pixel of some rows of tiles.

        Args:
            function: (4, rows + 1, columns + 1), see `fit`.
            rows: rows of tiles.
            colours: their colours, see `colours`.

        Returns:
            (n, tile_px, W) float32, pixels below the image included.
        """
        corners = function[:, rows.start : rows.stop + 1]
        left, right = corners[..., :-1, None], corners[..., 1:, None]
        along = (left + (right - left) * self._fractions).flatten(2)[..., : colours.shape[3]]
        above = along[:, :-1, None]  # (4, n, 1, W): the functions at the upper ends of columns
        down = along[:, 1:, None] - above
        top, slope = above[3], down[3]
        for colour in range(3):
            top = torch.addcmul(top, colours[colour], above[colour])
            slope = torch.addcmul(slope, colours[colour], down[colour])
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
