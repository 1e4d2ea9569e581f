from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.feedback.evidence import ImageEvidence
from backend.feedback.learning.thresholds import (
    STEPS,
    ThresholdCounts,
    add_up,
    best_thresholds,
    measure,
    measure_patches,
)
from clearclip_core import DenseFeatures, Example, Label, Segmentation, Vocabulary, WindowPlan

LABELS = ("car", "sky", "tree")


def picture(seed: int) -> tuple[Segmentation, dict[str, npt.NDArray[np.bool_]]]:
    """Labels and confidences by chance, and masks that agree with them more or less."""
    chance = np.random.default_rng(seed)
    label_map = chance.integers(-1, 3, (12, 17)).astype(np.int16)
    confidence = chance.random((12, 17)).astype(np.float16)
    confidence.flat[:STEPS] = (np.arange(STEPS) / STEPS).astype(np.float16)  # on the edges
    masks = {
        name: (label_map == index) & (confidence > chance.random((12, 17))) | (label_map == -1)
        for index, name in enumerate(LABELS[:2])
    }
    return Segmentation(label_map, confidence, LABELS), masks


def measured(*seeds: int) -> list[dict[str, ThresholdCounts]]:
    """One picture of each seed, of equal ones too."""
    pictures = [picture(seed) for seed in seeds]
    return [
        measure(segmentation, all_said(segmentation, masks), f"{number}")
        for number, (segmentation, masks) in enumerate(pictures)
    ]


def all_said(segmentation: Segmentation, masks: dict[str, npt.NDArray[np.bool_]]) -> ImageEvidence:
    """What an annotation says that has removed all that was predicted and is not in its masks."""
    nothing = np.zeros_like(segmentation.label_map, np.bool_)
    removed = {
        name: (segmentation.label_map == index) & ~masks.get(name, nothing)
        for index, name in enumerate(LABELS)
    }
    return ImageEvidence(masks, removed=removed)


def saved_paint(
    pictures: list[tuple[Segmentation, dict[str, npt.NDArray[np.bool_]]]],
    name: str,
    threshold: float,
) -> float:
    """1 - (FP + FN) / T, from masks as a prediction cuts them."""
    wrong, true = 0, 0
    for segmentation, masks in pictures:
        mask = segmentation.label_map == segmentation.labels.index(name)
        mask &= segmentation.confidence >= np.float16(threshold)
        wanted = masks.get(name, np.zeros_like(mask))
        wrong += int(np.count_nonzero(mask ^ wanted))
        true += int(np.count_nonzero(wanted))
    return 1 - wrong / true


@given(st.lists(st.integers(0, 999), min_size=3, max_size=5))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_the_threshold_is_the_best_of_all_that_masks_could_be_cut_at(seeds: list[int]) -> None:
    pictures = [picture(seed) for seed in seeds]
    paints = add_up(measured(*seeds))
    for name in LABELS[:2]:
        all_ = [saved_paint(pictures, name, step / STEPS) for step in range(STEPS)]
        best = int(np.argmax(np.round(all_, 9)))
        assert paints[name].best == best / STEPS
        saved = paints[name].saved(best / STEPS)
        assert saved is not None
        assert abs(saved - all_[best]) < 1e-9


def test_the_order_of_pictures_does_not_matter() -> None:
    pictures = measured(*range(4))
    one, other = add_up(pictures), add_up(reversed(pictures))
    assert [(n, p.to_json()) for n, p in one.items()] == [
        (n, p.to_json()) for n, p in other.items()
    ]


def test_a_label_that_few_pictures_show_has_no_threshold() -> None:
    pictures = measured(1, 2, 3)
    assert best_thresholds(add_up(pictures[:2])) == {}
    assert best_thresholds(add_up([*pictures[:2], *pictures[:2]])) == {}, "of the same pictures"
    assert best_thresholds(add_up(pictures)).keys() == {"car", "sky"}


def test_a_label_that_should_be_nowhere_is_measured_and_has_no_threshold() -> None:
    paints = add_up(measured(*range(4)))
    assert paints["tree"].true_px == 0
    assert paints["tree"].wrong.sum() > 0
    assert paints["tree"].best is None
    assert paints["tree"].saved(0.0) is None


def test_counts_survive_as_json() -> None:
    (paints,) = measured(1)
    paint = paints["car"]
    assert ThresholdCounts.from_json(paint.to_json()).to_json() == paint.to_json()


