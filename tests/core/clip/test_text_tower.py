"""The text tower without padding against open_clip's own."""

from __future__ import annotations

import open_clip
import torch

from clearclip_core.clip.text_tower import encode_text


def test_text_without_its_padding_is_the_same(clip_model: open_clip.CLIP) -> None:
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog", "a photo of one red car", ""])
    expected = clip_model.encode_text(tokens)
    torch.testing.assert_close(encode_text(clip_model, tokens), expected, rtol=0, atol=1e-5)
