"""The label of each pixel of an image, on the device where it was computed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.label_masks import LabelMasks
from clearclip_core.segmentation.on_device.label_runs import find_runs
from clearclip_core.segmentation.segmentation import Segmentation


class DeviceSegmentation(Segmentation):
    """A segmentation whose label map and probabilities stay on a device until they are asked for.

    Of masks, only the runs of the label map and the confidence in each leave the device.

    Args:
        label_map: (H, W) int16, index into `labels`, -1 for no label.
        confidence: (H, W) float16 in [0, 1], probability of the winning query.
        labels: names of the labels.
    """

    _labels_there: torch.Tensor
    _confidence_there: torch.Tensor

    def __init__(
        self, label_map: torch.Tensor, confidence: torch.Tensor, labels: tuple[str, ...]
    ) -> None:
        fields = {"_labels_there": label_map, "_confidence_there": confidence, "labels": labels}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @cached_property
    def label_map(self) -> npt.NDArray[np.int16]:
        """(H, W) int16, copied from the device."""
        return np.asarray(self._labels_there.cpu())

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) float16, copied from the device."""
        return np.asarray(self._confidence_there.cpu())

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self._labels_there.shape[0], self._labels_there.shape[1]

    def label_masks(
        self,
        min_island_px: int = 0,
        min_hole_px: int = 0,
        numbers: npt.NDArray[Any] | None = None,
    ) -> LabelMasks:
        """Return the masks of all labels, see `Segmentation.label_masks`."""
        runs, sums = find_runs(self._labels_there, self._confidence_there)
        return LabelMasks.of_runs(runs, min_island_px, min_hole_px, sums, numbers)

    @torch.inference_mode()
    def above(self, thresholds: Mapping[str, float]) -> DeviceSegmentation:
        """Return the segmentation without pixels below a threshold, see `Segmentation.above`."""
        limits = torch.from_numpy(self._limits(thresholds))
        if not limits.any():
            return self
        labels, confidence = self._labels_there, self._confidence_there
        low = confidence < limits.to(labels.device)[labels.int()]
        return type(self)(labels.masked_fill(low, -1), confidence, self.labels)
