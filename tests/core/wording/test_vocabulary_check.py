"""The check of words finds what was planted, on embeddings by hand and on the demo model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    SYNONYMS,
    DenseFeatures,
    Label,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.wording.vocabulary_check import (
    MADE_UP_WORDS,
    MOST_NEAR,
    Swallowing,
    check_vocabulary,
    image_vector,
    k_center,
    rank_wordings,
)


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


def radius(points: np.ndarray, centers: tuple[int, ...]) -> float:
    distances = np.linalg.norm(points[:, None] - points[None, list(centers)], axis=-1)
    return float(distances.min(axis=1).max())


def test_no_point_is_twice_as_far_from_a_chosen_one_as_in_the_best_choice() -> None:
    """Gonzalez' bound, against all choices."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        points = rng.normal(size=(12, 4))
        chosen = k_center(torch.from_numpy(points), 3)
        best = min(radius(points, centers) for centers in combinations(range(12), 3))
        assert len(set(chosen)) == 3
        assert radius(points, tuple(chosen)) <= 2 * best + 1e-9


def test_equal_images_are_each_chosen_once_and_last() -> None:
    points = torch.tensor([[0.0, 0.0]] * 3 + [[5.0, 0.0], [0.0, 5.0]])
    chosen = k_center(points, 9)
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert {3, 4} <= set(chosen[:3])
    assert k_center(points[:0], 2) == k_center(points, 0) == []


def test_an_image_is_the_mean_of_its_patches() -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32", short_side_px=64)
    features: DenseFeatures = segmenter.encode(render_scene(10_000_000, (64, 96)).image)
    patches = [patch for window in features.patches for row in window for patch in row]
    mean = torch.stack(patches).mean(dim=0)
    assert torch.allclose(image_vector(features), F.normalize(mean, dim=0), atol=1e-5)


def test_fewer_wrong_pixels_come_first_and_equal_ones_share_a_rank() -> None:
    assert rank_wordings([[5, 5], [2, 2], [3, 1], [9, 9]], [False] * 4) == [3, 1, 1, 4]


def test_thresholds_that_gain_on_one_image_alone_come_behind_the_best_without() -> None:
    lucky = [10, 10, 10, 2]  # 8 px gained on one image of four: mean 2, standard error 2
    assert rank_wordings([[10] * 4, lucky, [30] * 4], [False, True, False]) == [1, 2, 3]
    luckier = [10, 10, 9, 2]
    assert rank_wordings([[10] * 4, luckier, [30] * 4], [False, True, False]) == [2, 1, 3]


def test_what_is_gained_by_words_needs_no_certainty() -> None:
    assert rank_wordings([[10] * 4, [10, 10, 10, 2]], [False, False]) == [2, 1]


def test_one_image_raises_no_threshold() -> None:
    assert rank_wordings([[10], [2]], [False, True]) == [1, 2]
    assert rank_wordings([[10], [2]], [True, True]) == [2, 1], "there is nothing without"


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_that_lose_stand_where_their_pixels_put_them(seed: int) -> None:
    wrong = np.random.default_rng(seed).integers(1, 100, (6, 8))
    plain = int(wrong[:3].sum(axis=1).min())
    raised = [False] * 3 + [True] * 3
    wrong[3:] += max(0, plain - int(wrong[3:].sum(axis=1).min())) + 1  # none is below the best
    totals = wrong.sum(axis=1)
    expected = [1 + int((totals < total).sum()) for total in totals]
    assert rank_wordings(wrong, raised) == expected


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
