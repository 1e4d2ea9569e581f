"""Labels that lose their places narrowly are found; absent ones are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearclip_core import HELD_OUT_SEEDS, Label, Scores, Segmenter, Vocabulary, render_scene
from clearclip_core.wording.vocabulary_check import Swallowing


def scores_of(logits: np.ndarray, vocabulary: Vocabulary) -> Scores:
    """Scores with these logits (Q, h, w)."""
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
    wins, would, narrow, changed = np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)
    for place in best.T:
        first = int(place.argmax())
        if first < 3:
            wins[first] += 1
            rest = np.delete(place, first)
            second = int(np.delete(np.arange(4), first)[rest.argmax()])
            changed[first] += second < 3
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
    for index, response in enumerate(counted.responses()):
        assert response.share == pytest.approx(wins[index] / 42)
        assert response.highest == pytest.approx(best[index].max(), rel=1e-5)
        if wins[index]:
            assert response.changed == pytest.approx(changed[index] / wins[index])


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


def test_scores_of_other_labels_are_refused() -> None:
    scores = scores_of(np.zeros((1, 2, 2)), Vocabulary((Label("b"),)))
    with pytest.raises(ValueError, match="of the labels"):
        Swallowing(["a"]).add(scores)
