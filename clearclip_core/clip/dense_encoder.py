"""Dense CLIP features: the only file that touches the insides of open_clip's models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.methods import Method
from clearclip_core.clip.transformer import (
    LastBlocks,
    LayerMaps,
    attention_outputs,
    feed_forward,
    layer_maps,
    linear,
    run_block,
)

_WORKS = (
    "ClearCLIP needs one of open_clip's native Vision Transformers (CLIP, OpenCLIP, MetaCLIP, "
    "DFN: ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14 and their like)"
)


class WindowFeatures(NamedTuple):
    """What the encoder makes of windows; all features are of length 1.

    Attributes:
        patches: (B, h, w, D).
        cls: (B, D), the CLS token's; None where the method has no use for it.
    """

    patches: torch.Tensor
    cls: torch.Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> WindowFeatures:
        """The same on a device, and in another dtype where one is given."""
        patches = self.patches.to(device, dtype or self.patches.dtype)
        return WindowFeatures(patches, None if self.cls is None else self.cls.to(patches))


class DenseEncoder(nn.Module):
    """Patch features of a CLIP image tower, its last blocks read out by a `Method`.

    All blocks but the last compute what open_clip's own do. Of the last one only what the method
    needs is computed: ``clearclip`` projects query and value alone and never runs the FFN.

    Args:
        clip_model: a model made by open_clip whose image tower is a native ViT.
        method: how to read the last block out (Sec. 3.3 of the paper).

    Raises:
        ValueError: an image tower that cannot be taken apart.

    >>> import open_clip
    >>> tiny = open_clip.CLIP(
    ...     embed_dim=8,
    ...     vision_cfg=dict(image_size=32, layers=2, width=64, head_width=32, patch_size=16),
    ...     text_cfg=dict(context_length=8, vocab_size=16, width=32, heads=1, layers=1),
    ... )
    >>> DenseEncoder(tiny.eval(), Method()).encode(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 2, 3, 8])
    """

    def __init__(self, clip_model: nn.Module, method: Method) -> None:
        super().__init__()
        self.visual: Any = checked_visual(clip_model)
        self.method = method
        blocks = list(self.visual.transformer.resblocks)
        count = min(method.blocks, len(blocks))
        self.trunk = nn.ModuleList(blocks[:-count])
        self.last = LastBlocks(blocks[-count:], method)

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height_px, width_px = self.visual.patch_size
        return int(height_px), int(width_px)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which pixels are expected and features come out."""
        return self.visual.conv1.weight.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Device on which pixels are expected."""
        return self.visual.conv1.weight.device  # type: ignore[no-any-return]

    def activation_bytes(self, window_hw: tuple[int, int]) -> int:
        """Estimate of the memory that one window takes at its peak, between FFN layers.

        Counts what lives there at once: the hidden layer before and after its activation (4 widths
        each) and tokens, residual and norms (4 widths), with a third as much for workspaces.

        Args:
            window_hw: height and width in px.
        """
        patch_h, patch_w = self.patch_size_hw
        tokens = 1 + -(-window_hw[0] // patch_h) * -(-window_hw[1] // patch_w)
        return int(tokens * self.visual.conv1.out_channels * 16 * self.dtype.itemsize)

    def forward(self, pixels: torch.Tensor) -> WindowFeatures:
        """Encode normalised pixels; what ``compile()`` compiles.

        Args:
            pixels: see `encode`.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        return self.read_out(self.run_trunk(pixels), self._grid_of(pixels))

    def run_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the blocks that the method reads out get: the same for methods of as many blocks.

        Args:
            pixels: see `encode`.

        Returns:
            (B, 1 + h*w, width), CLS first.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        tokens = self.embed(pixels, self._grid_of(pixels))
        for block in self.trunk:
            tokens = run_block(block, tokens)
        return tokens

    def read_out(self, tokens: torch.Tensor, grid_hw: tuple[int, int]) -> WindowFeatures:
        """The last blocks, as the method reads them.

        Args:
            tokens: from `run_trunk`, of this encoder or one whose method shares its trunk.
            grid_hw: patches (h, w).
        """
        dense = self.last(tokens)
        if not self.method.remove_redundancy:
            dense = dense[:, 1:]  # (B, h*w, width): the CLS token is no patch
        dense = F.normalize(self.visual.ln_post(dense) @ self.visual.proj, dim=-1)
        patches = dense[:, -grid_hw[0] * grid_hw[1] :].reshape(len(dense), *grid_hw, -1)
        return WindowFeatures(patches, dense[:, 0] if self.method.remove_redundancy else None)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode normalised pixels into unit patch features.

        Args:
            pixels: (B, 3, H, W), normalised with the model's mean and std, in the model's dtype
                and on its device; H and W multiples of the patch, H ≠ W included.

        Returns:
            (B, h, w, D) with h = H / patch and w = W / patch; each feature of length 1. Gradients
            flow; inference belongs under ``torch.inference_mode()``.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        return self.forward(pixels).patches

    def layer_maps(self, pixels: torch.Tensor, last: Sequence[str] = ()) -> Iterator[LayerMaps]:
        """The feature maps of each block, first to last, as the model was trained.

        What the method reads is another matter: of the last block it is a function of these.

        Args:
            pixels: see `encode`.
            last: further attentions that are computed in the last block.

        Raises:
            ValueError: wrong rank, channels or sides, or an unknown attention.
        """
        blocks = [*self.trunk, *self.last.blocks]
        tokens = self.embed(pixels, self._grid_of(pixels))
        return layer_maps(tokens, blocks, attention_outputs, feed_forward, last)

    def embed(self, pixels: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Pixels to the first block's tokens, CLS first: (B, 1 + h*w, width)."""
        patches = self._project_patches(pixels, grid_hw)  # (B, h*w, width)
        cls = self.visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        positions = resize_position_embedding(
            self.visual.positional_embedding,
            self.visual.grid_size,
            grid_hw,
            by_size=self.method.positions_by_size,
        )
        return self.visual.ln_pre(tokens + positions.to(tokens.dtype))  # type: ignore[no-any-return]

    def _project_patches(self, pixels: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """``conv1``, whose stride is its kernel, as the one matrix product that it is."""
        conv, (patch_h, patch_w) = self.visual.conv1, self.patch_size_hw
        cut = pixels.reshape(len(pixels), 3, grid_hw[0], patch_h, grid_hw[1], patch_w)
        flat = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(pixels), grid_hw[0] * grid_hw[1], -1)
        return linear(flat, conv.weight.flatten(1), conv.bias)

    def _grid_of(self, pixels: torch.Tensor) -> tuple[int, int]:
        patch_h, patch_w = self.patch_size_hw
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"Expected argument `pixels` to be of shape (B, 3, H, W), but got "
                f"{tuple(pixels.shape)}."
            )
        height, width = pixels.shape[2:]
        if height < patch_h or width < patch_w or height % patch_h or width % patch_w:
            raise ValueError(
                f"Expected the sides of argument `pixels` to be multiples of the patch "
                f"{patch_h}x{patch_w}, but got {height}x{width}."
            )
        return height // patch_h, width // patch_w


