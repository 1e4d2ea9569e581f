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


def test_the_fit_and_its_losses_are_those_of_least_squares() -> None:
    fit = _Fit(PATCHES @ BETWEEN.T, BETWEEN @ BETWEEN.T, np.arange(5))
    assert fit.explained == pytest.approx(explained(BETWEEN), rel=1e-4)
    for label in range(5):
        without = np.delete(BETWEEN, label, axis=0)
        expected = explained(BETWEEN) - explained(without)
        assert fit.without(label).loss == pytest.approx(expected, rel=0.02, abs=0.02)
    fit.leave_out(2, fit.without(2))
    assert fit.labels == [0, 1, 3, 4]
    assert fit.explained == pytest.approx(explained(np.delete(BETWEEN, 2, axis=0)), rel=1e-4)


def test_what_is_there_is_kept_and_what_lies_between_or_is_absent_is_not() -> None:
    assert explain_away(PATCHES, BETWEEN, range(5)) == [0, 1, 3]


def test_a_label_stays_or_goes_with_all_its_words() -> None:
    near = WORDS[2] + 0.3 * WORDS[4]
    words = np.concatenate([BETWEEN, [near / np.linalg.norm(near)]])
    assert explain_away(PATCHES, words, [7, 8, 9, 10, 11, 10]) == [7, 8, 10]


def test_the_last_label_is_never_left_out() -> None:
    assert len(explain_away(-PATCHES, WORDS[:2], [3, 4])) >= 1
    assert explain_away(PATCHES, WORDS[:1], [3]) == [3]
