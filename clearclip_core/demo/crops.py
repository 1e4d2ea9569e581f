"""Crops of training images with image-level labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from clearclip_core.demo.training_images import COARSE, TrainingImages

#: Shares of the crop above which a label is present, and below which it is absent.
_POSITIVE, _NEGATIVE = 0.02, 0.003


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        pixels: (B, 3, S, S) float32 in [0, 1].
        present: (B, L) bool, labels with more than 2 % of the crop.
        absent: (B, L) bool, labels with less than 0.3 %. A label between is left out of the loss.
    """

    pixels: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor


def crops(
    source: TrainingImages,
    size: int,
    batch: int,
    zoom: tuple[float, float],
    rng: np.random.Generator,
) -> Crops:
    """Sample random crops of training images.

    The side of a crop's window is `size` times a log-uniform factor from `zoom`. Of two candidates
    the one with the rarer labels is preferred. Half of the crops are mirrored; contrast,
    brightness and tint vary.

    Args:
        source: the images.
        size: side of the crops in px.
        batch: number of crops.
        zoom: smallest and largest window, as a factor of `size`.
        rng: the source of every random choice.
    """
    pixels = np.empty((batch, size, size, 3), dtype=np.uint8)
    shares = np.empty((batch, len(source.labels)))
    for index in range(batch):
        number = int(rng.integers(len(source.images)))
        side = int(size * np.exp(rng.uniform(*np.log(zoom))))
        labels = source.coarse_labels[number]
        y, x, side, shares[index] = _rarest_window(labels, source.rarity, side, rng)
        window = source.images[number][y : y + side, x : x + side]
        method = cv2.INTER_AREA if side > 1.4 * size else cv2.INTER_LINEAR
        crop = cv2.resize(window, (size, size), interpolation=method)
        pixels[index] = crop[:, ::-1] if rng.random() < 0.5 else crop
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return Crops(
        _jittered(inputs, rng, source.any_colour),
        torch.from_numpy(shares > _POSITIVE),
        torch.from_numpy(shares < _NEGATIVE),
    )


def _rarest_window(
    labels: NDArray[np.uint8],
    weights: NDArray[np.float64],
    side: int,
    rng: np.random.Generator,
    candidates: int = 2,
) -> tuple[int, int, int, NDArray[np.float64]]:
    """Return y, x and side of the best of a few windows, in px, and its (L,) label shares."""
    height, width = labels.shape
    short = max(2, min(round(side / COARSE), height, width))
    best: tuple[float, int, int, NDArray[np.float64]] | None = None
    for _ in range(candidates):
        y = int(rng.integers(height - short + 1))
        x = int(rng.integers(width - short + 1))
        counts = np.bincount(labels[y : y + short, x : x + short].ravel(), minlength=len(weights))
        share = counts[: len(weights)] / short**2
        rarity = float(weights[share > _POSITIVE].sum()) * rng.uniform(0.5, 1.5)
        if best is None or rarity > best[0]:
            best = rarity, y, x, share
    assert best is not None
    _, y, x, share = best
    return y * COARSE, x * COARSE, short * COARSE, share


def _jittered(pixels: torch.Tensor, rng: np.random.Generator, any_colour: bool) -> torch.Tensor:
    """Vary contrast, brightness and tint of each image; permute channels of some on request."""
    batch = len(pixels)
    swapped = rng.random(batch) < 0.15
    if any_colour and swapped.any():
        where = torch.from_numpy(swapped)
        pixels[where] = pixels[where][:, torch.from_numpy(rng.permutation(3))]
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (batch, 1, 1, 1)) * np.ones((1, 3, 1, 1)))
    gain = gain * torch.from_numpy(rng.uniform(0.88, 1.12, (batch, 3, 1, 1)))
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (batch, 1, 1, 1)))
    return ((pixels - 0.5) * gain.float() + 0.5 + shift.float()).clamp_(0, 1)
