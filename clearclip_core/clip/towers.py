"""Image towers that are no native Vision Transformer of open_clip, read out densely.

Each place of the last feature map goes alone through the model's own head: pooling over one place
leaves it as it is, and attention pooling is its value path. Where all places of a feature map are
equal, the feature of each is the embedding of the picture. Before that the last block of a Vision
Transformer is read out as ClearCLIP does (Sec. 3.3 of the paper): query-query attention without
residual connection and FFN. Networks without such a block, as ConvNeXt, are read as they are.

A new family is a class with the members of `Tower`, see `clearclip_core.clip.encoders`.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.dense_encoder import (
    PRECISIONS,
    WindowFeatures,
    grid_of,
)
from clearclip_core.clip.methods import METHODS, Method

#: Methods that a tower of another kind than a native Vision Transformer can be read out with.
_READ_OUT: Final = ("clearclip", "clip")


class Tower(nn.Module):
    """What `clearclip_core.Segmenter` asks of an encoder, beside `forward`.

    Args:
        visual: an image tower of open_clip.
        method: how its last block is read out: ``clearclip``, or ``clip``, as it was trained.

    Raises:
        ValueError: another method.
    """

    def __init__(self, visual: Any, method: Method) -> None:
        super().__init__()
        if method not in [METHODS[name] for name in _READ_OUT]:
            raise ValueError(
                f"The method {method} needs a native Vision Transformer; this model is read out "
                f"with {' or '.join(_READ_OUT)}."
            )
        self.visual = visual
        self.method = method

    @classmethod
    def fits(cls, visual: object) -> bool:
        """Whether the image tower of a model is of this family."""
        raise NotImplementedError

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        """Height and width in pixels of what one feature stands for."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the pixels and of the features."""
        return next(self.visual.parameters()).dtype  # type: ignore[no-any-return]

    @property
    def precision(self) -> str:
        """Name of the precision: fp32, fp16, bf16 or fp64."""
        return PRECISIONS[self.dtype]

    @property
    def device(self) -> torch.device:
        """Device of the pixels and of the features."""
        return next(self.visual.parameters()).device  # type: ignore[no-any-return]

    def activation_bytes(self, window_hw: tuple[int, int]) -> int:
        """Estimate the peak memory of one window in bytes.

        In a network of stages the first one has the largest maps: a quarter of each side, of a
        quarter to an eighth of the channels of the last. Both kinds stay below 16 widths a place.
        """
        patch_h, patch_w = self.patch_size_hw
        places = -(-window_hw[0] // patch_h) * -(-window_hw[1] // patch_w)
        return int(places * self._width * 16 * max(1, patch_h // 16) * self.dtype.itemsize)

    @property
    def _width(self) -> int:
        """Channels of the last feature map."""
        raise NotImplementedError

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode normalised pixels into unit patch features, see `DenseEncoder.encode`."""
        features: WindowFeatures = self(pixels)
        return features.patches

    def run_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixels: no two methods share what comes before the read-out."""
        return pixels

    def read_out(
        self, tokens: torch.Tensor, grid_hw: tuple[int, int], proxy: torch.Tensor | None = None
    ) -> WindowFeatures:
        """Encode what `run_trunk` has returned."""
        features: WindowFeatures = self(tokens, proxy)
        return features


class TimmTower(Tower):
    """An image tower of timm in a CLIP model of open_clip: SigLIP, PE, EVA, ViTamin, MobileCLIP.

    Position embeddings are resized as timm does, bicubic with antialiasing.

    >>> from open_clip.timm_model import TimmModel
    >>> visual = TimmModel("test_vit", embed_dim=8, image_size=160, pool="token", proj="linear")
    >>> TimmTower(visual.eval(), Method()).encode(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 2, 3, 8])
    """

    def __init__(self, visual: Any, method: Method) -> None:
        super().__init__(visual, method)
        self.trunk = _with_own_parts(visual.trunk)
        self._is_vit = hasattr(visual.trunk, "blocks") and hasattr(visual.trunk, "patch_embed")
        if self._is_vit:
            self._take_any_size()
            if method == METHODS["clearclip"]:
                self.trunk.blocks = _with_own_parts(self.trunk.blocks)
                self.trunk.blocks[-1] = _ClearBlock(self.trunk.blocks[-1])

    @classmethod
    def fits(cls, visual: object) -> bool:
        return hasattr(visual, "trunk") and hasattr(visual.trunk, "forward_head")

    def _take_any_size(self) -> None:
        """Let the trunk take windows of any size, as timm does where it is asked at creation."""
        embed = copy.copy(self.trunk.patch_embed)
        embed.strict_img_size = False
        embed.flatten = False
        embed.output_fmt = type(embed.output_fmt)("NHWC")
        self.trunk.patch_embed = embed
        self.trunk.dynamic_img_size = True
        if getattr(self.trunk, "rope", None) is not None:
            self.trunk.rope = copy.deepcopy(self.trunk.rope)

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        if not self._is_vit:
            stride = int(self.trunk.feature_info[-1]["reduction"])
            return stride, stride
        embed = self.trunk.patch_embed
        size = embed.feat_ratio() if hasattr(embed, "feat_ratio") else embed.patch_size
        height_px, width_px = size if isinstance(size, tuple) else (size, size)
        return int(height_px), int(width_px)

    @property
    def _width(self) -> int:
        return int(self.trunk.num_features)

    def forward(self, pixels: torch.Tensor, proxy: torch.Tensor | None = None) -> WindowFeatures:
        """Encode normalised pixels; see `DenseEncoder.forward`.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        grid_hw = grid_of(pixels, self.patch_size_hw)
        if self._is_vit and getattr(self.trunk, "rope", None) is not None:
            self.trunk.rope.update_feat_shape(list(grid_hw))
        places = self._each_alone(self.trunk.forward_features(pixels), grid_hw)
        embedded = F.normalize(self.visual.head(self.trunk.forward_head(places)), dim=-1)
        return WindowFeatures(embedded.reshape(len(pixels), *grid_hw, -1))

    def _each_alone(self, features: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Return each place of feature maps as a map of one place, in the order of places.

        Args:
            features: (B, C, h, w), or of a Vision Transformer (B, prefix + h*w, C).
            grid_hw: h and w.

        Returns:
            (B*h*w, C, 1, 1), or (B*h*w, 1, C); where the pooling leaves the prefix tokens out,
            (B*h*w, prefix + 1, C).
        """
        if features.ndim == 4:
            return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1], 1, 1)
        count = grid_hw[0] * grid_hw[1]
        places = features[:, -count:].reshape(-1, 1, features.shape[-1])
        prefix = features[:, :-count]
        if not prefix.shape[1] or not self._pools_without_prefix:
            return places
        return torch.cat([prefix.repeat_interleave(count, 0), places], 1)

    @property
    def _pools_without_prefix(self) -> bool:
        """Whether the pooling drops prefix tokens; Eva's attention pooling takes them."""
        pooling = getattr(self.trunk, "global_pool", "")
        takes_prefix = getattr(self.trunk, "pool_include_prefix", pooling == "map")
        return pooling in ("avg", "map") and not takes_prefix


class ResNetTower(Tower):
    """CLIP's ResNets: the value path of their attention pooling, as MaskCLIP reads it.

    The position embeddings of the pooling are left out: they belong to one size of picture.

    Source: Zhou et al., Extract Free Dense Labels from CLIP, ECCV 2022, Sec. 3.2.
    """

    @classmethod
    def fits(cls, visual: object) -> bool:
        return hasattr(visual, "attnpool") and hasattr(visual, "layer4")

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        return 32, 32

    @property
    def _width(self) -> int:
        return int(self.visual.attnpool.v_proj.in_features)

    def forward(self, pixels: torch.Tensor, proxy: torch.Tensor | None = None) -> WindowFeatures:
        """Encode normalised pixels; see `DenseEncoder.forward`.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        grid_of(pixels, self.patch_size_hw)
        maps = self.visual.stem(pixels)
        for layer in (self.visual.layer1, self.visual.layer2, self.visual.layer3):
            maps = layer(maps)
        places = self.visual.layer4(maps).permute(0, 2, 3, 1)  # (B, h, w, C)
        pool = self.visual.attnpool
        return WindowFeatures(F.normalize(pool.c_proj(pool.v_proj(places)), dim=-1))


class _ClearBlock(nn.Module):
    """The last block of a Vision Transformer of timm as ClearCLIP reads it.

    Its keys are its queries, and there is neither a residual connection nor an FFN.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.attention = _with_queries_as_keys(block.attn)
        self._norms_after = type(block).__name__.endswith("PostNorm")

    def forward(self, tokens: torch.Tensor, rope: Any = None, **_: Any) -> torch.Tensor:
        block = self.block
        where = {} if rope is None else {"rope": rope}
        if self._norms_after:
            normed: torch.Tensor = block.norm1(self.attention(tokens, **where))
            return normed
        attended: torch.Tensor = self.attention(block.norm1(tokens), **where)
        gamma: torch.Tensor | None = getattr(block, "gamma_1", None)
        if gamma is not None:
            return gamma * attended
        scale: nn.Module = getattr(block, "ls1", nn.Identity())
        scaled: torch.Tensor = scale(attended)
        return scaled


def _with_queries_as_keys(attention: Any) -> Any:
    """Return a copy of an attention of timm whose keys are its queries."""
    made = copy.deepcopy(attention)
    made.k_norm = made.q_norm
    if getattr(made, "qkv", None) is None:
        made.k_proj = made.q_proj
        return made
    with torch.no_grad():
        query, key, _ = made.qkv.weight.chunk(3)
        key.copy_(query)
        if made.qkv.bias is not None:
            query, key, _ = made.qkv.bias.chunk(3)
            key.copy_(query)
    if getattr(made, "q_bias", None) is not None:  # EVA keeps the three biases apart
        made.k_bias = made.q_bias.detach()
    return made


def _with_own_parts(module: Any) -> Any:
    """Return a copy of a module whose parts can be exchanged; it shares all weights."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made
