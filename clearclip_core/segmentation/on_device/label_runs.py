"""Runs of a label map on a device: only they leave it, not the pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.segmentation.label_runs import LabelRuns

#: Pixels whose confidence is summed at once: 8 bytes each.
_BAND_PX = 1 << 24


@torch.inference_mode()
def find_runs(
    label_map: torch.Tensor, confidence: torch.Tensor
) -> tuple[LabelRuns, npt.NDArray[np.float64]]:
    """Find the runs of a label map, and sum the confidence over each.

    Args:
        label_map: (H, W) int16, index of the label or -1.
        confidence: (H, W) float16, on the same device.

    Returns:
        The runs, as of `LabelRuns.of`; and (N,) float64, as of `LabelRuns.sums`.
    """
    height, width = label_map.shape
    rows_at_once = max(1, _BAND_PX // max(1, width))
    starts, labels, sums = [], [], []
    for top in range(0, height, rows_at_once):
        band = label_map[top : top + rows_at_once]
        begins = torch.ones(band.shape, dtype=torch.bool, device=band.device)
        torch.ne(band[:, 1:], band[:, :-1], out=begins[:, 1:])
        first = begins.flatten().nonzero().flatten()
        before = confidence[top : top + rows_at_once].flatten().cumsum(0, dtype=torch.float64)
        ends = torch.cat([first[1:], first.new_tensor([band.numel()])]) - 1
        sums.append(before[ends].diff(prepend=before.new_zeros(1)))
        labels.append(band.flatten()[first])
        starts.append((first + top * width).int())
    runs = LabelRuns(
        np.asarray(torch.cat(starts).cpu()), np.asarray(torch.cat(labels).cpu()), (height, width)
    )
    return runs, np.asarray(torch.cat(sums).cpu())
