"""Text embeddings on disk: read bit for bit, by several processes, and never wrong ones."""

from __future__ import annotations

import copy
from pathlib import Path

import open_clip
import pytest
import torch

from clearclip_core import EmbeddingStore, LoadedModel, Segmenter
from clearclip_core.clip.text_encoder import text_tower_id

DOG, CAT = ["a photo of a dog.", "itap of a dog."], ["a photo of a cat.", "itap of a cat."]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "embeddings", "abc")


def vector(seed: int, width: int = 512) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_every_sentence_and_the_weights_tell_embeddings_apart(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    store.put(DOG, vector(1))
    others = [DOG[:1], DOG[::-1], [*DOG, "a dog"], ["".join(DOG)], [DOG[0], "itap of a Dog."]]
    assert [store.get(sentences) for sentences in others] == [None] * 5
    assert EmbeddingStore(tmp_path / "embeddings", "abd").get(DOG) is None


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_cut_file_is_missing_and_is_replaced(
    store: EmbeddingStore, tmp_path: Path, kept: int
) -> None:
    store.put(DOG, vector(1))
    file = only_file(tmp_path / "embeddings")
    file.write_bytes(file.read_bytes()[:kept])
    assert store.get(DOG) is None
    store.put(DOG, vector(1))
    found = store.get(DOG)
    assert found is not None
    assert torch.equal(found, vector(1))


@pytest.mark.parametrize("place", [3, 20, -1000, -1])
def test_a_flipped_bit_is_seen(store: EmbeddingStore, tmp_path: Path, place: int) -> None:
    store.put(DOG, vector(1))
    file = only_file(tmp_path / "embeddings")
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert store.get(DOG) is None


def test_every_number_of_the_text_tower_counts(clip_model: open_clip.CLIP) -> None:
    def loaded(clip: open_clip.CLIP, context: int = 16) -> LoadedModel:
        tokenize = open_clip.SimpleTokenizer(context_length=context)
        return LoadedModel("tiny", clip, tokenize, (1, 1, 1), (1, 1, 1))

    one = text_tower_id(loaded(clip_model))
    assert text_tower_id(loaded(copy.deepcopy(clip_model))) == one
    changed = copy.deepcopy(clip_model)
    changed.token_embedding.weight.data[49000, 3] += 1e-3
    assert text_tower_id(loaded(changed)) != one
    assert text_tower_id(loaded(copy.deepcopy(clip_model).bfloat16())) != one
    assert text_tower_id(loaded(clip_model, context=15)) != one
    other_eyes = copy.deepcopy(clip_model)
    other_eyes.visual.proj.data += 1
    assert text_tower_id(loaded(other_eyes)) == one


def test_a_loaded_segmenter_keeps_its_words_in_its_folder(
    tmp_path: Path, model_folder: Path
) -> None:
    def load(folder: Path | None) -> Segmenter:
        return Segmenter.load(f"local-dir:{model_folder}", device="cpu", folder=folder)

    first = load(tmp_path).embed(["dog", "cat"])
    assert len(list((tmp_path / "embeddings").iterdir())) == 2
    again = load(tmp_path)
    assert again.embed.missing(["dog", "cat"]) == []
    assert torch.equal(again.embed(["dog", "cat"]), first)
    assert load(None).embed.missing(["dog"]) == ["dog"]
