"""Upsampling along an axis, at pixels and at knots."""

import numpy as np
import pytest

from clearclip_core.segmentation.upsampling import AxisUpsampling


def test_values_at_knots_on_the_patches_centres_are_those_of_the_upsampling() -> None:
    axis = AxisUpsampling(np.eye(5), image_px=40)
    knots = np.arange(11) * 4 - 0.5  # patches have their centres at 3.5, 11.5...
    expected = axis.at(axis.positions(knots))
    assert axis.at_knots(knots) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("spacing_px", [7, 14])
def test_interpolation_between_knots_comes_nearest_to_the_upsampling(spacing_px: int) -> None:
    axis = AxisUpsampling(np.eye(7), image_px=70)
    knots = np.arange(70 // spacing_px + 1) * float(spacing_px) - 0.5
    places = np.linspace(-0.5, 69.5, 1001)
    wanted = axis.at(axis.positions(places))

    def error(values: np.ndarray) -> float:
        made = [np.interp(places, knots, column) for column in values.T]
        return float(((np.array(made).T - wanted) ** 2).mean())

    best = error(axis.at_knots(knots))
    assert best < 0.7 * error(axis.at(axis.positions(knots)))
    generator = np.random.default_rng(0)
    for _ in range(5):
        moved = axis.at_knots(knots) + 0.02 * generator.standard_normal((len(knots), 7))
        assert error(moved) > best
