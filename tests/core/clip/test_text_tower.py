"""The text tower against open_clip's own, which computes every token of every sentence."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch

from clearclip_core import TEMPLATES
from clearclip_core.clip.loading import PrefixTree, encode_text

SENTENCES = {
    "one": ["a dog"],
    "of different lengths": ["a dog", "a photo of one red car", ""],
    "twice the same": ["a dog", "a dog", "a cat"],
    "one the beginning of another": ["a photo of", "a photo of a dog", "photo of"],
    "templates": [template(word) for word in ("dog", "traffic light") for template in TEMPLATES],
}


@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES)
def test_embeddings_are_those_of_the_whole_tower(
    clip_model: open_clip.CLIP, sentences: list[str]
) -> None:
    tokens = open_clip.SimpleTokenizer(context_length=16)(sentences)
    expected = clip_model.encode_text(tokens)
    torch.testing.assert_close(encode_text(clip_model, tokens), expected, rtol=0, atol=1e-5)


def test_a_beginning_is_found_once() -> None:
    tokens = torch.tensor([[8, 1, 2, 9, 0], [8, 1, 9, 0, 0], [8, 3, 2, 9, 0], [8, 1, 2, 9, 0]])
    ends = tokens.argmax(dim=1)
    tree = PrefixTree.of(tokens, ends)
    different = {tuple(row[: i + 1]) for row in tokens.tolist() for i in range(row.index(9) + 1)}
    assert len(tree.tokens) == len(different)
    beginnings = {
        int(tree.nodes[row, i]): tuple(tokens[row, : i + 1].tolist())
        for row, end in enumerate(ends.tolist())
        for i in range(end + 1)
    }
    assert set(beginnings.values()) == different
    for node, beginning in beginnings.items():
        assert int(tree.tokens[node]) == beginning[-1]
        assert int(tree.positions[node]) == len(beginning) - 1
        assert int(tree.nodes.flatten()[tree.places[node]]) == node


def test_a_tower_that_is_not_causal_is_run_whole(clip_model: open_clip.CLIP) -> None:
    """Every token there depends on those after it, so that nothing may be shared or cut off."""
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog", "a cat"])
    model = copy.deepcopy(clip_model)
    model.attn_mask = None
    expected = model.encode_text(tokens)
    torch.testing.assert_close(encode_text(model, tokens), expected, rtol=0, atol=0)
