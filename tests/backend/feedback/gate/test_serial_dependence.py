"""Tasks that are like their neighbours count as fewer, and others in full."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from backend.feedback.gate.serial_dependence import SerialDependence


def drives(count: int, frames: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """A figure of each frame, of which the drive makes half of the variance."""
    rng = np.random.default_rng(seed)
    own, shared = rng.standard_normal(count * frames), rng.standard_normal(count)
    return (own + np.repeat(shared, frames))[:, None]


#: Kish's design effect: the correlation within a drive of 16 frames is 0.5.
EXACT = 1600 / (1 + 15 * 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_frames_of_drives_count_for_little_more_than_their_drives(seed: int) -> None:
    effective = SerialDependence.of(drives(100, 16, seed)).effective(range(1600))
    assert 0.3 * EXACT < effective < 1.3 * EXACT


def test_the_same_frames_in_random_order_count_in_full() -> None:
    rows = np.random.default_rng(1).permutation(drives(100, 16))
    assert SerialDependence.of(rows).effective(range(1600)) == 1600


def test_two_annotators_in_drives_of_their_own_are_no_random_order() -> None:
    rows = drives(100, 16)
    mixed = np.stack([rows[:800], rows[800:]], axis=1).reshape(1600, 1)
    assert 0.3 * EXACT < SerialDependence.of(mixed).effective(range(1600)) < 1.3 * EXACT


def test_one_task_of_each_drive_counts_in_full() -> None:
    dependence = SerialDependence.of(drives(100, 16))
    assert dependence.effective(range(0, 1600, 64)) > 20


def test_figures_that_never_vary_tell_of_no_dependence() -> None:
    for rows in (np.ones((50, 2)), np.zeros((0, 3)), np.zeros((9, 0)), np.zeros((1, 1))):
        assert SerialDependence.of(rows) == SerialDependence()


def test_of_two_dependences_the_larger_counts_at_each_distance() -> None:
    joined = SerialDependence((0.5, 0.1)).joined(SerialDependence((0.2, 0.3, 0.1)))
    assert joined.correlations == (0.5, 0.3, 0.1)


def test_pairs_count_by_their_distance() -> None:
    dependence = SerialDependence((0.5, 0.25))
    # three tasks: two pairs one apart, one pair two apart; 9 / (3 + 2 (2 * 0.5 + 0.25))
    assert dependence.effective([4, 5, 6]) == pytest.approx(9 / 5.5)
    assert dependence.effective([4, 8, 20]) == 3
    assert dependence.effective([7]) == 1
    assert dependence.effective([]) == 0
