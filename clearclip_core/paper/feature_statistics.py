"""Statistics of feature maps (Figs. 2-4): norms, entropies, maxima and channel means.

`MapExample` is an image segmented by each map of the last block (Figs. 1 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.factory import load_state_dict
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer

from clearclip_core.clip.attention import attend
from clearclip_core.clip.dense_encoder import DenseEncoder, batches, resize_position_embedding
from clearclip_core.clip.loading import READ_ERRORS, LoadedModel, error_reason, load_model
from clearclip_core.clip.methods import MAPS, METHODS
from clearclip_core.clip.projections import Projections
from clearclip_core.clip.transformer import LayerMaps, layer_maps
from clearclip_core.clip.weights import WeightsNotFoundError
from clearclip_core.devices import choose_device
from clearclip_core.images.preprocessing import Preprocessing, RGBArray
from clearclip_core.paper.tables import ATTENTIONS
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import WindowPlan
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label, Vocabulary

_HEAD_WIDTH = 64  # width of an attention head in all of DINO's Vision Transformers


class DinoTower:
    """One of DINO's Vision Transformers (ViT-S/16, S/8, B/16, B/8) with its weights.

    Position embeddings are resized as in DINO's own code.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        assert vit.pos_embed is not None
        assert vit.cls_token is not None
        self.vit = vit
        self._positions, self._cls = vit.pos_embed, vit.cls_token

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> DinoTower:
        """Load a weights file; nothing is downloaded, and no code is unpickled.

        Args:
            path: a state dict of the backbone, safetensors or torch's own: timm's
                ``vit_base_patch16_224.dino`` or the ``dino_vitbase16_pretrain.pth`` of DINO's
                authors.

        Raises:
            WeightsNotFoundError: there is no such file.
            ValueError: the file does not hold the backbone of a DINO ViT.
        """
        if not path.is_file():
            raise WeightsNotFoundError(
                f"There are no DINO weights at {path}: bring timm's vit_base_patch16_224.dino or "
                "DINO's dino_vitbase16_pretrain.pth and give its path."
            )
        try:
            weights = load_state_dict(str(path))
            backbone = {name: w for name, w in weights.items() if not name.startswith("head.")}
            vit = _vit_of_shape(backbone)
            vit.load_state_dict(backbone)
        except READ_ERRORS as error:
            raise ValueError(
                f"{path} does not hold the backbone of one of DINO's Vision Transformers, such as "
                f"timm's vit_base_patch16_224.dino: {error_reason(error)}"
            ) from error
        return cls(vit.eval().requires_grad_(False).to(device))

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height_px, width_px = self.vit.patch_embed.patch_size
        return int(height_px), int(width_px)

    @property
    def dtype(self) -> torch.dtype:
        return self._positions.dtype

    @property
    def device(self) -> torch.device:
        return self._positions.device

    def layer_maps(self, pixels: torch.Tensor, last: Sequence[str] = ()) -> Iterator[LayerMaps]:
        """Yield the feature maps of each block; see ``DenseEncoder.layer_maps``.

        Args:
            pixels: (B, 3, H, W), normalised by ImageNet; H and W multiples of the patch.
        """
        return layer_maps(
            self._embed(pixels), self.vit.blocks, _attention_outputs, _feed_forward, last
        )

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        projected = self.vit.patch_embed.proj(pixels)  # (B, width, h, w)
        patches = projected.flatten(2).transpose(1, 2)  # (B, h*w, width)
        tokens = torch.cat([self._cls.expand(len(patches), -1, -1), patches], dim=1)
        positions = resize_position_embedding(
            self._positions[0], self.vit.patch_embed.grid_size, tuple(projected.shape[2:])
        )
        return tokens + positions


def _vit_of_shape(weights: Mapping[str, torch.Tensor]) -> VisionTransformer:
    """Return an untrained model of the architecture that fits the shapes of the weights."""
    width, _, patch_px, _ = weights["patch_embed.proj.weight"].shape
    side = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
    return VisionTransformer(
        img_size=side * patch_px,
        patch_size=patch_px,
        embed_dim=width,
        depth=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        num_heads=width // _HEAD_WIDTH,
        num_classes=0,
    )


