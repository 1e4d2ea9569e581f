"""Training images of the demo model with their label maps: drawn scenes, or a folder of pictures.

The label maps decide which labels are present in a crop, see `clearclip_core.demo.crops`. Training
gets neither masks nor positions.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clearclip_core.demo.architecture import MAX_LABELS
from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import SCENE_LABELS, SYNONYMS
from clearclip_core.images.label_maps import (
    IGNORE,
    LayoutError,
    PictureFiles,
    class_indices,
    pair_files,
)
from clearclip_core.vocabulary import Label, MapNames

#: Label shares are counted on every fourth pixel of every fourth row.
COARSE = 4

#: Short side in px of training images, which is that of pictures in predictions.
SHORT_SIDE_PX = 448

#: The labels of the drawn scenes, with their synonyms as prompts.
SCENE_WORDS = tuple(Label(name, (name, *SYNONYMS[name])) for name in SCENE_LABELS)

#: Weight of each label of the drawn scenes in the choice of a crop: larger for small and difficult
#: things.
_SCENE_RARITY = (0.3, 1, 3, 1, 0.5, 1.5, 1, 1, 2, 0.3, 2, 2.5, 2.5, 2, 1, 1.5, 0.5, 0.8)

#: Bounds of the weights of a folder's labels.
_MIN_RARITY, _MAX_RARITY = 0.3, 3.0


@dataclass(frozen=True)
class TrainingImages:
    """Images in memory, ready to be cropped; an image of 448 x 597 px takes 0.8 MB.

    Attributes:
        labels: the labels, their prompts being the words that are learned.
        images: (H, W, 3) uint8 each.
        coarse_labels: (H // 4, W // 4) uint8 each, the label index of every fourth pixel; 254
            or 255 for none.
        rarity: (L,), the weight of each label in the choice of a crop.
        photographs: crops are labelled by cells, see `clearclip_core.demo.crops`, and keep their
            colours, which say nothing in drawn scenes.
    """

    labels: tuple[Label, ...]
    images: Sequence[NDArray[np.uint8]]
    coarse_labels: Sequence[NDArray[np.uint8]]
    rarity: NDArray[np.float64]
    photographs: bool


def render_scenes(seeds: range, processes: int = 2) -> TrainingImages:
    """Render scenes of 448 x 597 px in several processes."""
    images, coarse = [], []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        rendered = pool.map(_render, seeds, chunksize=16)
        bar = tqdm(rendered, total=len(seeds), desc="render", unit="scene", mininterval=5)
        for image, labels in bar:
            images.append(image)
            coarse.append(labels)
    rarity = np.array(_SCENE_RARITY)
    return TrainingImages(SCENE_WORDS, images, coarse, rarity, photographs=False)


def _render(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = render_scene(seed)
    return scene.image, _coarse(scene.label_map.astype(np.uint8))


def _coarse(label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = label_map.shape
    every_fourth = label_map[::COARSE, ::COARSE]
    return np.ascontiguousarray(every_fourth[: height // COARSE, : width // COARSE])


def read_folder(folder: Path, names: Path, part: str = "") -> TrainingImages:
    """Read a folder of pictures with label maps, resized to a short side of 448 px.

    Args:
        folder: holds ``images/`` and ``masks/``, see `pair_files`.
        names: the labels of the maps' values, see `MapNames.read`.
        part: a folder below both, such as ``train``; by default everything in them.

    Raises:
        LayoutError: the folder does not fit, or a file cannot be read.
        ValueError: the names cannot be read, or are fewer than 2 or more than 127.
        OSError: the file of names cannot be read.
    """
    values = MapNames.read(names)
    labels = values.labels
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ValueError(
            f"Expected {names} to name 2 to {MAX_LABELS} labels, but got {len(labels)}."
        )
    files = pair_files(folder / "images" / part, folder / "masks" / part)
    read = [_read(each, values) for each in tqdm(files, desc="read", unit="picture")]
    coarse = [labels for _, labels in read]
    rarity = _rarity(coarse, len(labels))
    images = [image for image, _ in read]
    return TrainingImages(labels, images, coarse, rarity, photographs=True)


def _read(files: PictureFiles, names: MapNames) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, values = files.read()
    try:
        truth = class_indices(values, names.indices)
    except ValueError as error:
        raise LayoutError(f"{files.label_map}: {error}") from error
    height, width = truth.shape
    factor = SHORT_SIDE_PX / min(height, width)
    size = round(width * factor), round(height * factor)
    smaller = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, size, interpolation=smaller)
    indices = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8), _coarse(np.asarray(indices, np.uint8))


def _rarity(coarse_labels: Sequence[NDArray[np.uint8]], labels: int) -> NDArray[np.float64]:
    """Weigh each label by one over the square root of its share of all pixels.

    The weights are divided by their median and clipped to 0.3..3.
    """
    counts = np.zeros(IGNORE + 1)
    for each in coarse_labels:
        counts += np.bincount(each.ravel(), minlength=IGNORE + 1)
    weights = 1 / np.sqrt(np.maximum(counts[:labels], 1))
    return np.asarray(np.clip(weights / np.median(weights), _MIN_RARITY, _MAX_RARITY))
