"""Keep checking a gate: an audit share of the passing tasks that people correct as before.

Who is drawn is decided by lot, not by score, so the corrected ones speak for all that pass. The
alarm is a test that may be looked at after each of them
(`clearclip_core.adaptation.sequential_test`). It begins anew with each look of the gate, and these
share the allowed error (Bonferroni): while the gate keeps its promise, an alarm is ever raised with
a probability of `FALSE_ALARM` at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backend.feedback.gate.gate import LOOKS
from backend.feedback.gate.lots import lot
from clearclip_core.adaptation.sequential_test import is_below_zero

#: Probability of an alarm over all looks, ever, while the share of changed tasks is the allowed one
#: or less.
FALSE_ALARM: Final = 0.05


def is_audited(task: int, share: float) -> bool:
    """Return whether a passing task is to be corrected as before.

    Args:
        task: its id.
        share: of the passing tasks, in [0, 1].
    """
    return lot("audit", task) < share


def has_drifted(changed: Sequence[bool], share: float) -> bool:
    """Return whether audited tasks have shown, at some time, that too many need a change.

    Args:
        changed: whether each audited task needed a change, in the order of their annotations.
        share: the least share of tasks that shall need none.

    >>> has_drifted([False] * 200, 0.95), has_drifted([True, False] * 10, 0.95)
    (False, True)
    """
    return is_below_zero([1 - share - each for each in changed], FALSE_ALARM / len(LOOKS))
