"""The sequential test, on simulated differences of known means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearclip_core.adaptation.sequential_test import STAKES, is_below_zero, wealth

Chance = np.random.Generator
Draw = Callable[[Chance, int], npt.NDArray[np.float64]]

#: Fair differences, whose mean is zero: as of IoUs, as wild as can be, mostly ties, and skewed.
FAIR: dict[str, Draw] = {
    "small": lambda chance, n: chance.normal(0, 0.15, n).clip(-1, 1),
    "wild": lambda chance, n: chance.choice([-1.0, 1.0], n),
    "ties": lambda chance, n: chance.choice([-0.4, 0.0, 0.4], n, p=[0.05, 0.9, 0.05]),
    "rare drops": lambda chance, n: chance.choice([0.05, -0.95], n, p=[0.95, 0.05]),
    "rare gains": lambda chance, n: chance.choice([-0.05, 0.95], n, p=[0.95, 0.05]),
}


@pytest.mark.parametrize("name", FAIR)
def test_on_fair_differences_it_alarms_in_at_most_a_twentieth_of_all_sequences(name: str) -> None:
    chance = np.random.default_rng(12)
    alarms = sum(is_below_zero(FAIR[name](chance, 300).tolist()) for _ in range(1000))
    assert alarms <= 50


@pytest.mark.parametrize(
    ("mean", "spread", "pictures"), [(-0.1, 0.1, 60), (-0.1, 0.2, 150), (-0.3, 0.2, 25)]
)
def test_a_drop_is_told_after_so_many_pictures_in_nine_of_ten_sequences(
    mean: float, spread: float, pictures: int
) -> None:
    chance = np.random.default_rng(13)
    drops = [chance.normal(mean, spread, pictures).clip(-1, 1).tolist() for _ in range(200)]
    assert sum(map(is_below_zero, drops)) >= 180


def test_a_gain_does_not_alarm() -> None:
    chance = np.random.default_rng(14)
    gains = [chance.normal(0.05, 0.2, 300).clip(-1, 1).tolist() for _ in range(200)]
    assert sum(map(is_below_zero, gains)) <= 1


def test_a_stricter_level_needs_more() -> None:
    drops = [-0.1] * 60
    assert is_below_zero(drops, 0.05)
    assert not is_below_zero(drops, 0.0005)


differences = st.lists(st.floats(-1, 1, width=32), max_size=40)


@given(differences)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_wealth_is_what_each_stake_makes_of_one(each: list[float]) -> None:
    """Against a loop over stakes and differences."""
    kept = [1.0] * len(STAKES)
    for difference, got in zip(each, wealth(each), strict=True):
        kept = [own * (1 - stake * difference) for own, stake in zip(kept, STAKES, strict=True)]
        assert got == pytest.approx(sum(kept) / len(kept))


@given(differences, st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_what_was_shown_once_stays_shown(before: list[float], after: list[float]) -> None:
    if is_below_zero(before):
        assert is_below_zero(before + after)


@pytest.mark.parametrize("odd", [1.01, -1.01, float("nan")])
def test_what_is_no_difference_of_two_ious_is_refused(odd: float) -> None:
    with pytest.raises(ValueError, match="Expected differences"):
        wealth([0.0, odd])
