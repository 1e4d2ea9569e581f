"""The check of words finds what was planted, on embeddings by hand and on the demo model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from clearclip_core import SCENE_LABELS, SYNONYMS, Label, Segmenter
from clearclip_core.wording.vocabulary_check import MADE_UP_WORDS, MOST_NEAR, check_vocabulary


def embed(words: Sequence[str]) -> torch.Tensor:
    """Common words have an axis each, "x*" lie at 0.9 of x, others share one axis."""
    axes = {"a": 0, "b": 1, "c": 2}
    rows = torch.zeros(len(words), 5)
    for row, word in zip(rows, words, strict=True):
        row[axes.get(word[0], 3) if len(word) < 3 else 3] = 0.9 if word.endswith("*") else 1
        row[4] = (1 - 0.9**2) ** 0.5 if word.endswith("*") else 0
    return rows


def test_limits_lie_half_way_between_what_is_known_of_the_model() -> None:
    labels = [Label("one", ("a", "b")), Label("two", ("a*",)), Label("three", ("blick",))]
    found = check_vocabulary(embed, labels, ("a", "b", "c"))
    assert found.near_from == pytest.approx(0.5)
    assert found.unknown_from == pytest.approx(0.5)
    (near,) = found.near
    assert (near.labels, near.words) == (("one", "two"), ("a", "a*"))
    assert near.cosine == pytest.approx(0.9)
    assert [(each.label, each.word) for each in found.unknown] == [("three", "blick")]


def test_the_nearest_pairs_are_told_where_there_are_very_many() -> None:
    labels = [Label(f"{n}", ("a" if n < 3 else "a*",)) for n in range(30)]  # 435 pairs
    found = check_vocabulary(embed, labels, ("a", "b"))
    assert len(found.near) == MOST_NEAR
    cosines = [each.cosine for each in found.near]
    assert cosines == sorted(cosines, reverse=True)
    pairs = [("0", "1"), ("0", "2"), ("1", "2")]
    assert [each.labels for each in found.near if each.words == ("a", "a")] == pairs


def test_words_of_one_label_may_be_near_and_a_background_label_stands_for_no_word() -> None:
    labels = [Label("one", ("a", "a*")), Label("rest", ("a", "blick"), background=True)]
    found = check_vocabulary(embed, labels, ("a", "b"))
    assert (found.near, found.unknown) == ((), ())


def test_a_model_that_embeds_made_up_words_like_others_tells_nothing_of_them() -> None:
    def alike(words: Sequence[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(words))
        return F.normalize(torch.randn(len(words), 512, generator=generator), dim=1)

    found = check_vocabulary(alike, [Label("accordion")], [f"word {n}" for n in range(40)])
    assert found.unknown_from is None
    assert found.unknown == ()


def test_one_reference_word_is_refused() -> None:
    with pytest.raises(ValueError, match="two words"):
        check_vocabulary(embed, [Label("a")], ("a", "a"))


def test_the_demo_model_knows_its_words_and_no_others() -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    some = SCENE_LABELS[::5]
    known = [Label(name, (name, SYNONYMS[name][0])) for name in some]
    clean = check_vocabulary(segmenter.embed, known, segmenter.model.contrast)
    assert (clean.near, clean.unknown) == ((), ())
    planted = [
        *(Label(name) for name in some),
        Label("again", (SYNONYMS[some[1]][1],)),
        Label("tool", ("stethoscope",)),
    ]
    found = check_vocabulary(segmenter.embed, planted, segmenter.model.contrast)
    assert [each.labels for each in found.near] == [(some[1], "again")]
    assert [each.word for each in found.unknown] == ["stethoscope"]
    assert "stethoscope" not in MADE_UP_WORDS
