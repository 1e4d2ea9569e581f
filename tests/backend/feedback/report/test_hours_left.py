"""Hours left, for projects whose days, pictures and people are drawn: how often a range holds."""

import numpy as np
import pytest

from backend.feedback.annotation_store import WorkTime
from backend.feedback.report.hours_left import (
    LEAST,
    LEAST_DAYS,
    Float64s,
    Hours,
    HoursLeft,
    at_pace,
    interval,
)

DAY_S, PER_DAY, TASKS = 86_400.0, 40, 800


def timed(times_s: Float64s, per_day: int = PER_DAY) -> list[WorkTime]:
    """Times of annotations, so many a day, in the order in which they were made."""
    made = [WorkTime(float(each), DAY_S * (n // per_day)) for n, each in enumerate(times_s)]
    return made[::-1]


def drawn(rng: np.random.Generator, scene: str) -> Float64s:
    """The seconds of the annotations of a project, in the order in which they are made."""
    number = np.arange(TASKS)
    factor = np.ones(TASKS)
    if scene == "days that differ":
        factor = np.exp(rng.normal(0, 0.3, TASKS // PER_DAY))[number // PER_DAY]
    if scene == "blocks of hard pictures":
        factor = np.exp(0.5 * (rng.random(TASKS // 100) < 0.5))[number // 100]
    if scene == "people who learn":
        factor = 1 + np.exp(-number / 150)
    return np.asarray(60 * factor * rng.lognormal(0, 0.5, TASKS))


def held(scene: str, done: int, draws: int = 150) -> tuple[float, float]:
    """How often there is a range, and how often such a range holds, as shares."""
    rng, shown, holds = np.random.default_rng(5), 0, 0
    for _ in range(draws):
        times = drawn(rng, scene)
        found = at_pace(TASKS - done, timed(times[:done]))
        assert found is not None
        if found.low is not None and found.high is not None:
            shown += 1
            holds += found.low <= times[done:].sum() / 3600 <= found.high
    return shown / draws, holds / max(shown, 1)


@pytest.mark.parametrize("done_days", [12, 16])
@pytest.mark.parametrize("scene", ["alike", "days that differ", "blocks of hard pictures"])
def test_the_range_holds(scene: str, done_days: int) -> None:
    shown, holds = held(scene, done_days * PER_DAY)
    assert shown > 0.6
    assert holds >= 0.8


def test_people_who_learn_have_no_range() -> None:
    shown, _ = held("people who learn", 12 * PER_DAY)
    assert shown < 0.05


def test_the_days_to_come_are_drawn_too() -> None:
    """The interval of the mean alone would hold in half of the projects of three days more."""
    _, holds = held("days that differ", 17 * PER_DAY)
    assert holds >= 0.8


def test_few_days_have_no_range() -> None:
    found = at_pace(60, timed(np.full((LEAST_DAYS - 1) * PER_DAY, 60.0)))
    assert found == Hours(1.0, days=LEAST_DAYS - 1)
    assert "a range comes after 10 days" in interval(found)


def test_a_range_of_two_equal_ends_is_none() -> None:
    found = at_pace(2, timed(np.full(LEAST_DAYS * PER_DAY, 60.0)))
    assert found is not None
    assert found.low is not None
    assert "range" not in interval(found)


def test_a_break_hardly_counts_and_a_change_of_pace_is_said() -> None:
    rng = np.random.default_rng(3)
    times = rng.lognormal(np.log(60), 0.3, 50)
    plain = at_pace(60, timed(times, per_day=100))
    broken = at_pace(60, timed(np.append(times[:-1], 7200.0), per_day=100))
    assert plain is not None
    assert broken is not None
    assert broken.hours < 1.12 * plain.hours
    faster = at_pace(60, timed(np.append(times[:25], times[25:] / 2), per_day=100))
    assert faster is not None
    assert faster.is_changing
    assert faster.hours == pytest.approx(float(times[25:].sum()) / 50 * 60 / 3600)


def test_hours_of_nothing_and_of_too_few() -> None:
    times = timed(np.full(LEAST, 60.0))
    assert "No task" in HoursLeft(0, 50, 45, at_pace(0, times)).missing
    assert at_pace(9, times[1:]) is None
