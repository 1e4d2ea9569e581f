"""COCO's run lengths, against the COCO API's own encoder; and runs that would harm it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_api

from backend.dataset.readers.coco import draw_runs, read_runs


@pytest.mark.parametrize("seed", range(12))
def test_masks_of_every_roughness_come_back(seed: int) -> None:
    chance = np.random.default_rng(seed)
    size = int(chance.integers(1, 90)), int(chance.integers(1, 90))
    mask = chance.random(size) < (0.01, 0.5, 0.99)[seed % 3]
    if seed == 9:
        mask[:] = True
    if seed == 10:
        mask[:] = False
    encoded = coco_api.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(draw_runs(read_runs(encoded["counts"]), size), mask)
    np.testing.assert_array_equal(draw_runs(read_runs(encoded["counts"].decode()), size), mask)
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    counts = np.diff(ends, prepend=0).tolist()
    np.testing.assert_array_equal(draw_runs(read_runs(counts), size), mask)


@pytest.mark.parametrize("length", [1, 1 << 10, 1 << 20, (1 << 28) + 5])
def test_long_runs_have_several_groups(length: int) -> None:
    rle = coco_api.frPyObjects({"size": [length, 1], "counts": [length]}, length, 1)
    assert read_runs(rle["counts"]).tolist() == [length]


@pytest.mark.parametrize(
    "counts",
    [
        "P",  # a group that says that another one follows
        "oooooooooooo0",  # a run of 60 bits
        "~",
        "\x00",
        "ü",
        "@",  # the sign bit alone: a negative run
        [5, -1],
        [5, 1.5],
        ["5"],
        [True],
        [1 << 40],
    ],
)
def test_what_are_no_runs_is_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="it"):
        read_runs(counts)


@pytest.mark.parametrize("counts", [[], [5], [2, 3], [(1 << 31) - 1] * 4, ["", "0"][0]])
def test_runs_of_another_number_of_pixels_are_refused_before_they_are_drawn(counts: Any) -> None:
    """The C code of the COCO API would write beyond the mask."""
    with pytest.raises(ValueError, match="pixels, but it is 3×2 px"):
        draw_runs(read_runs(counts), (2, 3))
