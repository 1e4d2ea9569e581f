"""Dense CLIP features: the only file that touches the insides of open_clip's models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.attention import Projections, attend, needed_projections
from clearclip_core.methods import Method

_WORKS = (
    "ClearCLIP needs one of open_clip's native Vision Transformers (CLIP, OpenCLIP, MetaCLIP, "
    "DFN: ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14 and their like)"
)


class DenseEncoder(nn.Module):
    """Patch features of a CLIP image tower, its last block read out by a `Method`.

    All blocks but the last run as they are. Of the last one only what the method needs is
    computed: ``clearclip`` projects query and value alone and never runs the FFN.

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
        *trunk, last = self.visual.transformer.resblocks
        self.trunk = nn.ModuleList(trunk)
        self.last = LastBlock(last, method)

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height_px, width_px = self.visual.patch_size
        return int(height_px), int(width_px)

    @property
    def dimension(self) -> int:
        """Width D of the joint image-text space."""
        return int(self.visual.proj.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which pixels are expected and features come out."""
        return self.visual.conv1.weight.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Device on which pixels are expected."""
        return self.visual.conv1.weight.device  # type: ignore[no-any-return]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Same as `encode`."""
        return self.encode(pixels)

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
        grid_hw = self._grid_of(pixels)
        tokens = self.embed(pixels, grid_hw)  # (B, 1 + h*w, width)
        for block in self.trunk:
            tokens = block(tokens)
        dense = self.last(tokens)[:, 1:]  # (B, h*w, width): the CLS token is no patch
        dense = self.visual.ln_post(dense) @ self.visual.proj  # (B, h*w, D)
        return F.normalize(dense, dim=-1).reshape(len(dense), *grid_hw, -1)

    def embed(self, pixels: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Pixels to the first block's tokens, CLS first: (B, 1 + h*w, width)."""
        patches = self.visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, h*w, width)
        cls = self.visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        positions = resize_position_embedding(
            self.visual.positional_embedding, self.visual.grid_size, grid_hw
        )
        return self.visual.ln_pre(tokens + positions.to(tokens.dtype))  # type: ignore[no-any-return]

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


class LastBlock(nn.Module):
    """The last residual attention block, decomposed as Eqs. 1-3 of the paper.

    Shares the stock block's parameters; its attention must have fused q, k, v projections.
    """

    def __init__(self, block: Any, method: Method) -> None:
        super().__init__()
        self.block = block
        self.method = method

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, width) -> (B, N, width): the input to ``ln_post`` of `Method`'s table."""
        attended = self.method.alpha * self.attention_output(tokens)
        summed = tokens + attended if self.method.residual else attended
        if not self.method.ffn:
            return summed
        return summed + self.block.ls_2(self.block.mlp(self.block.ln_2(summed)))  # type: ignore[no-any-return]

    def attention_output(self, tokens: torch.Tensor) -> torch.Tensor:
        """``X_attn`` of Eq. 2: (B, N, width) -> (B, N, width)."""
        projections = self.project(self.block.ln_1(tokens))
        heads = attend(projections, self.method.attention)  # (B, heads, N, d)
        merged = heads.transpose(1, 2).flatten(2)  # (B, N, width)
        return self.block.ls_1(self.block.attn.out_proj(merged))  # type: ignore[no-any-return]

    def project(self, normed: torch.Tensor) -> Projections:
        """Eq. 1 for the projections that the attention reads; the others are None."""
        attn = self.block.attn
        wanted = needed_projections(self.method.attention)
        width = normed.shape[-1]
        parts: dict[str, torch.Tensor | None] = dict.fromkeys(("query", "key", "value"))
        for index, name in enumerate(parts):
            if name in wanted:
                rows = slice(index * width, (index + 1) * width)
                flat = F.linear(normed, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
                heads = flat.reshape(*flat.shape[:2], attn.num_heads, -1)
                parts[name] = heads.transpose(1, 2)
        value = parts["value"]
        assert value is not None
        return Projections(parts["query"], parts["key"], value)


def resize_position_embedding(
    embedding: torch.Tensor, trained_grid_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> torch.Tensor:
    """Resize position embeddings to another patch grid, as DINO does.

    Bicubic, no antialiasing, by the scale factors ``(h + 0.1) / √N`` and ``(w + 0.1) / √N``
    rather than by size (the paper's released settings); untouched where the number of tokens is
    the trained one.

    Args:
        embedding: (1 + N, width), CLS first.
        trained_grid_hw: the patch grid of the N trained positions.
        grid_hw: the wanted patch grid (h, w).

    Returns:
        (1 + h*w, width), in the dtype of `embedding`.
    """
    if grid_hw[0] * grid_hw[1] == trained_grid_hw[0] * trained_grid_hw[1]:
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    grid = patches.float().T.reshape(1, -1, *trained_grid_hw)  # (1, width, √N, √N)
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


def encode_text(clip_model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Text embeddings of a model's own text tower, not normalised.

    A causal tower that reads out the end-of-text token sees nothing behind it: the padding is cut
    off first, which changes no embedding and makes short prompts about five times faster.

    Args:
        clip_model: a model made by open_clip.
        tokens: (B, context) int64 token ids.

    Returns:
        (B, D) float32.
    """
    tower: Any = clip_model
    if not _reads_end_of_text(tower):
        return tower.encode_text(tokens).float()  # type: ignore[no-any-return]
    ends = tokens.argmax(dim=-1)  # the end-of-text id is the largest of all
    length = int(ends.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])  # (B, length, width)
    x = tower.ln_final(x[torch.arange(len(x), device=x.device), ends])  # (B, width)
    return (x @ tower.text_projection).float()  # type: ignore[no-any-return]


def _reads_end_of_text(tower: Any) -> bool:
    return (
        getattr(tower, "text_pool_type", None) == "argmax"
        and getattr(tower, "attn_mask", None) is not None
        and isinstance(tower.text_projection, nn.Parameter)
    )
