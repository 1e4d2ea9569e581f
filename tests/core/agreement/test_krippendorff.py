"""Krippendorff's alpha against his own examples and the definition by pairs."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from clearclip_core.agreement.agreement import BinaryValues


def test_the_example_of_the_paper() -> None:
    """Two observers of ten units, section A of the paper: alpha is 0.095."""
    meg, owen = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    counts = np.bincount(np.add(meg, owen), minlength=3)
    assert BinaryValues.of(counts.tolist()).alpha == pytest.approx(0.095, abs=5e-4)


def by_pairs(units: list[list[int]]) -> float:
    """1 - Do / De, with all ordered pairs of values of a unit, and of all values."""
    values = [value for unit in units for value in unit]
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    pairs = len(values) * (len(values) - 1)
    return 1 - observed / (sum(a != b for a, b in permutations(values, 2)) / pairs)


def test_units_of_different_numbers_of_people_are_added() -> None:
    rng = np.random.default_rng(3)
    units = [rng.integers(0, 2, people).tolist() for people in (2, 3, 5) for _ in range(6)]
    summed = BinaryValues()
    for people in (2, 3, 5):
        counts = np.bincount([sum(u) for u in units if len(u) == people], minlength=people + 1)
        summed += BinaryValues.of(counts.tolist())
    assert summed.alpha == pytest.approx(by_pairs(units))


def test_perfect_agreement_and_none_at_all() -> None:
    assert BinaryValues.of([3, 0, 5]).alpha == 1
    assert BinaryValues.of([3, 0, 0]).alpha is None, "all values are equal"
    assert BinaryValues.of([0, 0, 4]).alpha is None
    assert BinaryValues().alpha is None
