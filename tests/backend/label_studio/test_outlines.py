"""Outlines against shapes of known area, and those that would take too long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from backend.label_studio.region_reader import fill_outline


def filled(points: list[list[float]] | npt.NDArray[np.float64], height: int, width: int) -> int:
    mask = np.zeros((height, width), np.bool_)
    fill_outline(np.array(points, np.float64), mask)
    return int(mask.sum())


def test_an_outline_of_many_short_edges_is_filled() -> None:
    angles = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    corners = np.stack([250 + 200 * np.cos(angles), 250 + 200 * np.sin(angles)], axis=1)
    assert filled(corners, 500, 500) == pytest.approx(np.pi * 200**2, rel=0.01)


def test_what_other_outlines_have_filled_stays() -> None:
    mask = np.zeros((4, 6), np.bool_)
    for left in (0, 4):
        corners = [[left, 0], [left + 2, 0], [left + 2, 4], [left, 4]]
        fill_outline(np.array(corners, np.float64), mask)
    assert mask[:, :2].all()
    assert mask[:, 4:].all()


def test_points_far_outside_count_for_nothing() -> None:
    far = 1e12
    assert filled([[-far, -far], [far, -far], [far, far], [-far, far]], 30, 20) == 600


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        # counted by hand: of six edges, four go down 500 px and two 1000 px
        ([[n % 2 * 10, n % 3 * 500] for n in range(20_000)], r"cross 1333\d{4} rows"),
        ([[3, n % 2 * 1000] for n in range(5_002)], "cross 5002000 rows"),
        ([[0, 0], [float("nan"), 1], [2, 2]], "finite"),
    ],
)
def test_outlines_that_take_minutes_are_refused(points: list[list[float]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        filled(points, 1000, 1000)
