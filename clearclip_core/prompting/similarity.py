"""Similarity of the cells of an image to a clicked pixel, in class and in features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F

from clearclip_core.prompting.geodesic import FloatMap
from clearclip_core.prompting.grid import GridGeometry, Pixel
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures

#: Lower limit of probabilities and lengths, so that logarithms and quotients stay finite.
_MIN = 1e-4


@dataclass(frozen=True, eq=False)
class CellSimilarity:
    """Class probabilities and features of the cells of one image.

    Attributes:
        geometry: the grid of cells.
        root_probabilities: (h, w, Q) float32, square roots of the queries' probabilities.
        log_probability: (h, w) float32, logarithm of the prompted label's probability.
        patches: (I*h_p, J*w_p, D) float32, the windows' features side by side, less the image's
            mean (all patches of CLIP share a component that tells nothing), of length 1.
        matrices: (h, I*h_p) and (w, J*w_p), weights of the patches in the cells.
    """

    geometry: GridGeometry
    root_probabilities: FloatMap
    log_probability: FloatMap
    patches: FloatMap
    matrices: tuple[FloatMap, FloatMap]

    @classmethod
    def of(
        cls, features: DenseFeatures, scores: Scores, label: int, geometry: GridGeometry
    ) -> CellSimilarity:
        """Compute the probabilities of the cells and center the features.

        Args:
            features: features of the image.
            scores: scores of the image.
            label: index in ``scores.vocabulary.labels`` of the prompted label.
            geometry: the grid of cells.
        """
        matrices = _matrices(scores, geometry)
        softmax = _softmax(scores, matrices)
        own = softmax[np.equal(scores.vocabulary.query_labels, label)].max(axis=0)
        return cls(
            geometry,
            root_probabilities=np.sqrt(softmax).transpose(1, 2, 0),
            log_probability=np.log(own + _MIN),
            patches=_centered(features),
            matrices=matrices,
        )

    def classes(self, pixel: Pixel) -> FloatMap:
        """Compute (h, w) logarithms of how similar the cells' classes are to those at a pixel.

        The similarity is the square of the Bhattacharyya coefficient. Where one query is certain
        at the pixel, it is that query's probability.
        """
        here = self.root_probabilities[self.geometry.cell(pixel)]
        return np.asarray(np.log((self.root_probabilities @ here) ** 2 + _MIN))

    def cosines(self, pixel: Pixel) -> FloatMap:
        """Compute (h, w) cosines of the cells' centered features with those at a pixel."""
        y, x = self.geometry.cell(pixel)
        down, along = self.matrices
        here = np.einsum("h,hwd,w->d", down[y], self.patches, along[x], optimize=True)
        here /= max(float(np.linalg.norm(here)), _MIN)
        return np.asarray(down @ (self.patches @ here) @ along.T)


def _matrices(scores: Scores, geometry: GridGeometry) -> tuple[FloatMap, FloatMap]:
    """Return (h, I*h_p) and (w, J*w_p): weights of the patches at the cells' centres."""
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    down, along = (
        axis.at((np.arange(count) + 0.5) * len(axis.resized) / count - 0.5)
        for axis, count in zip(axes, geometry.cells_hw, strict=True)
    )
    return down.astype(np.float32), along.astype(np.float32)


def _softmax(scores: Scores, matrices: tuple[FloatMap, FloatMap]) -> FloatMap:
    """Return (Q, h, w) probabilities of all queries in the cells."""
    cosines = scores.cosines.cpu().float().numpy()
    logits = scores.temperature * (matrices[0] @ cosines @ matrices[1].T)
    softmax = np.exp(logits - logits.max(axis=0))
    softmax /= softmax.sum(axis=0)
    return np.asarray(softmax)


def _centered(features: DenseFeatures) -> FloatMap:
    """Return (I*h_p, J*w_p, D): features side by side, less their mean, of length 1."""
    patches = features.patches.detach().cpu().float()
    centered = F.normalize(patches - patches.mean(dim=(0, 1, 2)), dim=-1)
    mosaic = features.plan.mosaic(centered.permute(0, 3, 1, 2))
    return np.asarray(mosaic.permute(1, 2, 0).contiguous().numpy())
