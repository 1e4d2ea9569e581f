"""Training images of the demo model: crops of drawn scenes with image-level labels.

The label maps of the scenes are used here only, to decide by a label's share of the crop whether
it is present. Training gets neither masks nor positions.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import SCENE_LABELS

#: Label shares are counted on every fourth pixel of every fourth row.
_COARSE = 4

#: Shares of the crop above which a label is present, and below which it is absent.
_POSITIVE, _NEGATIVE = 0.02, 0.003


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes, ready to be cropped.

    Attributes:
        images: (S, H, W, 3) uint8.
        coarse_labels: (S, H / 4, W / 4) uint8, the label of every fourth pixel.
    """

    images: NDArray[np.uint8]
    coarse_labels: NDArray[np.uint8]


def render_scenes(seeds: range, processes: int = 2) -> Scenes:
    """Render scenes of 448 x 597 px in several processes; a scene takes 0.8 MB."""
    images = np.empty((len(seeds), 448, 597, 3), dtype=np.uint8)
    coarse = np.empty((len(seeds), 112, 150), dtype=np.uint8)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        rendered = pool.map(_render, seeds, chunksize=16)
        bar = tqdm(rendered, total=len(seeds), desc="render", unit="scene", mininterval=5)
        for index, (image, labels) in enumerate(bar):
            images[index], coarse[index] = image, labels
    return Scenes(images, coarse)


def _render(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = render_scene(seed)
    return scene.image, scene.label_map[::_COARSE, ::_COARSE].astype(np.uint8)


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        pixels: (B, 3, S, S) float32 in [0, 1].
        present: (B, 18) bool, labels with more than 2 % of the crop.
        absent: (B, 18) bool, labels with less than 0.3 %. A label between is left out of the loss.
    """

    pixels: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor


def crops(
    scenes: Scenes, size: int, batch: int, zoom: tuple[float, float], rng: np.random.Generator
) -> Crops:
    """Sample random crops of the scenes.

    The side of a crop's window is `size` times a log-uniform factor from `zoom`. Of two candidates
    the one with the rarer labels is preferred. Half of the crops are mirrored; contrast,
    brightness and tint vary.

    Args:
        scenes: the scenes.
        size: side of the crops in px.
        batch: number of crops.
        zoom: smallest and largest window, as a factor of `size`.
        rng: the source of every random choice.
    """
    pixels = np.empty((batch, size, size, 3), dtype=np.uint8)
    shares = np.empty((batch, len(SCENE_LABELS)))
    for index in range(batch):
        number = int(rng.integers(len(scenes.images)))
        side = int(size * np.exp(rng.uniform(*np.log(zoom))))
        y, x, side, shares[index] = _rarest_window(scenes.coarse_labels[number], side, rng)
        window = scenes.images[number, y : y + side, x : x + side]
        method = cv2.INTER_AREA if side > 1.4 * size else cv2.INTER_LINEAR
        crop = cv2.resize(window, (size, size), interpolation=method)
        pixels[index] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return Crops(
        _jittered(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, rng),
        torch.from_numpy(shares > _POSITIVE),
        torch.from_numpy(shares < _NEGATIVE),
    )


#: Weight of each label in the choice of a window: larger for small and difficult things.
_RARITY = np.array([0.3, 1, 3, 1, 0.5, 1.5, 1, 1, 2, 0.3, 2, 2.5, 2.5, 2, 1, 1.5, 0.5, 0.8])


def _rarest_window(
    labels: NDArray[np.uint8], side: int, rng: np.random.Generator, candidates: int = 2
) -> tuple[int, int, int, NDArray[np.float64]]:
    """Return y, x and side of the best of a few windows, in px, and its (18,) label shares."""
    height, width = labels.shape
    short = max(2, min(round(side / _COARSE), height))
    best: tuple[float, int, int, NDArray[np.float64]] | None = None
    for _ in range(candidates):
        y = int(rng.integers(height - short + 1))
        x = int(rng.integers(width - short))  # the last column is cut short by the border
        counts = np.bincount(labels[y : y + short, x : x + short].ravel(), minlength=18)
        share = counts / short**2
        rarity = float(_RARITY[share > _POSITIVE].sum()) * rng.uniform(0.5, 1.5)
        if best is None or rarity > best[0]:
            best = rarity, y, x, share
    assert best is not None
    _, y, x, share = best
    return y * _COARSE, x * _COARSE, short * _COARSE, share


def _jittered(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Vary contrast, brightness and tint of each image, and sometimes permute its channels."""
    batch = len(pixels)
    swapped = rng.random(batch) < 0.15
    if swapped.any():
        where = torch.from_numpy(swapped)
        pixels[where] = pixels[where][:, torch.from_numpy(rng.permutation(3))]
    gain = torch.from_numpy(rng.uniform(0.75, 1.25, (batch, 1, 1, 1)) * np.ones((1, 3, 1, 1)))
    gain = gain * torch.from_numpy(rng.uniform(0.88, 1.12, (batch, 3, 1, 1)))
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (batch, 1, 1, 1)))
    return ((pixels - 0.5) * gain.float() + 0.5 + shift.float()).clamp_(0, 1)
