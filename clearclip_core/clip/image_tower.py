"""Image towers of open_clip: find out whether one can be read out densely."""

from __future__ import annotations

from typing import Any

from torch import nn

_SUPPORTED = (
    "ClearCLIP needs one of open_clip's native Vision Transformers (CLIP, OpenCLIP, MetaCLIP, "
    "DFN: ViT-B-32, ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14 and their like)"
)


def checked_visual(clip_model: nn.Module) -> Any:
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
    if getattr(visual, "attn_pool", None) is not None:
        return "pools by attention"
    if getattr(visual, "final_ln_after_pool", False):
        return "normalises after pooling"
    if not isinstance(getattr(blocks[-1], "attn", None), nn.MultiheadAttention):
        return "has attention blocks of another kind"
    if getattr(visual, "proj", None) is None:
        return "has no projection into the text space"
    return None
