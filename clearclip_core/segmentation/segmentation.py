"""The label of each pixel of an image, and the masks that are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearclip_core.segmentation.label_masks import LabelMasks
from clearclip_core.segmentation.masks import BoolMask


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The label of each pixel of an image.

    Attributes:
        label_map: (H, W) int16, index into `labels`, -1 for no label.
        confidence: (H, W) float16 in [0, 1], probability of the winning query.
        labels: names of the labels.
    """

    label_map: npt.NDArray[np.int16]
    confidence: npt.NDArray[np.float16]
    labels: tuple[str, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.label_map.shape[0], self.label_map.shape[1]

    def masks(self, min_island_px: int = 0, min_hole_px: int = 0) -> dict[str, BoolMask]:
        """Return one mask for each label that has a pixel.

        Args:
            min_island_px: connected parts of fewer pixels are dropped.
            min_hole_px: holes of fewer pixels are filled.

        Returns:
            Name of the label -> (H, W) bool.
        """
        masks = self.label_masks(min_island_px, min_hole_px)
        return {self.labels[index]: mask for index, mask in masks}

    def label_masks(
        self,
        min_island_px: int = 0,
        min_hole_px: int = 0,
        numbers: npt.NDArray[Any] | None = None,
    ) -> LabelMasks:
        """Return the masks of all labels, to be made one at a time.

        Args:
            min_island_px: connected parts of fewer pixels are dropped.
            min_hole_px: holes of fewer pixels are filled.
            numbers: labels that share a mask, see `LabelMasks`.
        """
        return LabelMasks(self.label_map, min_island_px, min_hole_px, self.confidence, numbers)

    def above(self, thresholds: Mapping[str, float]) -> Segmentation:
        """Return the segmentation without the pixels that are below their label's threshold.

        Args:
            thresholds: name of a label -> least probability of its pixels, in [0, 1]; 0 for labels
                that are not there. Both are compared as float16.
        """
        limits = self._limits(thresholds)
        if not limits.any():
            return self
        label_map = np.empty_like(self.label_map)
        # As integers, floats of 0 and more have their own order, and compare many times as fast.
        bits = limits.view(np.uint16)
        for labels, confidence, made in zip(
            self.label_map, self.confidence, label_map, strict=True
        ):
            reached = confidence.view(np.uint16) >= bits[labels]
            made[:] = np.where(reached, labels, np.int16(-1))
        return replace(self, label_map=label_map)

    def score(self, mask: BoolMask) -> float:
        """Compute the mean probability inside a mask (H, W), in [0, 1]; 0 for an empty mask."""
        return float(self.confidence[mask].mean(dtype=np.float64)) if mask.any() else 0.0

    def _limits(self, thresholds: Mapping[str, float]) -> npt.NDArray[np.float16]:
        """Return (labels + 1,) float16, the threshold of each label; the last is that of -1."""
        return np.array([thresholds.get(name, 0.0) for name in self.labels] + [0.0], np.float16)