@given(arrays(np.float16, (6, 3), elements=st.floats(-1, 1, width=16)))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_patches_count_as_pixels_do_with_their_weight(patches: npt.NDArray[np.float16]) -> None:
    """Against a loop over patches, each with its probabilities spelled out."""
    vocabulary = Vocabulary.of(["car", "sky"], contrast=["grey"])
    embeddings, bias = torch.eye(3), torch.tensor([0.01, -0.02, 0.0])
    coverage = np.linspace(0, 1, 12).reshape(6, 2).astype(np.float16)
    weights = np.arange(1, 7).astype(np.float32)
    example = Example(
        ("car", "sky"),
        ("", "car"),
        np.ones(2, np.float32),
        np.ones((2, 3), np.float32),
        patches,
        coverage,
        weights,
    )
    measured = measure_patches(example, embeddings, bias, vocabulary)
    right, wrong, true = np.zeros(STEPS), np.zeros(STEPS), 0.0
    for patch, covered, weight in zip(patches, coverage, weights, strict=True):
        logits = 50 * (patch.astype(np.float64) + bias.numpy())
        odds = np.exp(logits - logits.max())
        true += float(weight) * float(covered[1])
        if np.argmax(odds) == 0:
            sure = np.float16(odds[0] / odds.sum())
            step = max(s for s in range(STEPS) if np.float16(s / STEPS) <= sure)
            right[step] += float(weight) * float(covered[1])
            wrong[step] += float(weight) * (1 - float(covered[1]))
    assert abs(measured["car"].true_px - true) < 1e-6
    for got, wanted in ((measured["car"].right, right), (measured["car"].wrong, wrong)):
        assert abs(got.sum() - wanted.sum()) < 1e-6
        # float32 and float64 may round to two sides of an edge: one step for each patch at most
        assert np.abs(got.cumsum() - wanted.cumsum()).sum() <= weights.sum()


def example_of(seed: int, known: tuple[str, ...], shown: tuple[str, ...]) -> Example:
    """Twelve patches by chance, of which the labels shown and "" cover parts by chance."""
    chance = np.random.default_rng(seed)
    names = tuple(sorted({"", *shown}))
    return Example(
        known,
        names,
        np.ones(len(names), np.float32),
        np.ones((len(names), 3), np.float32),
        (chance.normal(size=(12, 3)) / 20).astype(np.float16),
        chance.dirichlet(np.full(len(names), 0.3), 12).astype(np.float16),
        chance.uniform(1, 9, 12).astype(np.float32),
    )


def test_a_label_that_came_later_is_wrong_nowhere() -> None:
    old = example_of(1, ("sky",), ("sky",))
    vocabulary = Vocabulary.of(["sky", "tree"], contrast=["grey"])
    assert measure_patches(old, torch.eye(3), torch.zeros(3), vocabulary).keys() == {"sky"}
    only = Vocabulary.of(["tree", "sea"])
    assert measure_patches(old, torch.eye(3)[:2], torch.zeros(2), only) == {}


def test_what_was_of_a_label_that_is_no_more_is_wrong_for_none() -> None:
    """The sky wins everywhere, and covers what the tree, renamed since, does not."""
    coverage = np.tile(np.array([0, 0.75, 0.25], np.float16), (12, 1))
    old = replace(example_of(1, ("sky", "tree"), ("sky", "tree")), coverage=coverage)
    vocabulary = Vocabulary.of(["sky", "plant"], contrast=["grey"])
    bias = torch.tensor([9.0, 0.0, 0.0])
    measured = measure_patches(old, torch.eye(3), bias, vocabulary)
    assert measured.keys() == {"sky"}
    assert measured["sky"].wrong.sum() == 0
    assert measured["sky"].right.sum() == measured["sky"].true_px > 0


def test_joined_words_of_a_label_are_measured_as_one() -> None:
    """Against the formula, a patch at a time: the weights are of the means over all patches."""
    words = Vocabulary((Label("car", ("car", "van")), Label("sky")))
    patches = np.array([[0.2, 0.1, 0.17], [0.25, 0.1, 0.17], [0.1, 0.22, 0.17]], np.float16)
    weights = np.array([3, 2, 1], np.float32)
    coverage = np.array([[0, 1], [0, 1], [1, 0]], np.float16)  # the last patch is of nothing
    example = Example(
        ("car", "sky"),
        ("", "car"),
        np.ones(2, np.float32),
        np.ones((2, 3), np.float32),
        patches,
        coverage,
        weights,
    )
    logits = 50 * patches.astype(np.float64)
    means = np.exp(weights @ logits[:, :2] / weights.sum())
    car = np.log((means / means.sum() * np.exp(logits[:, :2])).sum(axis=1))
    shares = np.exp(car) / (np.exp(car) + np.exp(logits[:, 2]))
    assert (shares > 0.5).tolist() == [True, True, False]
    counts = measure_patches(example, torch.eye(3), torch.zeros(3), words, ("car",))["car"]
    right = np.bincount((shares[:2] * 50).astype(int), weights[:2], 50)
    np.testing.assert_array_equal(counts.right, right)
    assert counts.wrong.sum() == 0
    apart = measure_patches(example, torch.eye(3), torch.zeros(3), words)["car"]
    assert apart.wrong.sum() == 1  # the other word, which the picture does not show, wins there


