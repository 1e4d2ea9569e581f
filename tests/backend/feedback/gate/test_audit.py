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


def test_a_gate_that_has_drifted_is_closed() -> None:
    rng = np.random.default_rng(4)
    changed = [(rng.random(60) < 0.3).tolist() for _ in range(100)]
    assert sum(has_drifted(each, 0.95) for each in changed) >= 95
