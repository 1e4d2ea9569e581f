"""Tell from differences that come one by one whether their mean is below zero; valid at any time.

A test by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", J. R. Stat. Soc. B 86, 2024, section 4). Somebody who holds that the mean is not below
zero is offered bets on each next difference ``d`` in [-1, 1]: a stake ``b`` in [0, 1) of the wealth
becomes ``1 - b d`` times the wealth. While that person is right, no bet gains on average, so the
wealth is a non-negative supermartingale, and by Ville's inequality it ever reaches ``1 / level``
with a probability of at most ``level``. So one may look after each difference, as often as one
likes. The wealth here is the mean over several fixed stakes, which is again such a wealth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

#: The stakes. Large ones tell large drops soon; small ones tell small drops among large chances.
STAKES: Final = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)


def wealth(differences: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the wealth after each difference: evidence that their mean is below zero.

    Args:
        differences: N numbers in [-1, 1], in the order in which they came.

    Returns:
        (N,) float64, not negative. Values near or below 1 say nothing.

    Raises:
        ValueError: a difference is not in [-1, 1].

    >>> wealth([0.0, 0.0]).tolist()
    [1.0, 1.0]
    >>> bool(wealth([-0.2] * 30)[-1] > 20 > wealth([-0.2] * 5)[-1])
    True
    """
    each = np.asarray(differences, np.float64)
    if not (np.abs(each) <= 1).all():
        raise ValueError("Expected differences in [-1, 1], but got others.")
    logs = np.log1p(-np.outer(STAKES, each)).cumsum(axis=1)  # (stakes, N)
    total: npt.NDArray[np.float64] = np.exp(logs).mean(axis=0)
    return total


def is_below_zero(differences: Sequence[float], level: float = 0.05) -> bool:
    """Return whether differences have shown, at some time, that their mean is below zero.

    Args:
        differences: numbers in [-1, 1], in the order in which they came.
        level: probability of a false alarm, ever, at most; in (0, 1).

    Raises:
        ValueError: a difference is not in [-1, 1].

    >>> is_below_zero([-0.1] * 60), is_below_zero([-0.1, 0.1] * 30), is_below_zero([])
    (True, False, False)
    """
    return bool((wealth(differences) >= 1 / level).any())
