"""Statistics of feature maps (Figs. 2-4): norms, entropies, maxima and channel means.

`MapExample` is an image segmented by each map of the last block (Figs. 1 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.clip.dense_encoder import DenseEncoder, batches
from clearclip_core.clip.devices import choose_device
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import MAPS, METHODS
from clearclip_core.images.preprocessing import Preprocessing, RGBArray
from clearclip_core.paper.dino import DinoTower
from clearclip_core.paper.tables import ATTENTIONS
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import WindowPlan
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label, Vocabulary

Float64s = npt.NDArray[np.float64]

#: The three maps of a block, in this order along every axis of maps.
MAP_NAMES = ("X_sum", "X_res", "X_attn")

#: Batch size, in windows.
_WINDOWS_AT_ONCE = 4

Tower = DenseEncoder | DinoTower


@dataclass(frozen=True, eq=False)
class ImageTower:
    """A tower in float32; its mean and std are of each RGB channel, in units of 0-255.

    Attributes:
        model: the CLIP model of the tower; None for DINO, which has no text tower.
    """

    maps: Tower
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model: LoadedModel | None = None

    @classmethod
    def of_model(cls, name: str, device: str = "auto", folder: Path | None = None) -> ImageTower:
        """Load the image tower of a CLIP model; see `load_model` for the arguments and errors."""
        model = load_model(name, device, "fp32", folder)
        maps = DenseEncoder(model.clip, METHODS["clip"])
        return cls(maps, name, model.mean, model.std, model)

    @classmethod
    def of_dino(cls, path: Path, device: str = "auto") -> ImageTower:
        """Load a DINO tower from a file; see `DinoTower.load` for the errors."""
        tower = DinoTower.load(path, choose_device(device))
        return cls(tower, f"DINO ({path.stem})", tower.mean, tower.std)


@dataclass(frozen=True, eq=False)
class MapExample:
    """An image segmented by each map of the last block (Figs. 1 and 3).

    Attributes:
        image: (H, W, 3) uint8.
        label_maps: ``X_sum``, ``X_res``, ``X_attn`` and ``ClearCLIP`` -> (H, W) int16, index of
            the label.
    """

    name: str
    image: RGBArray
    labels: tuple[str, ...]
    label_maps: Mapping[str, npt.NDArray[np.int16]]

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        model: LoadedModel,
        image: RGBArray,
        labels: Iterable[str | Label],
        preprocessing: Preprocessing,
    ) -> MapExample:
        """Segment an image (H, W, 3) uint8 by ``X_sum``, ``X_res``, ``X_attn`` and ClearCLIP."""
        words = Vocabulary.of(labels)
        readouts = {**MAPS, "ClearCLIP": METHODS["clearclip"]}
        segmenters = {
            name: Segmenter(model, method, preprocessing) for name, method in readouts.items()
        }
        embeddings = segmenters["ClearCLIP"].embed(words.queries)  # once for all
        label_maps = {
            name: Scores.of(segmenter.encode(image), embeddings, words).label_map()
            for name, segmenter in segmenters.items()
        }
        return cls(model.name, image, tuple(label.name for label in words.labels), label_maps)


@dataclass(frozen=True, eq=False)
class MapStatistics:
    """Statistics of one tower's feature maps at the patches, by image.

    The value of an image is the mean over its windows.

    Attributes:
        norm: (images, 3, layers), Frobenius norms; maps in the order of `MAP_NAMES`.
        entropy: (images, 3, layers), normalised entropies in [0, 1] (Eq. 5).
        maximum: (images, 3, layers), largest values.
        attention_norm: (images, 5), Frobenius norm of the last block's ``X_attn`` with each of
            `ATTENTIONS`.
        channel_means: (images, 3, width), of the last block: means of the channels over the
            patches, scaled to 0 to 1, in ascending order.
    """

    name: str
    norm: Float64s
    entropy: Float64s
    maximum: Float64s
    attention_norm: Float64s
    channel_means: Float64s


def map_statistics(
    tower: Tower, name: str, pictures: Iterable[RGBArray], preprocessing: Preprocessing
) -> MapStatistics:
    """Compute the statistics of a tower's feature maps over images (H, W, 3) uint8.

    Raises:
        ValueError: no image could be read.
    """
    found = [
        _image_statistics(tower, _windows(tower, picture, preprocessing)) for picture in pictures
    ]
    if not found:
        raise ValueError("Expected one or more pictures that can be read, but got none.")
    values, attention_norm, channels = (np.stack(each) for each in zip(*found, strict=True))
    norm, entropy, maximum = values.transpose(1, 0, 2, 3)
    return MapStatistics(name, norm, entropy, maximum, attention_norm, channels)


def _windows(
    tower: Tower, picture: RGBArray, preprocessing: Preprocessing
) -> Iterator[torch.Tensor]:
    resized = preprocessing.resize(picture)
    plan = WindowPlan(
        image_hw=(picture.shape[0], picture.shape[1]),
        resized_hw=(resized.shape[0], resized.shape[1]),
        window_px=preprocessing.window_px,
        stride_px=preprocessing.stride_px,
        patch_hw=tower.patch_size_hw,
    )
    precise = torch.promote_types(tower.dtype, torch.float32)
    pixels = preprocessing.normalize(resized, tower.device, precise)
    yield from plan.cut(pixels.to(tower.dtype))


@torch.inference_mode()
def _image_statistics(
    tower: Tower, windows: Iterator[torch.Tensor]
) -> tuple[Float64s, Float64s, Float64s]:
    """Return means over windows: (3 statistics, 3 maps, layers), (attentions,), (3 maps, width)."""
    parts: list[tuple[torch.Tensor, ...]] = []
    for batch in batches(windows, _WINDOWS_AT_ONCE):
        layers = []
        for layer in tower.layer_maps(batch, ATTENTIONS):
            maps = (layer.sum, layer.residual, layer.attention)
            layers.append(torch.stack([_describe(each) for each in maps], dim=1))
        last = [frobenius_norm(layer.attentions[attention]) for attention in ATTENTIONS]
        channels = [sorted_channel_means(each) for each in maps]
        parts.append((torch.stack(layers, dim=2), torch.stack(last), torch.stack(channels, dim=0)))
    values, last_norms, curves = zip(*parts, strict=True)
    return (
        torch.cat(values, dim=-1).mean(dim=-1).numpy(),
        torch.cat(last_norms, dim=-1).mean(dim=-1).numpy(),
        torch.cat(curves, dim=1).mean(dim=1).numpy(),
    )


def _describe(maps: torch.Tensor) -> torch.Tensor:
    """Return Frobenius norm, normalised entropy and maximum: (B, N, width) -> (3, B) float64."""
    largest = _precise(maps).amax(dim=(1, 2))
    return torch.stack([frobenius_norm(maps), normalized_entropy(maps), largest])


def frobenius_norm(maps: torch.Tensor) -> torch.Tensor:
    """Return the Frobenius norm of each map: (B, N, width) -> (B,) float64 on the CPU.

    >>> frobenius_norm(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])).tolist()
    [5.0]
    """
    return _precise(maps).square().sum(dim=(1, 2)).sqrt()


def normalized_entropy(maps: torch.Tensor) -> torch.Tensor:
    """Return the entropy of a softmax over all values of a map, divided by its maximum (Eq. 5).

    (B, N, width) -> (B,) float64 in [0, 1] on the CPU; 1 where all values are equal.

    >>> normalized_entropy(torch.zeros(1, 4, 8)).tolist()
    [1.0]
    """
    flat = _precise(maps).flatten(1)
    logarithms = flat.log_softmax(dim=1)
    entropy = -(logarithms.exp() * logarithms).sum(dim=1)
    return entropy / math.log(flat.shape[1])


def sorted_channel_means(maps: torch.Tensor) -> torch.Tensor:
    """Return the channels' means over the patches, ascending (Fig. 4c).

    The paper does not describe its normalisation: here the smallest mean becomes 0, the largest 1.
    (B, N, width) -> (B, width) float64 on the CPU; zeros where all channels are equal.

    >>> sorted_channel_means(torch.tensor([[[9.0, 1.0, 2.0], [9.0, 1.0, 4.0]]])).tolist()
    [[0.0, 0.25, 1.0]]
    >>> sorted_channel_means(torch.ones(1, 2, 3)).tolist()
    [[0.0, 0.0, 0.0]]
    """
    means = _precise(maps).mean(dim=1).sort(dim=1).values
    low, high = means[:, :1], means[:, -1:]
    return (means - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _precise(maps: torch.Tensor) -> torch.Tensor:
    """Return float64 on the CPU: sums are over a million values of very different size."""
    return maps.to("cpu", torch.float64)


def as_lists(found: MapStatistics) -> dict[str, Any]:
    """Return the statistics as JSON lists, by image and then by layer."""

    def by_map(values: Float64s) -> dict[str, Any]:
        return dict(zip(MAP_NAMES, values.tolist(), strict=True))

    return {
        "name": found.name,
        "layers": found.norm.shape[2],
        "norm": by_map(found.norm.swapaxes(0, 1)),
        "entropy": by_map(found.entropy.swapaxes(0, 1)),
        "maximum": by_map(found.maximum.swapaxes(0, 1)),
        "attention_norm": dict(zip(ATTENTIONS, found.attention_norm.T.tolist(), strict=True)),
        "channel_means": by_map(found.channel_means.mean(axis=0)),
    }


def as_table(found: MapStatistics) -> str:
    """Format the statistics of the last block for the terminal."""
    blocks = quantity(found.norm.shape[2], "block")
    lines = [
        f"{found.name}, {blocks}, {quantity(len(found.norm), 'picture')}",
        "",
        f"{'':10}{'norm':>12}{'entropy':>10}{'maximum':>10}   (last block)",
    ]
    tables = (found.norm, found.entropy, found.maximum)
    for index, name in enumerate(MAP_NAMES):
        norm, entropy, largest = (table[:, index, -1].mean() for table in tables)
        lines.append(f"{name:10}{norm:12.1f}{entropy:10.3f}{largest:10.2f}")
    norms = zip(ATTENTIONS, found.attention_norm.mean(axis=0), strict=True)
    lines += ["", "norm of X_attn  " + "  ".join(f"{name} {norm:.1f}" for name, norm in norms)]
    return "\n".join(lines)
