"""Feature maps of DINO's Vision Transformers in timm, which Fig. 4 compares with CLIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_state_dict
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer

from clearclip_core.clip.attention import Projections, attend
from clearclip_core.clip.dense_encoder import resize_position_embedding
from clearclip_core.clip.loading import READ_ERRORS, error_reason
from clearclip_core.clip.transformer import LayerMaps, layer_maps
from clearclip_core.clip.weights import WeightsNotFoundError

#: Width of an attention head in all of DINO's Vision Transformers.
_HEAD_WIDTH = 64


class DinoTower:
    """One of DINO's Vision Transformers (ViT-S/16, S/8, B/16, B/8) with its weights.

    Position embeddings are resized as in DINO's own code.

    Attributes:
        mean: ImageNet's mean of each RGB channel, in units of 0-255.
        std: ImageNet's standard deviation of each RGB channel, in units of 0-255.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __init__(self, vit: VisionTransformer) -> None:
        self.vit: Any = vit
        self.mean, self.std = (
            (255 * red, 255 * green, 255 * blue)
            for red, green, blue in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )

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
        """Dtype in which pixels are expected."""
        return self.vit.pos_embed.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Device on which pixels are expected."""
        return self.vit.pos_embed.device  # type: ignore[no-any-return]

    def layer_maps(self, pixels: torch.Tensor, last: Sequence[str] = ()) -> Iterator[LayerMaps]:
        """Yield the feature maps of each block; see ``DenseEncoder.layer_maps``.

        Args:
            pixels: (B, 3, H, W), normalised with `mean` and `std`; H and W multiples of the patch.
        """
        return layer_maps(
            self._embed(pixels), self.vit.blocks, _attention_outputs, _feed_forward, last
        )

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        projected = self.vit.patch_embed.proj(pixels)  # (B, width, h, w)
        patches = projected.flatten(2).transpose(1, 2)  # (B, h*w, width)
        tokens = torch.cat([self.vit.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        positions = resize_position_embedding(
            self.vit.pos_embed[0], self.vit.patch_embed.grid_size, tuple(projected.shape[2:])
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
