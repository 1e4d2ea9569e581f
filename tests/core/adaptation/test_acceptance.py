"""Gains, and which labels lose more than they may, by numbers that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.adaptation.acceptance import Comparison, at_prevalence, compare, find_losing


def compared(losses: list[float], highs: list[float]) -> Comparison:
    """A comparison in which labels lose so much, with these upper bounds of the difference."""
    before = np.full(len(losses), 0.5)
    lows = np.full(len(losses), -1.0)
    return Comparison(before, before - losses, 0.1, 0.05, lows, np.array(highs))


def losing(losses: list[float], highs: list[float], victims: list[bool]) -> list[bool]:
    return find_losing(compared(losses, highs), 0.03, np.array(victims)).tolist()


def test_a_loss_that_is_certainly_above_the_bound_is_too_much() -> None:
    assert losing([0.05, 0.02], [-0.031, -0.01], [False, False]) == [True, False]


def test_a_loss_far_above_the_bound_is_too_much_if_there_certainly_is_one() -> None:
    # 1.5 times the bound is 0.045; the last one may be no loss at all
    assert losing([0.046, 0.044, 0.2], [-0.001, -0.001, 0.001], [False] * 3) == [True, False, False]


def test_what_has_lost_before_may_lose_no_more_than_the_bound() -> None:
    losses, highs = [0.031, 0.029, 0.031], [-0.001, -0.001, 0.001]
    assert losing(losses, highs, [True] * 3) == [True, False, False]
    assert losing(losses, highs, [False] * 3) == [False, False, False]


def test_the_gain_is_of_the_groups_that_are_counted() -> None:
    """By hand: 5 of 10 patches right are an IoU of 5 / 15, and 10 of 10 are one of 1."""
    half, whole = [[5.0], [10.0], [10.0]], [[10.0], [10.0], [10.0]]
    before = [np.concatenate([np.array(half)] * 2, axis=1)] * 3
    after = [np.concatenate([np.array(whole), np.array(half)], axis=1)] * 3
    clusters = np.arange(3)
    assert compare(before, after, clusters).gain == pytest.approx((2 / 3 + 0) / 2)
    first = compare(before, after, clusters, np.array([True, False]))
    assert (first.gain, first.gain_bound) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    weighed = compare(before, after, clusters, np.array([1, 0.25]))
    assert weighed.gain == pytest.approx(2 / 3 / 1.25)
    nothing = compare(before, after, clusters, np.array([False, False]))
    assert (nothing.gain, nothing.gain_bound) == (0, 0)


def test_what_gives_up_places_gains_where_it_is_rare_and_loses_where_it_is_frequent() -> None:
    """By hand: 8 of 10 found with 32 false ones, then 6 of 10 with 14; and with 40 to find."""
    before, after = [np.array([[8.0], [10.0], [40.0]])], [np.array([[6.0], [10.0], [20.0]])]
    clusters = np.zeros(1, np.intp)
    rare = compare(before, after, clusters)
    assert (rare.before[0], rare.after[0]) == pytest.approx((8 / 42, 6 / 24))
    many, fewer = (at_prevalence(each, 4) for each in (before, after))
    frequent = compare(many, fewer, clusters)
    assert (frequent.before[0], frequent.after[0]) == pytest.approx((32 / 72, 24 / 54))
    assert before[0].ravel().tolist() == [8, 10, 40]
