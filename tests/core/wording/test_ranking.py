"""Wordings are ranked by wrong pixels, and raised thresholds only where they gain for certain."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.wording.vocabulary_check import rank_wordings


def test_fewer_wrong_pixels_come_first_and_equal_ones_share_a_rank() -> None:
    assert rank_wordings([[5, 5], [2, 2], [3, 1], [9, 9]], [False] * 4) == [3, 1, 1, 4]


def test_thresholds_that_gain_on_one_image_alone_come_behind_the_best_without() -> None:
    lucky = [10, 10, 10, 2]  # 8 px gained on one image of four: mean 2, standard error 2
    assert rank_wordings([[10] * 4, lucky, [30] * 4], [False, True, False]) == [1, 2, 3]
    luckier = [10, 10, 9, 2]
    assert rank_wordings([[10] * 4, luckier, [30] * 4], [False, True, False]) == [2, 1, 3]


def test_what_is_gained_by_words_needs_no_certainty() -> None:
    assert rank_wordings([[10] * 4, [10, 10, 10, 2]], [False, False]) == [2, 1]


def test_one_image_raises_no_threshold() -> None:
    assert rank_wordings([[10], [2]], [False, True]) == [1, 2]
    assert rank_wordings([[10], [2]], [True, True]) == [2, 1], "there is nothing without"


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_that_lose_stand_where_their_pixels_put_them(seed: int) -> None:
    wrong = np.random.default_rng(seed).integers(1, 100, (6, 8))
    plain = int(wrong[:3].sum(axis=1).min())
    raised = [False] * 3 + [True] * 3
    wrong[3:] += max(0, plain - int(wrong[3:].sum(axis=1).min())) + 1  # none is below the best
    totals = wrong.sum(axis=1)
    expected = [1 + int((totals < total).sum()) for total in totals]
    assert rank_wordings(wrong, raised) == expected
