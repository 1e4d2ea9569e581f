"""Sums of corrected pictures against a batch in float64; the sample that stands for a picture."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clearclip_core import DenseFeatures, Example, SufficientStatistics
from tests.core.segmentation.test_sliding_windows import plan_of

WIDTH = 6
SMALL = plan_of((80, 64), (80, 64))  # two windows of 4 x 4 patches, the second pushed back


def features_of(seed: int) -> DenseFeatures:
    made = torch.randn(SMALL.count, *SMALL.grid_hw, WIDTH, generator=torch.manual_seed(seed))
    return DenseFeatures(F.normalize(made, dim=-1), SMALL)


def masks_of(seed: int, names: Sequence[str] = ("sky", "sofa")) -> dict[str, np.ndarray]:
    """A rectangle for each label, which may overlap others and lie anywhere."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name in names:
        (top, bottom), (left, right) = np.sort(rng.integers(0, 65, (2, 2)), axis=1)
        masks[name] = np.zeros((80, 64), np.bool_)
        masks[name][top : bottom + 9, left : right + 9] = True
    return masks


def example_of(seed: int, names: Sequence[str] = ("sky", "sofa")) -> Example:
    return Example.of(features_of(seed), masks_of(seed, names), ["sofa", "sky", "dog"])


def total(examples: Sequence[Example]) -> SufficientStatistics:
    return sum((example.statistics for example in examples), SufficientStatistics.empty(WIDTH))


def sums_by_label(statistics: SufficientStatistics) -> dict[str, np.ndarray]:
    """The sums of labels that have any, by name."""
    rows = zip(statistics.names, statistics.counts, statistics.sums, strict=True)
    made = {name: np.append(row, count) for name, count, row in rows if abs(count) > 1e-9}
    return made | {"moment": statistics.moment.ravel()}


def assert_same(
    one: SufficientStatistics, other: SufficientStatistics, tolerance: float = 1e-8
) -> None:
    assert one.pictures == other.pictures
    assert sums_by_label(one).keys() == sums_by_label(other).keys()
    for name, numbers in sums_by_label(one).items():
        assert numbers == pytest.approx(sums_by_label(other)[name], abs=tolerance), name


def in_one_go(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """The sums of all pictures, patch by patch in float64."""
    sums: dict[str, np.ndarray] = {"moment": np.zeros(WIDTH * WIDTH)}
    for seed in seeds:
        patches = features_of(seed).patches.reshape(-1, WIDTH).double().numpy()
        masks = masks_of(seed)
        for name, mask in (masks | {"": ~np.any(list(masks.values()), axis=0)}).items():
            cover = SMALL.coverage(mask).ravel().astype(float)
            area = cover.sum()
            if area == 0:
                continue
            weight = area / (area + 4)
            row = np.append(weight * np.average(patches, axis=0, weights=cover), weight)
            sums[name] = sums.get(name, np.zeros(WIDTH + 1)) + row
            products = np.einsum("nd,ne->nde", patches, patches).reshape(-1, WIDTH * WIDTH)
            sums["moment"] += weight * np.average(products, axis=0, weights=cover)
    return sums


def test_sums_are_those_of_all_patches_in_one_go() -> None:
    """So few patches that all are kept: they are rounded to float16."""
    found, expected = (
        sums_by_label(total([example_of(seed) for seed in range(7)])),
        in_one_go(range(7)),
    )
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, abs=3e-3 if name == "moment" else 1e-6)


@given(st.permutations(range(6)), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_order_and_replicas_make_no_difference(order: list[int], cut: int) -> None:
    examples = [example_of(seed) for seed in range(6)]
    replicas = total([examples[i] for i in order[:cut]]), total([examples[i] for i in order[cut:]])
    assert_same(replicas[0] + replicas[1], total(examples))


@given(st.sets(st.integers(0, 5)))
@settings(max_examples=25, deadline=None)
def test_what_is_taken_away_was_never_there(gone: set[int]) -> None:
    examples = [example_of(seed, ("sky", "sofa", "dog")[: 1 + seed % 3]) for seed in range(6)]
    rest = total(examples)
    for index in gone:
        rest -= examples[index].statistics
    assert_same(rest, total([each for i, each in enumerate(examples) if i not in gone]))


def test_statistics_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="6 numbers a feature, but got 5"):
        SufficientStatistics.empty(6) + SufficientStatistics.empty(5)


