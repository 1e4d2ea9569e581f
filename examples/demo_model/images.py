"""Training images of the demo model with their label maps: drawn scenes, or a folder of pictures.

The label maps decide which labels are present in a crop. Training gets neither masks nor positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from clearclip_core.demo.render import SCENE_LABELS, SYNONYMS, render_scene
from clearclip_core.images.label_maps import IGNORE, PictureFiles, pair_files
from clearclip_core.vocabulary import Label, MapNames

#: Mean and standard deviation of the model's input, for every channel; pixels are in [0, 1].
MEAN, STD = 0.55, 0.22

#: Config of an open_clip folder.
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 112,
            "layers": 5,
            "width": 192,
            "head_width": 64,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": {"mean": [MEAN] * 3, "std": [STD] * 3},
}

#: Labels at most: their directions and that of unknown words are orthogonal.
MAX_LABELS: int = CONFIG["model_cfg"]["embed_dim"] - 1


#: Label shares are counted on every fourth pixel of every fourth row.
COARSE = 4

#: Short side in px of training images, which is that of pictures in predictions.
TRAINING_SIDE_PX = 448

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
        photographs: crops are labelled by cells, and keep their colours, which
            say nothing in drawn scenes.
    """

    labels: tuple[Label, ...]
    images: Sequence[NDArray[np.uint8]]
    coarse_labels: Sequence[NDArray[np.uint8]]
    rarity: NDArray[np.float64]
    photographs: bool


def render_scenes(seeds: range) -> TrainingImages:
    """Render scenes of 448 x 597 px."""
    images, coarse = [], []
    for seed in tqdm(seeds, desc="render", unit="scene", mininterval=5):
        scene = render_scene(seed)
        images.append(scene.image)
        coarse.append(_coarse(scene.label_map.astype(np.uint8)))
    return TrainingImages(SCENE_WORDS, images, coarse, np.array(_SCENE_RARITY), photographs=False)


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
    count = len(values.labels)
    if not 2 <= count <= MAX_LABELS:
        raise ValueError(f"Expected {names} to name 2 to {MAX_LABELS} labels, but got {count}.")
    files = pair_files(folder / "images" / part, folder / "masks" / part)
    read = [_read(each, values) for each in tqdm(files, desc="read", unit="picture")]
    images, coarse = zip(*read, strict=True)
    return TrainingImages(values.labels, images, coarse, _rarity(coarse, count), photographs=True)


def _read(files: PictureFiles, names: MapNames) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, truth = files.read(names.indices)
    height, width = truth.shape
    factor = TRAINING_SIDE_PX / min(height, width)
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


#: Side of a cell in px.
CROP_CELL_PX = 64

#: Shares of the crop above which a label is present, and below which it is absent.
_POSITIVE, _NEGATIVE = 0.02, 0.003


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        pixels: (B, 3, S, S) float32 in [0, 1].
        present: (B, L) bool, labels with more than 2 % of the crop; those of photographs are
            followed by one that is absent everywhere, which stands for all other words.
        absent: (B, L) bool, labels with less than 0.3 %. A label between is left out of the loss.
        cell_present: (B, C * C, L) bool, `present` for each of C x C cells, row by row.
        cell_absent: (B, C * C, L) bool, `absent` for each cell.
    """

    pixels: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor
    cell_present: torch.Tensor
    cell_absent: torch.Tensor


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
        size: side of the crops in px.
        zoom: smallest and largest window, as a factor of `size`.
    """
    cells = max(1, size // CROP_CELL_PX) if source.photographs else 1
    pixels = np.empty((batch, size, size, 3), dtype=np.uint8)
    count = len(source.labels) + source.photographs
    shares = np.empty((batch, cells, cells, count))

    for index in range(batch):
        number = int(rng.integers(len(source.images)))
        side = int(size * np.exp(rng.uniform(*np.log(zoom))))
        labels = source.coarse_labels[number]
        y, x, short = _rarest_window(labels, source.rarity, side, rng)

        crop = _cut(source.images[number], y, x, short, size)
        found = _cell_shares(labels[y : y + short, x : x + short], cells, count)
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
