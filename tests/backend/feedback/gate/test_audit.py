"""The audit: who is drawn, and when it raises an alarm."""

from __future__ import annotations

import numpy as np

from backend.feedback.gate.audit import has_drifted, is_audited


def test_the_audit_share_is_drawn_and_a_larger_share_keeps_those_of_a_smaller_one() -> None:
    tasks = range(20_000)
    five = {task for task in tasks if is_audited(task, 0.05)}
    ten = {task for task in tasks if is_audited(task, 0.1)}
    assert 900 < len(five) < 1100
    assert five < ten


def test_a_gate_that_keeps_its_promise_is_seldom_closed_however_often_one_looks() -> None:
    rng = np.random.default_rng(3)
    alarms = sum(has_drifted((rng.random(400) < 0.05).tolist(), 0.95) for _ in range(300))
    assert alarms <= 0.05 * 300


def test_the_looks_of_a_gate_share_the_false_alarms() -> None:
    """Each of four looks has an audit of its own: an alarm takes 80 times the wealth, not 20."""
    stakes = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
    seven, eight, nine = (sum((1 + 0.95 * b) ** n for b in stakes) / 7 for n in (7, 8, 9))
    assert 20 < seven < eight < 80 < nine
    assert not has_drifted([True] * 8, 0.95)
    assert has_drifted([True] * 9, 0.95)


def test_a_gate_that_has_drifted_is_closed() -> None:
    rng = np.random.default_rng(4)
    changed = [(rng.random(80) < 0.3).tolist() for _ in range(100)]
    assert sum(has_drifted(each, 0.95) for each in changed) >= 95
