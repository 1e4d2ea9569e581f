"""Small CLIP models with random weights: exactness needs no trained ones."""

from __future__ import annotations

import open_clip
import pytest
import torch

VISION = {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def make_clip(**vision: object) -> open_clip.CLIP:
    """A CLIP of 3 blocks and 4 heads, its norms not at their initial 1 and 0."""
    torch.manual_seed(0)
    model = open_clip.CLIP(24, vision_cfg=VISION | vision, text_cfg=TEXT).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def clip_model() -> open_clip.CLIP:
    return make_clip()
