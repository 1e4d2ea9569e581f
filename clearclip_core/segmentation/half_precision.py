"""Convert float16 to float32: NumPy converts one number at a time, torch eight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def at_least_single(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return values as they are, but those of float16 in float32.

    >>> at_least_single(np.array([0.5, 2], np.float16))
    array([0.5, 2. ], dtype=float32)
    """
    return torch.from_numpy(values).float().numpy() if values.dtype == np.float16 else values
