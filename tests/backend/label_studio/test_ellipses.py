"""Ellipses against the equation of each pixel, in exact fractions where they are turned by 0."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.label_studio.region_reader import Ellipse

PERCENT = st.integers(-50, 150)


def value(x: float, y: float, a: float, b: float, degrees: float = 0) -> dict[str, float]:
    return {"x": x, "y": y, "radiusX": a, "radiusY": b, "rotation": degrees}


def filled(given: dict[str, float], size_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, np.bool_)
    Ellipse.read(given, size_hw).fill(mask)
    return mask


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(x=PERCENT, y=PERCENT, a=st.integers(1, 80), b=st.integers(1, 80))
def test_the_pixels_whose_centres_are_inside(x: int, y: int, a: int, b: int) -> None:
    height, width = 13, 17
    mask = filled(value(x, y, a, b), (height, width))
    for row, column in np.ndindex(height, width):
        along = (Fraction(2 * column + 1, 2) - Fraction(x * width, 100)) / Fraction(a * width, 100)
        across = (Fraction(2 * row + 1, 2) - Fraction(y * height, 100)) / Fraction(b * height, 100)
        distance = along**2 + across**2
        if distance != 1:  # on the edge, rounding decides
            assert mask[row, column] == (distance < 1)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(x=PERCENT, y=PERCENT, a=st.integers(1, 80), b=st.integers(1, 80), at=st.integers(0, 360))
def test_a_turned_one(x: int, y: int, a: int, b: int, at: int) -> None:
    """Each pixel by the distances to the two foci, which add up to the longer axis."""
    size, one = (40, 40), Ellipse.read(value(x, y, a, b, at), (40, 40))
    mask = filled(value(x, y, a, b, at), size)
    angle = math.radians(at + (90 if b > a else 0))
    far = math.sqrt(abs(one.a**2 - one.b**2))
    centre = complex(one.x, one.y)
    foci = [centre + sign * far * complex(math.cos(angle), math.sin(angle)) for sign in (1, -1)]
    for row, column in np.ndindex(size):
        pixel = complex(column + 0.5, row + 0.5)
        slack = sum(abs(pixel - focus) for focus in foci) - 2 * max(one.a, one.b)
        if abs(slack) > 1e-9:
            assert mask[row, column] == (slack < 0)
    rows, columns = one.box
    mask[rows, columns] = False
    assert not mask.any()


@pytest.mark.parametrize(
    "broken",
    [
        value(math.nan, 50, 5, 5),
        value(50, 50, math.inf, 5),
        value(1e308, 50, 5, 5),
        value(50, 50, 5, 1e307),
        value(50, 50, 5, 5, math.inf),
    ],
)
def test_numbers_that_are_not_finite_are_refused(broken: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Ellipse.read(broken, (16_000, 16_000))
