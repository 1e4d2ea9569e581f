"""Explaining away: which words are needed, against SciPy's non-negative least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from clearclip_core.segmentation.explaining_away import _Fit, explain_away

RNG = np.random.default_rng(0)
WORDS = np.eye(12)[:5]
#: Three words that are there, one between two of them, and one that is not there.
BETWEEN = np.stack([WORDS[0], WORDS[1], (WORDS[0] + WORDS[1]) / 2**0.5, WORDS[2], WORDS[3]])
SHARES = RNG.gamma(0.3, size=(60, 3))
PATCHES = SHARES @ WORDS[:3] + 0.05 * RNG.normal(size=(60, 12))


def explained(words: np.ndarray) -> float:
    """What non-negative sums of words explain of all patches."""
    return float(sum(patch @ patch - nnls(words.T, patch)[1] ** 2 for patch in PATCHES))


def test_the_fit_is_that_of_least_squares_and_a_label_goes_where_its_loss_is_below_the_limit() -> (
    None
):
    for label in range(5):
        fit = _Fit(PATCHES @ BETWEEN.T, BETWEEN @ BETWEEN.T, np.arange(5))
        assert fit.explained == pytest.approx(explained(BETWEEN), rel=1e-4)
        without = explained(np.delete(BETWEEN, label, axis=0))
        loss = explained(BETWEEN) - without
        assert not fit.leave_out(label, 0.97 * loss - 0.02)
        assert fit.labels == [0, 1, 2, 3, 4]
        assert fit.leave_out(label, 1.03 * loss + 0.02)
        assert fit.labels == [each for each in range(5) if each != label]
        assert fit.explained == pytest.approx(without, rel=1e-3)


def test_the_part_of_a_label_is_the_length_of_what_it_adds() -> None:
    own = np.array([[0.5, 0.0], [0.25, 2.0]])
    fit = _Fit(own, np.eye(2), np.array([4, 7]))
    assert fit.parts() == pytest.approx({4: 0.5**2 + 0.25**2, 7: 2.0**2})


def test_what_is_there_is_kept_and_what_lies_between_or_is_absent_is_not() -> None:
    assert explain_away(PATCHES, BETWEEN, range(5)) == [0, 1, 3]


def test_a_label_stays_or_goes_with_all_its_words() -> None:
    near = WORDS[2] + 0.3 * WORDS[4]
    words = np.concatenate([BETWEEN, [near / np.linalg.norm(near)]])
    assert explain_away(PATCHES, words, [7, 8, 9, 10, 11, 10]) == [7, 8, 10]


def test_the_last_label_is_never_left_out() -> None:
    assert len(explain_away(-PATCHES, WORDS[:2], [3, 4])) >= 1
    assert explain_away(PATCHES, WORDS[:1], [3]) == [3]
