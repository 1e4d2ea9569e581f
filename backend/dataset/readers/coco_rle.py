"""Decode COCO's run-length encoding of masks.

The runs go down the columns, from the left one on, and alternate between 0 and 1, beginning with 0.
In a compressed text, a run is a number of groups of five bits, the lowest first, as signs from
``0`` on: bit 5 says that another group follows, bit 4 of the last one is the sign. From the fourth
run on, it is the difference to the run two before (``rleToString`` of the COCO API).

The C code of the COCO API trusts the runs, and writes beyond the mask where they are too long; so
files from elsewhere are decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backend.dataset.labelled_image import BoolMask

Runs = npt.NDArray[np.int64]

#: Groups of five bits of one run; a mask of 2^30 pixels needs seven.
_MOST_GROUPS: Final = 7


def read_runs(counts: str | bytes | Sequence[Any]) -> Runs:
    """Read the runs of a mask, compressed or as a list of numbers.

    Returns:
        (N,) int64, none of them negative.

    Raises:
        ValueError: they are no runs.

    >>> read_runs("52203").tolist(), read_runs([5, 2, 2, 2]).tolist()
    ([5, 2, 2, 2, 5], [5, 2, 2, 2])
    """
    if isinstance(counts, str):
        counts = counts.encode()
    runs = _decompress(counts) if isinstance(counts, bytes) else _read_list(counts)
    if (runs < 0).any():
        raise ValueError("a run of it is negative")
    return runs


def draw_runs(runs: Runs, size_hw: tuple[int, int]) -> BoolMask:
    """Draw a mask of runs, (H, W) bool.

    Raises:
        ValueError: the runs have another number of pixels.

    >>> draw_runs(np.array([1, 2, 1]), (2, 2))
    array([[False,  True],
           [ True, False]])
    """
    height, width = size_hw
    total = int(runs.sum())  # 2^35 a run at most: no overflow
    if total != height * width:
        raise ValueError(f"its runs have {total} pixels, but it is {width}×{height} px")
    values = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _read_list(counts: Sequence[Any]) -> Runs:
    if not all(type(each) is int and each < 1 << 31 for each in counts):
        raise ValueError("its runs are no whole numbers")
    return np.array(counts, dtype=np.int64)


def _decompress(text: bytes) -> Runs:
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if ((groups < 0) | (groups > 63)).any() or (groups.size and groups[-1] & 0x20):
        raise ValueError("its compressed runs are damaged or cut off")
    if not groups.size:
        return groups
    ends = np.flatnonzero(groups & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MOST_GROUPS:
        raise ValueError("a run of it is longer than any mask")
    places = np.arange(groups.size) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((groups & 0x1F) << 5 * places, starts)
    numbers -= np.where(groups[ends] & 0x10, 1 << 5 * sizes, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
