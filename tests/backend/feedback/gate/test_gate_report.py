"""What people are told of the order of annotation."""

from __future__ import annotations

import pytest

from backend.feedback.gate.gate import Gate
from backend.feedback.gate.gate_report import GateReport


def report(independent: float | None) -> GateReport:
    gate = Gate(0.95, 0.95, 300, 200, independent=independent)
    return GateReport(7, "v", {"v": 300}, 0.95, 0.95, 0.05, gate)


def test_an_order_that_makes_pictures_count_for_less_is_named() -> None:
    told = report(21.4).order
    assert told is not None
    assert "The 200 pictures that checked it count as 21 only" in told
    assert report(21.4).to_json()["order"] == told


@pytest.mark.parametrize("independent", [None, 195.0, 200.0])
def test_an_order_that_costs_little_is_not_named(independent: float | None) -> None:
    assert report(independent).order is None


def test_no_gate_has_no_order() -> None:
    assert GateReport(7, "v", {"v": 30}, 0.95, 0.95, 0.05).order is None
