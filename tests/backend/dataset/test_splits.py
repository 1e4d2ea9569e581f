"""Shares, groups of near-duplicates against a loop over all pairs, and parts that stay."""

import io
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.dataset import splits
from backend.dataset.splits import (
    LIKENESS,
    Split,
    SplitKey,
    assign,
    describe_image,
    find_twins,
    group,
)
from backend.errors import DatasetError
from clearclip_core import RGBArray, render_scene


@pytest.mark.parametrize("text", ["80/30", "100", "80/10/5/5", "-1/101", "a/b", "５０/50"])
def test_shares_that_make_no_whole_are_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="80/10/10"):
        Split.parse(text)


@pytest.mark.parametrize("count", [3, 7, 12, 20, 41, 400])
@pytest.mark.parametrize("shares", [(80, 10, 10), (60, 20, 20), (90, 10)], ids=str)
def test_parts_meet_their_shares(shares: tuple[int, ...], count: int) -> None:
    """Of all pictures, and of each class where its pictures suffice; no part is empty."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        often = random.random((count, 6)) < [0.9, 0.5, 0.3, 0.2, 0.1, 0.05]
        names = [frozenset(f"c{n}" for n in np.flatnonzero(row)) for row in often]
        keys = [SplitKey(f"{seed}/{n}", classes=each) for n, each in enumerate(names)]
        parts = assign(Split(shares), keys).parts
        met = [parts.count(name) for name in Split(shares).names]
        assert all(met)
        wanted = [count * share / 100 for share in shares]
        assert met == pytest.approx(wanted, abs=1.5 if count < 7 else 1)
        for each in ("c0", "c1", "c2"):
            have = Counter(part for part, some in zip(parts, names, strict=True) if each in some)
            for name, share in zip(Split(shares).names, shares, strict=True):
                wanted_ = share * have.total() / 100
                assert have[name] == pytest.approx(wanted_, abs=2.5 + count / 200)


def test_a_rare_class_is_in_all_parts_and_none_is_in_one_without_a_share() -> None:
    keys = [SplitKey(str(n), classes=frozenset({"sky", *["sign"] * (n < 10)})) for n in range(200)]
    parts = assign(Split((80, 10, 10)), keys).parts
    assert [parts[:10].count(name) for name in ("train", "val", "test")] == [8, 1, 1]
    assert set(assign(Split((0, 100)), keys).parts) == {"val"}


def test_large_groups_do_not_overfill_a_part() -> None:
    keys = [SplitKey(f"{place}/{n}", str(place)) for place in range(9) for n in range(1 + place)]
    parts = assign(Split((60, 20, 20)), keys).parts
    assert [parts.count(name) for name in ("train", "val", "test")] == [27, 9, 9]


@pytest.mark.parametrize("shares", [(70, 20, 10), (80, 10, 10)], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_few_uneven_groups_meet_their_shares(shares: tuple[int, ...], seed: int) -> None:
    """Seven patients, against all ways to divide them."""
    sizes = np.random.default_rng(seed).integers(1, 30, 7).tolist()
    keys = [SplitKey(f"{place}/{n}", str(place)) for place in range(7) for n in range(sizes[place])]

    def worst(counts: Sequence[int]) -> float:
        return max(
            abs(100 * count / len(keys) - share)
            for count, share in zip(counts, shares, strict=True)
        )

    ways = (way for way in itertools.product(range(3), repeat=7) if len(set(way)) == 3)
    possible = min(
        worst(
            [
                sum(size for size, part in zip(sizes, way, strict=True) if part == n)
                for n in range(3)
            ]
        )
        for way in ways
    )
    parts = assign(Split(shares), keys).parts
    assert worst([parts.count(name) for name in Split(shares).names]) <= possible + 2.5


def test_groups_are_chains_of_what_belongs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_BLOCK", 7)
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 8))
    vectors = centres[random.integers(6, size=40)] + 0.15 * random.normal(size=(40, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    short = vectors.astype(np.float16)
    keys = [
        SplitKey(str(n % 38), "p" if n in (3, 20) else "") for n in range(40)
    ]  # 0 and 38 are equal files, and so are 1 and 39
    found = group(keys, short, 0.97)
    expected = list(range(40))
    exact = short.astype(np.float64)
    for _ in range(40):
        for i in range(40):
            for j in range(40):
                is_near = exact[i] @ exact[j] >= 0.97
                is_near |= {i, j} == {3, 20} or keys[i].digest == keys[j].digest
                if is_near:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    same = np.equal.outer(found, found)
    assert np.array_equal(same, np.equal.outer(expected, expected))
    assert 6 < len(set(expected)) < 40


def test_twins_are_the_most_alike_pictures_of_parts_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splits, "_BLOCK", 7)
    random = np.random.default_rng(1)
    vectors = random.normal(size=(6, 8))[random.integers(6, size=40)]
    vectors += 0.15 * random.normal(size=(40, 8))
    short = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    parts = random.choice(["train", "val", "test"], 40).tolist()
    before = {"train": (), "val": ("train",), "test": ("train", "val")}

    expected = {}
    for i in range(40):
        others = [j for j in range(40) if parts[j] in before[parts[i]]]
        alike = {
            j: float(short[i].astype(np.float32) @ short[j].astype(np.float32)) for j in others
        }
        nearest = max(alike, key=lambda j: alike[j], default=0)
        if alike and alike[nearest] >= LIKENESS:
            expected[i] = nearest

    twins = find_twins(("train", "val", "test"), parts, short)
    assert {twin.index: twin.other for twin in twins} == expected
    assert 5 < len(twins) < 30
    assert [twin.correlation for twin in twins] == sorted(t.correlation for t in twins)[::-1]


def test_a_new_picture_is_in_the_part_of_the_known_one_that_was_annotated_first() -> None:
    split = Split.parse("50/50")
    thumbnails = np.full((20, 4), 0.5, np.float16)
    keys = [SplitKey(str(n), first=(20.0 - n, n)) for n in range(20)]
    assert len(set(assign(split, keys, thumbnails, 0.99).parts)) == 1
    keys[4] = replace(keys[4], part="train")
    keys[9] = replace(keys[9], part="val")
    division = assign(split, keys, thumbnails, 0.99)
    assert [n for n, part in enumerate(division.parts) if part == "train"] == [4]
    assert (division.groups, division.divided) == ([20], 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_new_picture_moves_one_that_is_there(seed: int) -> None:
    """Whatever its id and time, also where it joins two groups; what moves is said."""
    random = np.random.default_rng(seed)
    split = Split.parse("40/30/30")
    vectors = random.normal(size=(12, 3))
    thumbnails = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    keys = [SplitKey(str(random.integers(10**9)), first=(random.random(), n)) for n in range(12)]
    some = np.sort(random.permutation(12)[:9])
    before = assign(split, [keys[n] for n in some], thumbnails[some], 0.9)
    assert before.divided == 0
    for n, part in zip(some, before.parts, strict=True):
        keys[n] = replace(keys[n], part=part)
    after = assign(split, keys, thumbnails, 0.9)
    assert [after.parts[n] for n in some] == before.parts
    groups = group(keys, thumbnails, 0.9)
    assert after.divided == sum(
        len({after.parts[n] for n in np.flatnonzero(groups == each)}) - 1 for each in set(groups)
    )


def correlation(one: RGBArray, other: RGBArray) -> float:
    """Return how alike two pictures are, as splits have it."""
    a, b = (np.frombuffer(describe_image(each), np.float16).astype(float) for each in (one, other))
    return float(a @ b)


def as_jpeg(rgb: RGBArray) -> RGBArray:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "copy",
    [
        as_jpeg,
        lambda rgb: rgb[::2, ::2],
        lambda rgb: rgb[4:-4, 6:-6],
        lambda rgb: np.clip(rgb.astype(np.int16) + 12, 0, 255).astype(np.uint8),
    ],
    ids=["jpeg", "half", "cut", "brighter"],
)
def test_a_copy_of_a_scene_is_nearer_than_another_scene(copy: Callable[[RGBArray], Any]) -> None:
    scenes = [render_scene(10_000_400 + n).image for n in range(3)]
    assert correlation(scenes[0], copy(scenes[0])) > 0.95
    assert max(correlation(scenes[0], other) for other in scenes[1:]) < 0.9


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_pictures_of_noise_stay_apart(spread: float) -> None:
    random = np.random.default_rng(3)
    noise = random.normal(128, spread, (14, 60, 90, 3)).clip(0, 255).astype(np.uint8)
    thumbnails = np.stack([np.frombuffer(describe_image(each), np.float16) for each in noise])
    keys = [SplitKey(str(number)) for number in range(14)]
    assert assign(Split((50, 50)), keys, thumbnails, 0.95).groups == [1] * 14


def test_a_blank_picture_is_like_no_other() -> None:
    blank = np.full((50, 70, 3), 250, np.uint8)
    assert correlation(blank, blank) == 0
    assert correlation(blank, render_scene(7).image) == 0
