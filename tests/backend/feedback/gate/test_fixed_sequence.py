"""Exact tests, against sums of the binomial formula and against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.feedback.gate.fixed_sequence import fewest, last_rejected, p_value, upper_bound


def tail(changed: int, count: int, share: float) -> float:
    """The sum itself, of integers' binomials."""
    terms = (
        math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(changed + 1)
    )
    return sum(terms)


@pytest.mark.parametrize(("changed", "count"), [(0, 10), (3, 80), (17, 300)])
def test_the_p_value_is_the_sum_of_the_binomial_formula(changed: int, count: int) -> None:
    assert p_value(changed, count, 0.05) == pytest.approx(tail(changed, count, 0.05), rel=1e-9)


@pytest.mark.parametrize(("changed", "count"), [(0, 10), (3, 80), (17, 300)])
def test_at_the_upper_bound_the_tail_is_the_level(changed: int, count: int) -> None:
    bound = upper_bound(changed, count, 0.02)
    assert tail(changed, count, bound) == pytest.approx(0.02, rel=1e-6)


def test_so_many_without_a_change_are_just_enough() -> None:
    for most, level in ((0.05, 0.05), (0.1, 0.0125), (0.01, 0.01)):
        least = fewest(most, level)
        assert p_value(0, least, most) <= level < p_value(0, least - 1, most)


def test_nothing_behind_the_first_that_is_not_rejected_counts() -> None:
    good, bad = (0, 100), (50, 100)
    assert last_rejected([good, good, bad, good], 0.05, 0.05) == 1
    assert last_rejected([bad, good], 0.05, 0.05) is None
    assert last_rejected([], 0.05, 0.05) is None


def test_a_set_that_is_too_bad_is_chosen_no_more_often_than_the_level_allows() -> None:
    """Nested sets of 100, 150, 200 ... tasks: from the second on, more than 5 % need a change."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        first, rest = rng.random(100) < 0.03, rng.random(300) < 0.1
        changed = np.concatenate([first, rest])
        sizes = (100, 200, 300, 400)  # at 200, the true share is 6.5 %
        counts = [(int(changed[:size].sum()), size) for size in sizes]
        index = last_rejected(counts, 0.05, 0.05)
        wrong += index is not None and index > 0
    assert 0 < wrong <= 0.05 * 2000
