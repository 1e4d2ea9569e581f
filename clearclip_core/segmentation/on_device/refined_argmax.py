"""Argmax over refined probabilities on the device of the scores: all maps at all pixels, in bands.

The result is that of `clearclip_core.segmentation.refined_argmax`, which on a CPU computes only the
maps that can win.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import REFINEMENT, Refinement, check_image
from clearclip_core.segmentation.on_device.detail import fit_with_detail
from clearclip_core.segmentation.on_device.guided_filter import DeviceGuidedFilter
from clearclip_core.segmentation.refined_argmax import SHARE, check_size
from clearclip_core.segmentation.scores import GPU_BATCH_ELEMENTS, Scores
from clearclip_core.segmentation.upsampling import AxisUpsampling, Matrix


@torch.inference_mode()
def decide_refined_on_device(
    scores: Scores,
    image: RGBArray,
    threshold: float | Sequence[float] = 0.0,
    refinement: Refinement = REFINEMENT,
    patch_px: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what `decide_refined` computes, on the device of the scores.

    Args:
        scores: scores of the image.
        image: (H, W, 3) uint8 RGB, the image itself.
        threshold: see `decide_refined`.
        refinement: parameters of the guided filter.
        patch_px: see `decide_refined`.

    Raises:
        ValueError: an argument is not as described.

    Returns:
        (H, W) int16 labels and (H, W) float16 probabilities, on the device.
    """
    check_size(scores, image)
    check_image(image)
    device = scores.cosines.device
    limits = torch.from_numpy(scores.thresholds(threshold)).to(device)
    grid = refinement.grid((image.shape[0], image.shape[1]), patch_px or scores.plan.patch_image_px)
    guided_filter = DeviceGuidedFilter(_upload(image, device), grid, refinement.epsilon)
    functions, owners = _fit(scores, guided_filter)
    height, width = grid.image_hw
    labels = torch.empty((height, width), dtype=torch.int16, device=device)
    confidence = torch.empty((height, width), dtype=torch.float16, device=device)
    for rows in guided_filter.row_bands():
        pixels = slice(rows.start * grid.tile_px, min(rows.stop * grid.tile_px, height))
        colours = guided_filter.colours(rows)
        best = guided_filter.values(functions[0], rows, colours)
        winner = owners[0].expand_as(best).clone()
        for owner, function in zip(owners[1:], functions[1:], strict=True):
            values = guided_filter.values(function, rows, colours)
            winner = torch.where(values > best, owner, winner)
            best = torch.maximum(best, values)
        probability = best.clamp_(0, 1).square_()
        low = probability < limits[winner.int()]
        count = pixels.stop - pixels.start
        labels[pixels] = winner.masked_fill_(low, -1).reshape(-1, width)[:count]
        confidence[pixels] = probability.reshape(-1, width)[:count]
    return labels, confidence


def _upload(image: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Copy an image to a device; to CUDA through pinned memory, beside what the device computes."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _fit(scores: Scores, guided_filter: DeviceGuidedFilter) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit square roots of probabilities to the colours, as `refined_argmax` does.

    Returns:
        (K, 4, rows + 1, columns + 1) float32 functions; and (K,) int16 labels that compete, -1 for
        the contrast words.
    """
    y_px, x_px = guided_filter.grid.corners_px
    precise = guided_filter.precise
    at_corners = _probabilities(
        scores, lambda axis, px: axis.at(axis.positions(px)), (y_px, x_px), precise
    )
    at_knots = _probabilities(scores, lambda axis, px: axis.at_knots(px), (y_px, x_px), precise)
    winner = at_corners.amax(dim=0)
    competing = (at_corners >= SHARE * winner).flatten(1).any(dim=1)
    owners = torch.tensor(_labels(scores)[0], dtype=torch.int16, device=competing.device)
    functions = fit_with_detail(
        guided_filter, at_corners[competing].sqrt(), at_knots[competing].sqrt()
    )
    return functions, owners[competing]


def _labels(scores: Scores) -> tuple[list[int], list[int]]:
    """Return the labels, -1 for the contrast words; and where their queries begin, and the last's
    end.
    """
    queries = np.asarray(scores.vocabulary.query_labels)
    first = np.flatnonzero(np.diff(queries, prepend=-2))  # a label's queries follow one another
    return queries[first].tolist(), [*first.tolist(), len(queries)]


def _probabilities(
    scores: Scores,
    weights: Callable[[AxisUpsampling, Matrix], Matrix],
    places_px: tuple[Matrix, Matrix],
    precise: torch.dtype,
) -> torch.Tensor:
    """Return (L, m, n) float32 probabilities of each label's best query at places of the image.

    Args:
        scores: scores of the image.
        weights: makes (places, patches) weights of an axis.
        places_px: (m,) rows and (n,) columns.
        precise: dtype of the products with the weights.
    """
    axes = scores.plan.rows.upsampling, scores.plan.columns.upsampling
    down, along = (
        torch.from_numpy(weights(axis, px)).to(precise).to(scores.cosines.device)
        for axis, px in zip(axes, places_px, strict=True)
    )
    labels, ends = _labels(scores)
    cosines = scores.cosines.to(precise)
    made = []
    for band in torch.split(down, max(1, GPU_BATCH_ELEMENTS // (len(cosines) * len(along)))):
        logits = (band @ cosines @ along.T).to(scores.cosines.dtype) * scores.temperature
        exponents = (logits - logits.amax(dim=0)).exp_()  # (Q, r, n)
        total = exponents.sum(dim=0, dtype=precise)
        if len(labels) < len(exponents):
            pairs = pairwise(ends)
            exponents = torch.stack([exponents[one:end].amax(dim=0) for one, end in pairs])
        made.append((exponents / total).float())
    return torch.cat(made, dim=1)
