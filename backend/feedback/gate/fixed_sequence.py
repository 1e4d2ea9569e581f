"""Choose among nested sets of tasks the largest one whose share of changed tasks is small for sure.

Each candidate is the hypothesis that its share is too large. Candidates are tested in an order that
was fixed before their outcomes were seen, from the strictest, each at the full level, until one is
not rejected (fixed-sequence testing; Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then
Test", 2021, section 3). So the choice costs no confidence: that any rejected hypothesis is true has
a probability of the level at most. The test is the exact binomial one, whose inversion is the bound
of Clopper and Pearson ("The use of confidence or fiducial limits", Biometrika 26, 1934).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import betainc
from scipy.stats import beta


def p_value(changed: float, count: float, most: float) -> float:
    """Return the probability of at most so many changes where the share of changes is `most`.

    The tail of the binomial distribution is an incomplete beta function, which goes on between
    whole numbers: tasks that depend on each other count as fewer.

    Args:
        changed: changes that were seen.
        count: tasks that were seen.
        most: share of changes that is still allowed, in (0, 1).

    >>> round(p_value(0, 59, 0.05), 4), round(p_value(0, 58, 0.05), 4)
    (0.0485, 0.051)
    """
    if changed >= count:
        return 1.0
    return float(betainc(count - changed, changed + 1, 1 - most))


def upper_bound(changed: float, count: float, level: float) -> float:
    """Return the upper bound of Clopper and Pearson for a share, in [0, 1].

    Args:
        changed: changes that were seen.
        count: tasks that were seen.
        level: probability that the bound is too low, in (0, 1).

    >>> round(upper_bound(0, 59, 0.05), 4), upper_bound(3, 3, 0.05)
    (0.0495, 1.0)
    """
    if changed >= count:
        return 1.0
    return float(beta.ppf(1 - level, changed + 1, count - changed))


def fewest(most: float, level: float) -> int:
    """Return how many tasks without a single change reject that the share of changes is `most`.

    >>> fewest(0.05, 0.05)
    59
    """
    return math.ceil(math.log(level) / math.log1p(-most))


def last_rejected(counts: Sequence[tuple[float, float]], most: float, level: float) -> int | None:
    """Return the index of the last candidate before the first that is not rejected; None: no one.

    Args:
        counts: changed tasks and all tasks of each candidate, the strictest first.
        most: share of changes that is still allowed, in (0, 1).
        level: probability that a candidate with a larger share is returned, in (0, 1).

    >>> last_rejected([(0, 80), (1, 120), (9, 200), (9, 900)], 0.05, 0.05)
    1
    """
    found = None
    for index, (changed, count) in enumerate(counts):
        if p_value(changed, count, most) > level:
            break
        found = index
    return found