def resize_position_embedding(
    embedding: torch.Tensor,
    trained_grid_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    by_size: bool = False,
) -> torch.Tensor:
    """Resize position embeddings to another patch grid, as DINO does, or by size.

    As DINO does: bicubic, no antialiasing, by the scale factors ``(h + 0.1) / √N`` and
    ``(w + 0.1) / √N`` rather than by size (the paper's released settings); untouched where the
    number of tokens is the trained one. By size: bicubic with antialiasing (GEM); untouched where
    the grid is the trained one.

    Args:
        embedding: (1 + N, width), CLS first.
        trained_grid_hw: the patch grid of the N trained positions.
        grid_hw: the wanted patch grid (h, w).
        by_size: which of the two.

    Returns:
        (1 + h*w, width), in the dtype of `embedding`.
    """
    same_count = grid_hw[0] * grid_hw[1] == trained_grid_hw[0] * trained_grid_hw[1]
    if tuple(grid_hw) == tuple(trained_grid_hw) if by_size else same_count:
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    precise = patches.to(torch.promote_types(patches.dtype, torch.float32))
    grid = precise.T.reshape(1, -1, *trained_grid_hw)  # (1, width, √N, √N)
    if by_size:
        resized = F.interpolate(grid, grid_hw, mode="bicubic", antialias=True)
    else:
        scale = tuple((n + 0.1) / m for n, m in zip(grid_hw, trained_grid_hw, strict=True))
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    assert resized.shape[2:] == grid_hw, (resized.shape, grid_hw)
    return torch.cat([cls, resized.flatten(2)[0].T.to(embedding.dtype)])


def checked_visual(clip_model: nn.Module) -> Any:
    """The image tower of a model that can be taken apart.

    Raises:
        ValueError: any other model, with a sentence that says what works.
    """
    visual = getattr(clip_model, "visual", None)
    reason = _why_unsupported(visual)
    if reason:
        raise ValueError(f"{_WORKS}, but this model {reason}.")
    return visual


def _why_unsupported(visual: Any) -> str | None:
    if visual is None:
        return "has no image tower"
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not hasattr(visual, "conv1"):
        return f"has an image tower of another kind ({type(visual).__name__})"
    if getattr(visual, "attn_pool", None) is not None:
        return "pools by attention"
    if getattr(visual, "final_ln_after_pool", False):
        return "normalises after pooling"
    if not isinstance(getattr(blocks[-1], "attn", None), nn.MultiheadAttention):
        return "has attention blocks of another kind"
    if getattr(visual, "proj", None) is None:
        return "has no projection into the text space"
    return None