def _attention_outputs(
    block: Any, tokens: torch.Tensor, attentions: Sequence[str]
) -> dict[str, torch.Tensor]:
    attn = block.attn
    fused = attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
    projections = Projections(
        *(part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in fused)
    )
    return {
        name: block.ls1(attn.proj(attend(projections, name).transpose(1, 2).flatten(2)))
        for name in attentions
    }


def _feed_forward(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    return block.ls2(block.mlp(block.norm2(tokens)))  # type: ignore[no-any-return]


Float64s = npt.NDArray[np.float64]

#: The three maps of a block, in this order along every axis of maps.
MAP_NAMES = ("X_sum", "X_res", "X_attn")

_WINDOWS_AT_ONCE = 4  # batch size, in windows

Tower = DenseEncoder | DinoTower


@dataclass(frozen=True, eq=False)
class ImageTower:
    """A tower in float32; its mean and std are of each RGB channel, in units of 0-255."""

    maps: Tower
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: The CLIP model of the tower; None for DINO, which has no text.
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
        mean, std = (
            (255 * red, 255 * green, 255 * blue)
            for red, green, blue in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return cls(tower, f"DINO ({path.stem})", mean, std)


@dataclass(frozen=True, eq=False)
class MapExample:
    """An image segmented by each map of the last block (Figs. 1 and 3)."""

    name: str
    image: RGBArray  # (H, W, 3) uint8
    labels: tuple[str, ...]
    #: ``X_sum``, ``X_res``, ``X_attn`` and ``ClearCLIP`` -> (H, W) int16, index of the label.
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
    """

    name: str
    norm: Float64s  # (images, 3, layers), Frobenius norms; maps in the order of `MAP_NAMES`
    entropy: Float64s  # (images, 3, layers), normalised entropies in [0, 1] (Eq. 5)
    maximum: Float64s  # (images, 3, layers), largest values
    attention_norm: Float64s  # (images, 5), of ``X_attn`` with each of `ATTENTIONS`
    #: (images, 3, width), of the last block: means of the channels over the patches, scaled to 0 to
    #: 1, in ascending order.
    channel_means: Float64s


def map_statistics(
    tower: Tower, name: str, pictures: Iterable[RGBArray], preprocessing: Preprocessing
) -> MapStatistics:
    """Compute the statistics of a tower's feature maps over images (H, W, 3) uint8.

    Raises:
        ValueError: no image could be read.
    """
    found = [_image_statistics(tower, _windows(tower, each, preprocessing)) for each in pictures]
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
    values, last_norms, curves = [], [], []
    for batch in batches(windows, _WINDOWS_AT_ONCE):
        layers = []
        for layer in tower.layer_maps(batch, ATTENTIONS):
            maps = (layer.sum, layer.residual, layer.attention)
            layers.append(torch.stack([_describe(each) for each in maps], dim=1))
        last = [frobenius_norm(layer.attentions[attention]) for attention in ATTENTIONS]
        channels = [sorted_channel_means(each) for each in maps]

        values.append(torch.stack(layers, dim=2))  # (3 statistics, 3 maps, layers, B)
        last_norms.append(torch.stack(last))  # (attentions, B)
        curves.append(torch.stack(channels, dim=0))  # (3 maps, B, width)

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

    lists = {
        "norm": by_map(found.norm.swapaxes(0, 1)),
        "entropy": by_map(found.entropy.swapaxes(0, 1)),
        "maximum": by_map(found.maximum.swapaxes(0, 1)),
        "attention_norm": dict(zip(ATTENTIONS, found.attention_norm.T.tolist(), strict=True)),
    }
    curves = by_map(found.channel_means.mean(axis=0))
    return {"name": found.name, "layers": found.norm.shape[2], **lists, "channel_means": curves}


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