def test_labels_that_come_and_go_compete_where_they_were_known() -> None:
    """Against IoUs spelled out patch by patch: the words' axes are the features' numbers."""
    vocabulary = Vocabulary.of(["plant", "sky"], contrast=["grey"])
    examples = [example_of(seed, ("sky", "tree"), ("sky", "tree")) for seed in range(4)]
    examples += [example_of(4 + seed, ("plant", "sky"), ("plant", "sky")) for seed in range(3)]
    paints = add_up(
        measure_patches(each, torch.eye(3), torch.zeros(3), vocabulary) for each in examples
    )
    for number, name in enumerate(("plant", "sky")):
        right = union = 0.0
        for each in examples:
            if name not in each.known:
                continue
            columns = [0, 1, 2] if "plant" in each.known else [1, 2]
            for patch, covered, weight in zip(
                each.patches, each.coverage, each.weights, strict=True
            ):
                shares = dict(zip(each.names, covered.astype(float).tolist(), strict=True))
                true, lost = shares.get(name, 0.0), shares.get("tree", 0.0)
                chosen = max(columns, key=lambda column: patch[column]) == number
                right += weight * true * chosen
                union += weight * (true + chosen * max(0.0, 1 - true - lost))
        measured = paints[name]
        found = measured.right.sum() / (measured.true_px + measured.wrong.sum())
        assert found == pytest.approx(right / union, abs=1e-3), name


def bar(*columns: int) -> npt.NDArray[np.bool_]:
    """A mask of these columns of a picture of 1 x 8 px."""
    mask = np.zeros((1, 8), np.bool_)
    mask[:, columns] = True
    return mask


def counted(evidence: ImageEvidence, label: str = "car") -> tuple[float, float, float, int]:
    """Right, wrong and true pixels where the car is in columns 0 to 3 and the sky in 4 to 7."""
    label_map = np.repeat(np.array([[0, 1]], np.int16), 4, axis=1)
    segmentation = Segmentation(label_map, np.full((1, 8), 0.5, np.float16), LABELS)
    counts = measure(segmentation, evidence, "p")[label]
    return counts.right.sum(), counts.wrong.sum(), counts.true_px, counts.pictures


def test_what_nobody_judged_counts_for_no_threshold() -> None:
    assert counted(ImageEvidence({})) == (0, 0, 0, 0)
    assert counted(ImageEvidence({"sky": bar(6, 7)})) == (0, 0, 0, 0)
    assert counted(ImageEvidence({"sky": bar(3, 4)})) == (0, 1, 0, 0), "the sky was drawn there"
    assert counted(ImageEvidence({}, removed={"car": bar(0, 1)})) == (0, 2, 0, 0)
    assert counted(ImageEvidence({"car": bar(2, 3, 4)})) == (2, 2, 3, 1), (
        "the car was drawn elsewhere"
    )


def test_what_was_kept_is_right_where_scores_agree_and_no_more() -> None:
    kept = {"car": bar(2, 3, 4)}
    assert counted(ImageEvidence(kept, kept)) == (2, 0, 2, 0)
    assert counted(ImageEvidence({"sky": bar(2, 3)}, {"sky": bar(2, 3)})) == (0, 0, 0, 0)
    both = ImageEvidence({"car": bar(1), "sky": bar(2, 3)}, {"sky": bar(2, 3)})
    assert counted(both) == (1, 1, 1, 1), "nobody judged whether the sky that was kept is a car"
    partly = ImageEvidence({"car": bar(0, 1, 4, 5)}, {"car": bar(1, 5)})
    assert counted(partly) == (2, 2, 3, 1)


def counted_patches(evidence: ImageEvidence) -> tuple[float, float, float, int]:
    """As `counted`, from a training example with a patch for each pixel."""
    patches = torch.tensor([[1.0, 0, 0]] * 4 + [[0, 1.0, 0]] * 4)
    plan = WindowPlan((1, 8), (1, 8), 8, 1, (1, 1))
    masks, kept, removed = evidence.masks, evidence.kept, evidence.removed
    example = Example.of(
        DenseFeatures(patches[None, None], plan), masks, LABELS, kept=kept, removed=removed
    )
    vocabulary = Vocabulary.of(LABELS)
    counts = measure_patches(example, torch.eye(3), torch.zeros(3), vocabulary)["car"]
    return counts.right.sum(), counts.wrong.sum(), counts.true_px, counts.pictures


@pytest.mark.parametrize(
    "evidence",
    [
        ImageEvidence({}),
        ImageEvidence({"sky": bar(3, 4)}),
        ImageEvidence({}, removed={"car": bar(0, 1)}),
        ImageEvidence({"car": bar(2, 3, 4)}),
        ImageEvidence({"car": bar(2, 3, 4)}, {"car": bar(2, 3, 4)}),
        ImageEvidence({"car": bar(1), "sky": bar(2, 3)}, {"sky": bar(2, 3)}),
        ImageEvidence({"car": bar(0, 1, 4, 5)}, {"car": bar(1, 5)}),
    ],
)
def test_patches_are_judged_as_pixels_are(evidence: ImageEvidence) -> None:
    assert counted_patches(evidence) == counted(evidence)