def test_whitening_makes_the_spread_within_labels_a_sphere() -> None:
    rng = np.random.default_rng(0)
    stretched = rng.normal(size=(2, 5000, 3)) * [5, 1, 0.2] + rng.normal(size=(2, 1, 3)) * 20
    statistics = SufficientStatistics(
        ("a", "b"),
        np.array([1.0, 3.0]),
        stretched.mean(axis=1) * [[1.0], [3.0]],
        np.einsum("knd,kne,k->de", stretched, stretched, [1 / 5000, 3 / 5000]),
        pictures=3,
    )
    inside = [each - each.mean(axis=0) for each in stretched @ statistics.whitening(1e-9)]
    spread = (inside[0].T @ inside[0] + 3 * inside[1].T @ inside[1]) / 20000
    assert spread == pytest.approx(np.eye(3), abs=1e-3)


def test_a_large_picture_gives_a_bounded_sample_that_stands_for_all() -> None:
    plan = plan_of((640, 640), (640, 640))
    made = torch.randn(plan.count, *plan.grid_hw, 512, generator=torch.manual_seed(0))
    small, large = np.zeros((2, 640, 640), np.bool_)
    small[:16, :32], large[:, 100:] = True, True
    features = DenseFeatures(F.normalize(made, dim=-1), plan)
    example = Example.of(features, {"dog": small, "sky": large}, ["dog", "sky"])
    assert example.names == ("", "dog", "sky")
    assert len(example.patches) <= 192
    assert example.weights.sum() == pytest.approx(plan.count * 16)
    assert len(example.to_bytes()) < 210_000
    kept = (example.coverage[:, 1] > 0.5).sum()
    assert kept == round(float(example.areas[1]))  # a small label is kept whole


class Drawn(Mapping[str, np.ndarray]):
    """Masks that are made when they are asked for; how many were there at once."""

    most = 0

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._there: set[int] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        mask = np.ones((80, 64), np.bool_)
        self._there.add(id(mask))
        weakref.finalize(mask, self._there.discard, id(mask))
        self.most = max(self.most, len(self._there))
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def test_masks_are_held_one_by_one() -> None:
    drawn = Drawn([f"label {index}" for index in range(9)])
    assert Example.of(features_of(0), drawn, ["sky"]).areas.sum() == pytest.approx(9 * 32)
    assert drawn.most == 1


def test_examples_survive_their_bytes() -> None:
    example = example_of(0)
    read = Example.from_bytes(example.to_bytes(), width=WIDTH)
    assert read.digest == example.digest
    assert (read.known, read.names) == (("dog", "sky", "sofa"), example.names)
    assert np.array_equal(read.patches, example.patches)
    assert_same(read.statistics, example.statistics, 0)
    assert read.picture_key == read.digest
    named = replace(example, picture="p")
    assert Example.from_bytes(named.to_bytes()).picture_key == named.picture_key == "p"
    assert named.digest != example.digest


