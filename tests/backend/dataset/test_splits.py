"""Shares, groups of near-duplicates against a loop over all pairs, and parts that stay."""

from __future__ import annotations

import numpy as np
import pytest

from backend.dataset import splits
from backend.dataset.splits import Split, assign, group
from backend.errors import DatasetError


@pytest.mark.parametrize(
    "text", ["80/30", "100", "80/10/5/5", "-1/101", "a/b", "50/50/", "５０/50"]
)
def test_shares_that_make_no_whole_are_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="80/10/10"):
        Split.parse(text)


def test_parts_have_their_shares() -> None:
    split = Split.parse("70/20/10")
    parts = [split.part_of(f"{n:032x}") for n in range(4000)]
    for name, share in zip(split.names, (0.7, 0.2, 0.1), strict=True):
        assert parts.count(name) / 4000 == pytest.approx(share, abs=0.03)


def test_near_duplicates_are_chains_of_near_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_BLOCK", 7)
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 8))
    vectors = centres[random.integers(6, size=40)] + 0.15 * random.normal(size=(40, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    short = vectors.astype(np.float16)
    digests = [str(n % 38) for n in range(40)]  # 0 and 38 are equal files, and so are 1 and 39
    found = group(digests, short, 0.97)
    expected = list(range(40))
    exact = short.astype(np.float64)
    for _ in range(40):
        for i in range(40):
            for j in range(40):
                is_near = exact[i] @ exact[j] >= 0.97
                if is_near or digests[i] == digests[j]:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    same = np.equal.outer(found, found)
    assert np.array_equal(same, np.equal.outer(expected, expected))
    assert 6 < len(set(expected)) < 40


def test_a_group_is_in_the_part_of_its_oldest_picture() -> None:
    split = Split.parse("50/50")
    same = np.full((20, 4), 0.5, np.float16)
    digests = [str(n) for n in range(20)]
    assert len({split.part_of(each) for each in digests}) == 2
    for first in digests:
        rest = [each for each in digests if each != first]
        assert set(assign(split, [first, *rest], same, 0.99)) == {split.part_of(first)}
