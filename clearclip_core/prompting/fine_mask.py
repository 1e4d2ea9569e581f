"""Masks from log-odds of cells: sharpened along the image's edges, enlarged to its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.geodesic import FloatMap
from clearclip_core.prompting.grid import GridGeometry, Pixel
from clearclip_core.segmentation.guided_filter import Refinement, guided
from clearclip_core.segmentation.runs import BoolMask

#: Log-odds are clipped to this before they are sharpened: larger ones overshoot more at edges.
_MAX_LOG_ODDS = 2.0

_REFINEMENT = Refinement(radius_patches=1.0, epsilon=3e-4)


@dataclass(frozen=True, eq=False)
class FineImage:
    """The image at the fine size, at which masks are decided pixel by pixel.

    Attributes:
        rgb: (h', w', 3) uint8.
        geometry: the grid of cells.
    """

    rgb: RGBArray
    geometry: GridGeometry

    def sharpen(self, log_odds: FloatMap) -> FloatMap:
        """Upsample (K, h, w) log-odds to (K, h', w') along the edges of the image."""
        clipped = np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
        return guided(self.rgb, clipped, self.geometry.patch_px, _REFINEMENT)

    def fill_around(self, fine: BoolMask, pixels: Sequence[Pixel], value: bool) -> None:
        """Set a mask (h', w') in place, in a square of about a cell around pixels of the image."""
        radius = int(self.geometry.cell_area_px**0.5 / 2)
        for y, x in self.geometry.fine_pixels(pixels):
            around = (
                slice(max(y - radius, 0), y + radius + 1),
                slice(max(x - radius, 0), x + radius + 1),
            )
            fine[around] = value

    def parts_at(self, fine: BoolMask, pixels: Sequence[Pixel]) -> BoolMask:
        """Keep the connected parts (8-connectivity) of a mask (h', w') that hold these pixels."""
        count, parts = cv2.connectedComponents(fine.view(np.uint8), connectivity=8)
        keep = np.zeros(count, bool)
        keep[[parts[pixel] for pixel in self.geometry.fine_pixels(pixels)]] = True
        keep[0] = False
        return np.asarray(keep[parts])

    def enlarge(self, fine: BoolMask) -> BoolMask:
        """Enlarge a mask (h', w') to the size of the image, (H, W)."""
        if fine.shape == self.geometry.image_hw:
            return fine
        grey = cv2.resize(fine.astype(np.uint8) * 255, self.geometry.image_hw[::-1])
        return np.asarray(grey > 127)

    def confidence(self, log_odds: FloatMap) -> npt.NDArray[np.float16]:
        """Turn (h, w) log-odds into (H, W) probabilities in steps of 1/255."""
        probability = 1 / (1 + np.exp(-log_odds))
        grey = np.round(probability * 255).astype(np.uint8)
        steps = cv2.resize(grey, self.geometry.image_hw[::-1])
        return np.asarray((np.arange(256) / 255).astype(np.float16)[steps])
