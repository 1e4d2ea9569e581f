"""Denominators of the softmax against every query computed in every pixel, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from clearclip_core.segmentation.scores import LogSumExp
from tests.core.segmentation.test_argmax import COLUMNS, ROWS, cosines, everywhere


@pytest.mark.parametrize("queries", [1, 5, 150])
@pytest.mark.parametrize("spread", [0.05, 1.5, 4.0, 15.0])
def test_denominators_are_good_to_a_step_of_float16(queries: int, spread: float) -> None:
    logits = cosines(queries, spread, np.float32)
    full = everywhere(logits.astype(np.float64))
    expected = np.log(np.exp(full).sum(axis=2))
    log_sum_exp = LogSumExp(logits, ROWS.upsampling, COLUMNS.upsampling)
    made = np.concatenate(
        [log_sum_exp.at_rows(slice(0, 100)), log_sum_exp.at_rows(slice(100, 211))]
    )
    assert made.shape == expected.shape
    assert np.abs(np.expm1(made - expected)).max() < 2**-11


def test_denominators_neither_overflow_nor_vanish() -> None:
    """Logits of a temperature of 400: exp(400) is more than float32 holds."""
    logits = cosines(6, 1.0, np.float32)
    logits *= 400 / np.abs(logits).max()
    expected = everywhere(logits.astype(np.float64))
    expected = np.log(np.exp(expected).sum(axis=2))
    made = LogSumExp(logits, ROWS.upsampling, COLUMNS.upsampling).at_rows(slice(None))
    assert made == pytest.approx(expected, abs=1e-3)
