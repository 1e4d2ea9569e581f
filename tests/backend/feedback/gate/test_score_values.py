"""What scores are worth."""

from __future__ import annotations

import pytest

from backend.feedback.gate.outcomes import TaskOutcome
from backend.feedback.gate.score_values import ScoreValues


def outcome(score: float, kept: bool, label: str = "car") -> TaskOutcome:
    return TaskOutcome(1, (1,), {label: score}, frozenset(() if kept else {label}))


def test_the_worth_is_the_share_kept_among_as_high_scores_and_never_falls() -> None:
    outcomes = [outcome(0.2, False), outcome(0.5, True), outcome(0.7, True), outcome(0.9, False)]
    values = ScoreValues.of(outcomes)
    # from 0.9: (0 + 1) / 3; from 0.7: 2 / 4; from 0.5: 3 / 5; from 0.2: 3 / 6
    assert values.steps == {"car": ((0.2, 1 / 2), (0.5, 3 / 5))}
    assert values.of_task({"car": 0.95}) == pytest.approx(3 / 5)
    assert values.of_task({"car": 0.3}) == pytest.approx(1 / 2)
    assert values.of_task({"car": 0.1}) == 0


def test_a_task_is_worth_what_its_worst_label_is() -> None:
    values = ScoreValues.of([outcome(0.5, True), outcome(0.5, False, "dog")])
    assert values.of_task({"car": 0.5, "dog": 0.6}) == pytest.approx(1 / 3)
    assert values.of_task({"car": 0.5, "unknown": 1.0}) == 0


def test_the_least_score_is_the_first_of_that_worth() -> None:
    values = ScoreValues.of([outcome(0.2, False), outcome(0.5, True), outcome(0.7, True)])
    assert values.least_score("car", 0.75) == 0.5
    assert values.least_score("car", 0.99) is None
    assert values.least_score("dog", 0.1) is None
