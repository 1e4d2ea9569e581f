"""Float16 in float32: no number is changed."""

from __future__ import annotations

import numpy as np

from clearclip_core.segmentation.half_precision import at_least_single


def test_every_number_stays() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[: 31 << 10]  # finite, from 0 on
    rows = every.reshape(2, -1)
    single = at_least_single(rows)
    assert single.dtype == np.float32
    assert single.shape == rows.shape
    assert np.array_equal(single, rows)


def test_other_types_are_not_copied() -> None:
    values = np.ones(3)
    assert at_least_single(values) is values
