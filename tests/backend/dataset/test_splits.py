"""Shares, groups of near-duplicates against a loop over all pairs, and parts that stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.dataset import splits
from backend.dataset.splits import Split, SplitKey, assign, describe_picture, group
from backend.errors import DatasetError
from backend.inference.engine import Engine
from backend.settings import Settings
from clearclip_core import render_scene


@pytest.mark.parametrize("text", ["80/30", "100", "80/10/5/5", "-1/101", "a/b", "５０/50"])
def test_shares_that_make_no_whole_are_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="80/10/10"):
        Split.parse(text)


def test_parts_have_their_shares() -> None:
    for shares in ((70, 20, 10), (0, 100)):
        split = Split(shares)
        parts = [split.part_of(f"{n:032x}") for n in range(4000)]
        for name, share in zip(split.names, shares, strict=True):
            assert parts.count(name) / 40 == pytest.approx(share, abs=3 if len(shares) > 2 else 0)


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


def test_a_group_is_in_the_part_of_what_was_annotated_first() -> None:
    split = Split.parse("50/50")
    features = np.full((20, 4), 0.5, np.float16)
    keys = [SplitKey(str(n)) for n in range(20)]
    assert len({split.part_of(each.digest) for each in keys}) == 2
    for first in range(20):
        dated = [replace(each, first=(float(n != first), n)) for n, each in enumerate(keys)]
        found, divided = assign(split, dated, features, 0.99)
        assert set(found) == {split.part_of(keys[first].digest)}
        assert divided == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_new_picture_moves_one_that_is_there(seed: int) -> None:
    """Whatever its id and time, also where it joins two groups; what moves is said."""
    random = np.random.default_rng(seed)
    split = Split.parse("40/30/30")
    vectors = random.normal(size=(12, 3))
    features = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    keys = [SplitKey(str(random.integers(10**9)), first=(random.random(), n)) for n in range(12)]
    some = np.sort(random.permutation(12)[:9])
    before, divided = assign(split, [keys[n] for n in some], features[some], 0.9)
    assert divided == 0
    for n, part in zip(some, before, strict=True):
        keys[n] = replace(keys[n], part=part)
    after, divided = assign(split, keys, features, 0.9)
    assert [after[n] for n in some] == before
    groups = group(keys, features, 0.9)
    assert divided == sum(
        len({after[n] for n in np.flatnonzero(groups == each)}) - 1 for each in set(groups)
    )


def test_a_brightened_scene_is_nearer_than_another_scene() -> None:
    scenes = [render_scene(10_000_400 + n).image for n in range(3)]
    brighter = np.clip(scenes[0].astype(np.int16) + 6, 0, 255).astype(np.uint8)
    with Engine.from_settings(Settings(model="demo")) as engine:
        found = [describe_picture(engine, each) for each in (*scenes, brighter)]
    vectors = [np.frombuffer(each, np.float16).astype(np.float64) for each in found]
    assert np.allclose([each @ each for each in vectors], 1, atol=1e-3)
    assert vectors[0] @ vectors[3] > 0.98
    assert max(vectors[0] @ vectors[1], vectors[0] @ vectors[2]) < 0.98
