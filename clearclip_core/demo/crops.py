"""Crops of training images with the labels that are present in them.

A crop of a drawn scene is labelled as a whole. A crop of a photograph shows most labels of its
folder, which says little, so it is also divided into cells of 64 px, each a small crop that the
model sees in its surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clearclip_core.demo.training_images import COARSE, TrainingImages

#: Side of a cell in px.
CELL_PX = 64

#: Shares of the crop above which a label is present, and below which it is absent.
_POSITIVE, _NEGATIVE = 0.02, 0.003


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        pixels: (B, 3, S, S) float32 in [0, 1].
        present: (B, L) bool, labels with more than 2 % of the crop.
        absent: (B, L) bool, labels with less than 0.3 %. A label between is left out of the loss.
        cell_present: (B, C * C, L) bool, `present` for each of C x C cells, row by row.
        cell_absent: (B, C * C, L) bool, `absent` for each cell.
    """

    pixels: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor
    cell_present: torch.Tensor
    cell_absent: torch.Tensor

    def padded(self, labels: int) -> Crops:
        """Return the crops with more labels, up to a number of them, that are absent everywhere."""
        more = (0, labels - self.present.shape[-1])
        return Crops(
            self.pixels,
            F.pad(self.present, more, value=False),
            F.pad(self.absent, more, value=True),
            F.pad(self.cell_present, more, value=False),
            F.pad(self.cell_absent, more, value=True),
        )


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
    cells = max(1, size // CELL_PX) if source.photographs else 1
    pixels = np.empty((batch, size, size, 3), dtype=np.uint8)
    shares = np.empty((batch, cells, cells, len(source.labels)))
    for index in range(batch):
        number = int(rng.integers(len(source.images)))
        side = int(size * np.exp(rng.uniform(*np.log(zoom))))
        labels = source.coarse_labels[number]
        y, x, short = _rarest_window(labels, source.rarity, side, rng)
        crop = _cut(source.images[number], y, x, short, size)
        found = _cell_shares(labels[y : y + short, x : x + short], cells, len(source.labels))
        mirrored = rng.random() < 0.5
        pixels[index] = crop[:, ::-1] if mirrored else crop
        shares[index] = found[:, ::-1] if mirrored else found
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    whole = torch.from_numpy(shares.mean((1, 2)))
    by_cell = torch.from_numpy(shares.reshape(batch, cells * cells, -1))
    return Crops(
        _jittered(inputs, rng, swap=not source.photographs),
        whole > _POSITIVE,
        whole < _NEGATIVE,
        by_cell > _POSITIVE,
        by_cell < _NEGATIVE,
    )


def _cut(image: NDArray[np.uint8], y: int, x: int, short: int, size: int) -> NDArray[np.uint8]:
    """Cut a window, given in coarse pixels, and resize it to `size` px."""
    side = short * COARSE
    window = image[y * COARSE : y * COARSE + side, x * COARSE : x * COARSE + side]
    method = cv2.INTER_AREA if side > 1.4 * size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(window, (size, size), interpolation=method), np.uint8)


def _cell_shares(labels: NDArray[np.uint8], cells: int, count: int) -> NDArray[np.float64]:
    """Return the share of each label in each cell of a square: (cells, cells, labels)."""
    side = len(labels)
    rows = np.arange(side) * cells // side
    places = rows[:, None] * cells + rows
    known = np.minimum(labels, count)  # all values without a label become one
    flat = np.bincount(
        (places * (count + 1) + known).ravel(), minlength=cells * cells * (count + 1)
    )
    counts = flat.reshape(cells, cells, count + 1)
    return np.asarray(counts[..., :count] / np.maximum(counts.sum(-1, keepdims=True), 1))


def _rarest_window(
    labels: NDArray[np.uint8],
    weights: NDArray[np.float64],
    side: int,
    rng: np.random.Generator,
    candidates: int = 2,
) -> tuple[int, int, int]:
    """Return y, x and side of the best of a few windows, in coarse pixels."""
    height, width = labels.shape
    short = max(2, min(round(side / COARSE), height, width))
    best: tuple[float, int, int] | None = None
    for _ in range(candidates):
        y = int(rng.integers(height - short + 1))
        x = int(rng.integers(width - short + 1))
        counts = np.bincount(labels[y : y + short, x : x + short].ravel(), minlength=len(weights))
        share = counts[: len(weights)] / short**2
        rarity = float(weights[share > _POSITIVE].sum()) * rng.uniform(0.5, 1.5)
        if best is None or rarity > best[0]:
            best = rarity, y, x
    assert best is not None
    return best[1], best[2], short


def _jittered(pixels: torch.Tensor, rng: np.random.Generator, swap: bool) -> torch.Tensor:
    """Vary contrast, brightness and tint of each image; permute channels of some on request."""
    batch = len(pixels)
    swapped = rng.random(batch) < 0.15
    if swap and swapped.any():
        where = torch.from_numpy(swapped)
        pixels[where] = pixels[where][:, torch.from_numpy(rng.permutation(3))]
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (batch, 1, 1, 1)) * np.ones((1, 3, 1, 1)))
    gain = gain * torch.from_numpy(rng.uniform(0.88, 1.12, (batch, 3, 1, 1)))
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (batch, 1, 1, 1)))
    return ((pixels - 0.5) * gain.float() + 0.5 + shift.float()).clamp_(0, 1)
