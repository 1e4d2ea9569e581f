"""Options of scores: the paper's by default, and no weight that has no meaning."""

from __future__ import annotations

import math

import pytest

from clearclip_core import ScoreOptions


def test_by_default_nothing_counts_beside_the_words() -> None:
    assert ScoreOptions() == ScoreOptions(presence=0.0)
    assert [ScoreOptions(presence=weight).needs_cls for weight in (0.0, 0.1)] == [False, True]


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan, math.inf])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="`presence` to be at least 0 and below 1"):
        ScoreOptions(presence=weight)
