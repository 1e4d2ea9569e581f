"""Dense encoder: patch features of a CLIP image tower, its last blocks read out by a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from clearclip_core.clip.methods import Method, Resize
from clearclip_core.clip.readout import TwoPasses
from clearclip_core.clip.transformer import (
    LastBlocks,
    LayerMaps,
    attention_outputs,
    feed_forward,
    layer_maps,
    linear,
    run_block,
)
from clearclip_core.devices import free_bytes
from clearclip_core.images.preprocessing import to_device

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer


def resize_position_embedding(
    embedding: torch.Tensor,
    trained_grid_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    how: Resize = "factor",
) -> torch.Tensor:
    """Resize position embeddings to another patch grid.

    ============ ================================================================================
    ``factor``   as DINO does (the paper's released settings): bicubic without antialiasing, with
                 the factors ``(h + 0.1) / √N`` and ``(w + 0.1) / √N``; unchanged where the number
                 of tokens is the trained one
    ``size``     as GEM does: bicubic with antialiasing, by size
    ``bilinear`` as CLIP Surgery does: bilinear without antialiasing, by size, corners not aligned
    ============ ================================================================================

    Resized by size, the embeddings are unchanged where the grid is the trained one.

    Args:
        embedding: (1 + N, width), CLS first.
        grid_hw: the new patch grid (h, w).
        how: one of the names above.

    Returns:
        (1 + h*w, width), in the dtype of `embedding`.
    """
    same_count = grid_hw[0] * grid_hw[1] == trained_grid_hw[0] * trained_grid_hw[1]
    if tuple(grid_hw) == tuple(trained_grid_hw) if how != "factor" else same_count:
        return embedding
    cls, patches = embedding[:1], embedding[1:]
    precise = patches.to(torch.promote_types(patches.dtype, torch.float32))
    grid = precise.T.reshape(1, -1, *trained_grid_hw)  # (1, width, √N, √N)
    if how == "bilinear":
        resized = F.interpolate(grid, grid_hw, mode="bilinear", align_corners=False)
    elif how == "size":
        resized = F.interpolate(grid, grid_hw, mode="bicubic", antialias=True)
    else:
        scale = tuple((n + 0.1) / m for n, m in zip(grid_hw, trained_grid_hw, strict=True))
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    assert resized.shape[2:] == grid_hw, (resized.shape, grid_hw)
    return torch.cat([cls, resized.flatten(2)[0].T.to(embedding.dtype)])


_SUPPORTED = (
    "ClearCLIP needs one of open_clip's native Vision Transformers (CLIP, OpenCLIP, MetaCLIP, "
    "DFN: ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14 and their like)"
)


def checked_visual(clip_model: nn.Module) -> VisionTransformer:
    """Return the image tower of a model after checking that it is a native ViT.

    Raises:
        ValueError: any other model; the message says which models are supported.
    """
    visual = getattr(clip_model, "visual", None)
    reason = _why_unsupported(visual)
    if reason:
        raise ValueError(f"{_SUPPORTED}, but this model {reason}.")
    return visual


def _why_unsupported(visual: Any) -> str | None:
    if visual is None:
        return "has no image tower"
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not hasattr(visual, "conv1"):
        return f"has an image tower of another kind ({type(visual).__name__})"
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        return "pools by attention twice"
    if not isinstance(getattr(blocks[-1], "attn", None), nn.MultiheadAttention):
        return "has attention blocks of another kind"
    if getattr(visual, "proj", None) is None:
        return "has no projection into the text space"
    return None


#: Dtype of a model -> name of its precision.
PRECISIONS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
}


class WindowFeatures(NamedTuple):
    """Features of a batch of windows, each of length 1."""

    patches: torch.Tensor  #: (B, h, w, D)
    cls: torch.Tensor | None = None  #: (B, D), the trained model's CLS; None where it is not needed
    second: torch.Tensor | None = None  #: (B, h, w, S), those of a second encoder; None without one

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> WindowFeatures:
        """Convert the features if a dtype is given, and move them to a device, see `to_device`.

        Args:
            device: where they go.
            dtype: their number format from then on; None leaves it.
        """
        where, dtype = torch.device(device), dtype or self.patches.dtype
        cls, second = (None if one is None else to_device(one.to(dtype), where) for one in self[1:])
        return WindowFeatures(to_device(self.patches.to(dtype), where), cls, second)


class DenseEncoder(nn.Module):
    """Patch features of a CLIP image tower, its last blocks read out by a `Method`.

    All blocks before the last ones compute the same as open_clip's own. Of the last ones only what
    the method needs is computed: ``clearclip`` projects query and value alone and runs no FFN.

    Args:
        clip_model: a model made by open_clip whose image tower is a native ViT.
        method: readout of the last blocks (Sec. 3.3 of the paper).
        sink_channels: sink channels of the weights, for methods that repair sinks.

    Raises:
        ValueError: an image tower that is no native ViT, or a method that needs sink channels
            without them.

    >>> import open_clip
    >>> tiny = open_clip.CLIP(
    ...     embed_dim=8,
    ...     vision_cfg=dict(image_size=32, layers=2, width=64, head_width=32, patch_size=16),
    ...     text_cfg=dict(context_length=8, vocab_size=16, width=32, heads=1, layers=1),
    ... )
    >>> DenseEncoder(tiny.eval(), Method()).encode(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 2, 3, 8])
    """

    def __init__(
        self, clip_model: nn.Module, method: Method, sink_channels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.visual: VisionTransformer = checked_visual(clip_model)
        self.method = method
        if method.remove_redundancy and self._pool is not None:
            raise ValueError(
                f"The method {method} needs a model whose CLS stands for the picture; CoCa pools "
                "by attention."
            )
        blocks = list(self.visual.transformer.resblocks)
        count = method.blocks_read(len(blocks))
        self.trunk = nn.ModuleList(blocks[:-count])
        self.last: LastBlocks | TwoPasses = (
            TwoPasses(blocks[-count:], method, len(blocks), sink_channels)
            if method.affinity
            else LastBlocks(blocks[-count:], method)
        )

    @property
    def patch_size_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height_px, width_px = self.visual.patch_size
        return int(height_px), int(width_px)

    @property
    def _pool(self) -> nn.Module | None:
        """Attention by learned queries over the tokens, in CoCa; None elsewhere."""
        pool: nn.Module | None = getattr(self.visual, "attn_pool", None)
        return pool

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the pixels and of the features."""
        return self.visual.conv1.weight.dtype  # type: ignore[no-any-return]

    @property
    def precision(self) -> str:
        """Name of the precision: fp32, fp16, bf16 or fp64."""
        return PRECISIONS[self.dtype]

    @property
    def device(self) -> torch.device:
        """Device of the pixels and of the features."""
        return self.visual.conv1.weight.device  # type: ignore[no-any-return]

    def activation_bytes(self, window_hw: tuple[int, int]) -> int:
        """Estimate the peak memory of one window in bytes, which is reached between FFN layers.

        It holds the hidden layer before and after its activation (4 widths each) and tokens,
        residual and norms (4 widths), and a third as much for workspaces.
        """
        patch_h, patch_w = self.patch_size_hw
        tokens = 1 + -(-window_hw[0] // patch_h) * -(-window_hw[1] // patch_w)
        return int(tokens * self.visual.conv1.out_channels * 16 * self.dtype.itemsize)

    def forward(self, pixels: torch.Tensor, proxy: torch.Tensor | None = None) -> WindowFeatures:
        """Encode normalised pixels.

        Args:
            pixels: see `encode`.
            proxy: (B, h, w, S), a second encoder's features at the patches, for a method that
                needs them.

        Raises:
            ValueError: wrong rank, channels or sides, or a method that needs a second encoder's
                features without them.
        """
        return self.read_out(self.run_trunk(pixels), self._grid_of(pixels), proxy)

    def run_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the blocks before those that the method reads out: (B, 1 + h*w, width), CLS first.

        Encoders whose methods read out the same number of blocks share the result.

        Raises:
            ValueError: wrong rank, channels or sides.
        """
        tokens = self.embed(pixels, self._grid_of(pixels))
        for block in self.trunk:
            tokens = run_block(block, tokens)
        return tokens

    def read_out(
        self, tokens: torch.Tensor, grid_hw: tuple[int, int], proxy: torch.Tensor | None = None
    ) -> WindowFeatures:
        """Run the last blocks as the method reads them out; patches are `grid_hw`.

        `tokens` are `run_trunk`'s, of this encoder or one whose method reads out as many blocks.
        `proxy` is that of `forward`.
        """
        if self.method.needs_second_encoder:
            assert isinstance(self.last, LastBlocks)
            if proxy is None:
                raise ValueError(
                    f"Expected argument `proxy` to hold a second encoder's features, which the "
                    f"method {self.method} needs, got None."
                )
            dense = self.last(tokens, grid_hw, proxy.flatten(1, 2))
        else:
            dense = self.last(tokens, grid_hw)  # (B, 1 + h*w, width), CLS first
        if not self.method.remove_redundancy:
            dense = dense[:, 1:]
        if self._pool is not None:
            dense = pool_each_alone(self._pool, dense)
        dense = F.normalize(self.visual.ln_post(dense) @ self.visual.proj, dim=-1)
        patches = dense[:, -grid_hw[0] * grid_hw[1] :].reshape(dense.shape[0], *grid_hw, -1)
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
        """Yield the feature maps of each block, first to last, as the model was trained.

        The method does not change them; its readout is a function of those of the last blocks.

        Raises:
            ValueError: wrong rank, channels or sides, or an unknown attention.
        """
        blocks = [*self.trunk, *self.last.blocks]
        tokens = self.embed(pixels, self._grid_of(pixels))
        return layer_maps(tokens, blocks, attention_outputs, feed_forward, last)

    def embed(self, pixels: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Embed pixels into the first block's tokens, CLS first: (B, 1 + h*w, width)."""
        patches = self._project_patches(pixels, grid_hw)  # (B, h*w, width)
        cls = self.visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        positions = resize_position_embedding(
            self.visual.positional_embedding,
            self.visual.grid_size,
            grid_hw,
            how=self.method.positions,
        )
        return self.visual.ln_pre(tokens + positions.to(tokens.dtype))  # type: ignore[no-any-return]

    def _project_patches(self, pixels: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
        """Apply ``conv1``, whose stride equals its kernel, as one matrix product."""
        conv, (patch_h, patch_w) = self.visual.conv1, self.patch_size_hw
        count = pixels.shape[0]  # which may be a variable where the encoder is exported
        cut = pixels.reshape(count, 3, grid_hw[0], patch_h, grid_hw[1], patch_w)
        flat = cut.permute(0, 2, 4, 1, 3, 5).reshape(count, grid_hw[0] * grid_hw[1], -1)
        return linear(flat, conv.weight.flatten(1), conv.bias)

    def _grid_of(self, pixels: torch.Tensor) -> tuple[int, int]:
        return grid_of(pixels, self.patch_size_hw)


def grid_of(pixels: torch.Tensor, patch_size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the grid (h, w) of patches of pixels.

    Args:
        pixels: (B, 3, H, W).
        patch_size_hw: height and width of a patch in pixels.

    Raises:
        ValueError: wrong rank or channels, or sides that are no multiples of the patch.
    """
    patch_h, patch_w = patch_size_hw
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


def pool_each_alone(pool: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Pool each token alone by CoCa's attention pooling.

    Whatever asks, one token is the whole answer: it goes the way of the values.

    Args:
        pool: open_clip's ``AttentionalPooler``.
        tokens: (B, n, width).

    Returns:
        (B, n, width of the pooling).
    """
    attention = pool.attn
    width = attention.embed_dim
    weight = attention.v_proj_weight
    if weight is None:  # tokens and queries have one width
        weight = attention.in_proj_weight[-width:]
    values = linear(pool.ln_k(tokens), weight, attention.in_proj_bias[-width:])
    pooled: torch.Tensor = attention.out_proj(values)
    return pooled


class HasMemory(Protocol):
    """An encoder that says where it is, and what a window of it takes."""

    @property
    def device(self) -> torch.device: ...

    def activation_bytes(self, window_hw: tuple[int, int]) -> int: ...


_CPU_BATCH_PX = 2 * 448**2  # pixels of a batch on a CPU: larger batches outgrow the cache
_MOST_CPU_WINDOWS = 8
_CUDA_WINDOWS = 64
_OTHER_WINDOWS = 8


def batches(windows: Iterator[torch.Tensor], batch_size: int) -> Iterator[torch.Tensor]:
    """Stack windows (3, h, w) of one size into batches (B, 3, h, w), B at most `batch_size`."""
    while batch := list(islice(windows, batch_size)):
        yield torch.stack(batch)


def join_windows(encoded: Sequence[WindowFeatures]) -> WindowFeatures:
    """Join the features of several batches into one, in the order given."""
    patches = torch.cat([batch.patches for batch in encoded])
    cls = [batch.cls for batch in encoded if batch.cls is not None]
    return WindowFeatures(patches, torch.cat(cls) if cls else None)


def split_windows(windows: WindowFeatures, counts: Sequence[int]) -> Iterator[WindowFeatures]:
    """Split features of ``sum(counts)`` windows into consecutive groups of these counts.

    Where there are several, each is a copy, so that dropping one group frees its memory.
    """
    patches = torch.split(windows.patches, list(counts))
    cls = repeat(None) if windows.cls is None else torch.split(windows.cls, list(counts))
    for group, group_cls in zip(patches, cls, strict=False):
        if len(counts) == 1:
            yield WindowFeatures(group, group_cls)
        else:
            yield WindowFeatures(group.clone(), None if group_cls is None else group_cls.clone())


def choose_windows_at_once(encoder: HasMemory, window_px: int) -> int:
    """Choose the default batch size for an encoder's device.

    On a CPU as many windows as have the pixels of two of 448 px, 8 at most. On CUDA as many as fit
    into half of the free memory, 64 at most. On other devices 8, because their free memory cannot
    be read.
    """
    if encoder.device.type == "cpu":
        return min(max(_CPU_BATCH_PX // window_px**2, 1), _MOST_CPU_WINDOWS)
    if encoder.device.type != "cuda":
        return _OTHER_WINDOWS
    fitting = free_bytes(encoder.device) // 2 // encoder.activation_bytes((window_px, window_px))
    return int(min(max(fitting, 1), _CUDA_WINDOWS))


def check_windows_at_once(windows: int) -> None:
    """Check a batch size.

    Raises:
        ValueError: `windows` is below 1.
    """
    if windows < 1:
        raise ValueError(f"Expected argument `windows_at_once` to be 1 or more, but got {windows}.")
