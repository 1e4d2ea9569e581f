"""The check of words finds what was planted, on embeddings by hand and on the demo model."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Label,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.demo.render import SYNONYMS
from clearclip_core.wording import MADE_UP_WORDS, MOST_NEAR, Swallowing, check_vocabulary


def embed(words: Sequence[str]) -> torch.Tensor:
    """Common words have an axis each, "x6" lies at 0.6 of x, all others share one axis."""
    axes = {"a": 0, "b": 1, "c": 2}
    rows = torch.zeros(len(words), 5)
    for row, word in zip(rows, words, strict=True):
        cosine = int(word[1]) / 10 if word[1:].isdigit() else 1.0
        row[axes.get(word[0], 3) if len(word) < 3 else 3] = cosine
        row[4] = (1 - cosine**2) ** 0.5
    return rows


def test_limits_lie_half_way_between_what_is_known_of_the_model() -> None:
    words = {"one": ("a", "b"), "two": ("a4", "a6"), "three": ("blick", "z4", "z6")}
    labels = [Label(*each) for each in words.items()]
    found = check_vocabulary(embed, labels, ("a", "b", "c"))
    pairs = [(each.labels, each.words) for each in found.near if each.labels[0] == "one"]
    assert pairs == [(("one", "two"), ("a", "a6"))]
    assert found.near[-1].cosine == pytest.approx(0.6)
    assert [each.word for each in found.unknown] == ["blick", "z6"]


def test_the_nearest_pairs_are_told_where_there_are_very_many() -> None:
    labels = [Label(f"{n}", ("a" if n < 3 else "a9",)) for n in range(30)]  # 435 pairs
    found = check_vocabulary(embed, labels, ("a", "b"))
    assert len(found.near) == MOST_NEAR
    cosines = [each.cosine for each in found.near]
    assert cosines == sorted(cosines, reverse=True)
    pairs = [("0", "1"), ("0", "2"), ("1", "2")]
    assert [each.labels for each in found.near if each.words == ("a", "a")] == pairs


def test_words_of_one_label_may_be_near_and_a_background_label_stands_for_no_word() -> None:
    labels = [Label("one", ("a", "a9")), Label("rest", ("a", "blick"), background=True)]
    found = check_vocabulary(embed, labels, ("a", "b"))
    assert (found.near, found.unknown) == ((), ())


def test_a_model_that_embeds_made_up_words_like_others_tells_nothing_of_them() -> None:
    def alike(words: Sequence[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(words))
        return F.normalize(torch.randn(len(words), 512, generator=generator), dim=1)

    found = check_vocabulary(alike, [Label("accordion")], [f"word {n}" for n in range(40)])
    assert found.unknown == ()


def test_the_demo_model_knows_its_words_and_no_others() -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    some = SCENE_LABELS[::5]
    known = [Label(name, (name, SYNONYMS[name][0])) for name in some]
    clean = check_vocabulary(segmenter.embed, known, segmenter.model.contrast)
    assert (clean.near, clean.unknown) == ((), ())
    again, tool = Label("again", (SYNONYMS[some[1]][1],)), Label("tool", ("stethoscope",))
    planted = [*map(Label, some), again, tool]
    found = check_vocabulary(segmenter.embed, planted, segmenter.model.contrast)
    assert [each.labels for each in found.near] == [(some[1], "again")]
    assert [each.word for each in found.unknown] == ["stethoscope"]
    assert "stethoscope" not in MADE_UP_WORDS


def scores_of(logits: np.ndarray, vocabulary: Vocabulary) -> Scores:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=64)
    plan = segmenter.prepare(np.zeros((64, 64, 3), np.uint8)).plan
    return Scores(torch.from_numpy(logits / 50).float(), plan, vocabulary)


def test_shares_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(5)
    labels = (Label("a", ("a", "a2")), Label("b"), Label("c"))
    vocabulary = Vocabulary(labels, ("else",))
    logits = rng.normal(scale=1.5, size=(5, 6, 7))
    logits[2] = logits[:2].max(axis=0) - 0.4  # b loses to a narrowly wherever a wins
    counted = Swallowing(["a", "b", "c"])
    counted.add(scores_of(logits, vocabulary))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    best = np.stack([probabilities[:2].max(axis=0), *probabilities[2:]]).reshape(4, -1)
    wins, would, narrow = np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3))
    for place in best.T:
        first = int(place.argmax())
        if first < 3:
            wins[first] += 1
            rest = np.delete(place, first)
            second = int(np.delete(np.arange(4), first)[rest.argmax()])
            if second < 3:
                would[second, first] += 1
                narrow[second, first] += rest.max() >= place[first] / 3
    found = {(each.label, each.by): each.share for each in counted.found()}
    for loser, winner in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]:
        share = narrow[loser, winner] / max(1, wins[loser] + would[loser, winner])
        pair = ("abc"[loser], "abc"[winner])
        assert (pair in found) == (share >= 0.5)
        assert found.get(pair, share) == pytest.approx(share)
    assert ("b", "a") in found
    assert counted.shares() == pytest.approx(dict(zip("abc", wins / 42, strict=True)))


def test_a_label_that_is_planted_twice_is_found_on_drawn_scenes() -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=224)
    images = [render_scene(seed, (96, 128)).image for seed in HELD_OUT_SEEDS[60:63]]
    encoded = [segmenter.encode(image) for image in images]

    def found(*names: str) -> set[frozenset[str]]:
        counted = Swallowing(names)
        for features in encoded:
            counted.add(segmenter.score(features, names, contrast=True))
        return {frozenset((each.label, each.by)) for each in counted.found()}

    assert found("sky", "grass", "tree", "house", "boat") == set()
    assert found("sky", "grass", "tree", "heaven") == {frozenset(("sky", "heaven"))}
