"""An image made ready for prompts: grid of cells, distances, similarities and the fine image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.fine_mask import FineImage
from clearclip_core.prompting.geodesic import FloatMap, GeodesicGrid
from clearclip_core.prompting.grid import GridGeometry
from clearclip_core.prompting.similarity import CellSimilarity
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures

#: Cells of the grid: with 28 patches along the short side, a cell is a quarter of a patch wide.
_CELLS = 16_000

#: Pixels of the fine image, at which a mask is decided; the mask of a larger image is enlarged.
_FINE_PX = 1_000_000


@dataclass(frozen=True, eq=False)
class PromptedImage:
    """An image, its features and the scores of one label, made ready for prompts.

    Attributes:
        geometry: the grid of cells.
        geodesic: distances over the cells.
        similarity: class probabilities and features of the cells.
        fine: the image at the size at which masks are decided.
    """

    geometry: GridGeometry
    geodesic: GeodesicGrid
    similarity: CellSimilarity
    fine: FineImage

    @classmethod
    def of(
        cls, features: DenseFeatures, scores: Scores, label: int, image: RGBArray
    ) -> PromptedImage:
        """Make an image ready for prompts.

        Args:
            features: features of the image.
            scores: scores of the image.
            label: index in ``scores.vocabulary.labels`` of the prompted label.
            image: (H, W, 3) uint8.

        Raises:
            ValueError: an unknown label, or arguments of different images.
        """
        _check(features, scores, label, image)
        plan = scores.plan
        fine = _shrink(image, _FINE_PX)
        cells = _shrink(fine, _CELLS)
        geometry = GridGeometry(
            image_hw=plan.image_hw,
            fine_hw=(fine.shape[0], fine.shape[1]),
            cells_hw=(cells.shape[0], cells.shape[1]),
            patch_px=plan.patch_hw[0] * len(fine) / plan.resized_hw[0],
        )
        similarity = CellSimilarity.of(features, scores, label, geometry)
        geodesic = GeodesicGrid(_smooth_lab(cells), similarity.root_probabilities)
        return cls(geometry, geodesic, similarity, FineImage(fine, geometry))


def _check(features: DenseFeatures, scores: Scores, label: int, image: RGBArray) -> None:
    plan, count = scores.plan, len(scores.vocabulary.labels)
    if features.plan != plan:
        raise ValueError(
            "Expected arguments `features` and `scores` to be of one image, but their windows "
            "differ."
        )
    if image.shape != (*plan.image_hw, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"Expected argument `image` to be {(*plan.image_hw, 3)} uint8, but got {image.shape} "
            f"{image.dtype}."
        )
    if not 0 <= label < count:
        raise ValueError(f"Expected argument `label` to be in 0..{count - 1}, but got {label}.")


def _shrink(image: RGBArray, most_px: int) -> RGBArray:
    """Shrink an image to about `most_px` pixels at most, aspect kept."""
    height, width = image.shape[:2]
    scale = (most_px / (height * width)) ** 0.5
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image if scale >= 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _smooth_lab(image: RGBArray) -> FloatMap:
    """Return (h, w, 3) float32 CIELAB with texture smoothed and edges kept."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(cv2.bilateralFilter(lab, 5, 12, 3))