def test_what_a_prediction_showed_is_kept_beside_the_masks() -> None:
    masks = masks_of(0)
    masks["sky"] = np.zeros((80, 64), np.bool_)
    masks["sky"][:32] = True
    untouched = np.zeros((80, 64), np.bool_)
    untouched[:16] = True
    example = Example.of(
        features_of(0),
        masks,
        ["sofa", "sky", "dog"],
        annotator="a1",
        kept={"sky": untouched},
        removed={"sofa": np.zeros((80, 64), np.bool_), "dog": untouched},
    )
    assert (example.annotator, example.removed_names) == ("a1", ("dog",))
    assert example.kept is not None
    assert example.removed is not None
    sky = example.names.index("sky")
    shares = SMALL.coverage(untouched).ravel()
    assert len(example.patches) == len(shares)  # so few patches that all are sampled
    assert example.kept[:, sky].tolist() == shares.tolist() == example.removed[:, 0].tolist()
    assert not np.delete(example.kept, sky, axis=1).any()
    read = Example.from_bytes(example.to_bytes(), WIDTH)
    assert read.digest == example.digest != example_of(0).digest
    assert np.array_equal(read.kept, example.kept)
    assert np.array_equal(read.removed, example.removed)


def test_an_example_without_the_new_fields_keeps_its_digest() -> None:
    """Examples of version 0.1 have neither an annotator nor a layout."""
    old = replace(example_of(0), layout=None)
    assert set(old._arrays) == {"areas", "means", "patches", "coverage", "weights"}
    read = Example.from_bytes(old.to_bytes())
    assert (read.annotator, read.kept, read.removed_names, read.removed, read.layout) == (
        "",
        None,
        (),
        None,
        None,
    )


def test_the_layout_averages_the_features_of_each_part_of_the_image() -> None:
    plan = plan_of((64, 64), (64, 64))  # one window of 4 x 4 patches: a patch a cell
    made = torch.randn(1, 4, 4, WIDTH, generator=torch.manual_seed(0))
    example = Example.of(DenseFeatures(made, plan), {}, ["sky"])
    assert example.layout == pytest.approx(made.reshape(16, WIDTH).numpy(), abs=2e-3)


def test_examples_refuse_what_they_cannot_learn_from() -> None:
    with pytest.raises(ValueError, match="size"):
        Example.of(features_of(0), {"sky": np.ones((3, 3), np.bool_)}, ["sky"])
    with pytest.raises(ValueError, match="have names"):
        Example.of(features_of(0), {"": np.ones((80, 64), np.bool_)}, ["sky"])
    cls = torch.ones(SMALL.count, WIDTH)
    weighed = DenseFeatures(features_of(0).patches, SMALL, cls, remove_redundancy=True)
    with pytest.raises(ValueError, match="cannot learn"):
        Example.of(weighed, {}, ["sky"])


def test_an_example_keeps_the_images_cls_feature_where_it_was_computed() -> None:
    features = features_of(0)
    cls = torch.zeros(SMALL.count, WIDTH)
    cls[:, 1] = 1
    plain = Example.of(features, {}, ["sky"])
    asked = Example.of(DenseFeatures(features.patches, SMALL, cls), {}, ["sky"])
    assert plain.cls is None
    assert asked.cls is not None
    assert asked.cls.tolist() == [float(index == 1) for index in range(WIDTH)]
    assert asked.digest != plain.digest
    again = Example.from_bytes(asked.to_bytes())
    assert again.cls is not None
    assert again.cls.tolist() == asked.cls.tolist()
    assert asked.with_presence(0.2).digest == asked.digest


def test_words_score_an_example_with_the_prior_only_where_it_has_a_cls_feature() -> None:
    features = features_of(0)
    cls = F.normalize(torch.ones(SMALL.count, WIDTH), dim=1)
    plain = Example.of(features, {}, ["sky"])
    asked = Example.of(DenseFeatures(features.patches, SMALL, cls), {}, ["sky"])
    words = torch.eye(WIDTH)[:2]
    for example in (asked, plain.with_presence(0.25)):
        embeddings, offsets = example.word_terms(words)
        assert torch.equal(embeddings, words)
        assert offsets.tolist() == [0, 0]
    embeddings, offsets = asked.with_presence(0.25).word_terms(words)
    assert torch.equal(embeddings, 0.75 * words)
    torch.testing.assert_close(offsets, torch.full((2,), 0.25 * WIDTH**-0.5), rtol=1e-3, atol=0)
