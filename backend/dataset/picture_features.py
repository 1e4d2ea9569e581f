"""Describe pictures by features of the model, so that near-duplicates are found."""

from __future__ import annotations

import numpy as np
import torch

from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.image_loader import RGBArray
from clearclip_core import Label

_CELLS = 2  # of a side of the grid: where in a picture something is tells much alike ones apart

#: The engine scores each picture; one label costs least.
_LABELS = (Label("picture"),)


class PictureFeatures:
    """Computes a vector for each picture; the cosine of two is the mean of that of their quarters.

    Args:
        engine: the inference engine, which is started.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def model(self) -> str:
        """The name of the model: vectors of another one are not compared with these."""
        return self._engine.model_id

    def describe(self, rgb: RGBArray) -> bytes:
        """Return a vector (4 D,) float16 of unit length, as bytes.

        Args:
            rgb: (H, W, 3) uint8.

        Raises:
            ModelUnavailable: loading has failed, or the engine has stopped.
        """
        segmenter = self._engine.segmenter()
        image = segmenter.prepare(rgb)
        features = self._engine.encode(image, _LABELS, Priority.BATCH).features
        patches = features.plan.mosaic(features.patches.permute(0, 3, 1, 2)).float()
        cells = torch.nn.functional.adaptive_avg_pool2d(patches[None], _CELLS)[0].flatten(1)
        unit = torch.nn.functional.normalize(cells, dim=0) / _CELLS
        return unit.T.contiguous().cpu().numpy().astype(np.float16).tobytes()
