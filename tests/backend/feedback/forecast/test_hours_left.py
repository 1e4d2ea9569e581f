"""Forecasts of work whose length is known."""

from __future__ import annotations

import pytest

from backend.feedback.forecast.hours_left import HoursLeft, foretell
from backend.feedback.forecast.lead_times import TimedAnnotation

DAY = 86400.0


def made(
    count: int, seconds: float, *, predicted: bool = True, first: int = 0
) -> list[TimedAnnotation]:
    """Annotations of one annotator on ten days, who is as fast on the last as on the first."""
    return [
        TimedAnnotation(
            first + n, 1, seconds * (0.9 + 0.2 * (n % 2)), DAY * (n * 10 // count), predicted
        )
        for n in range(count)
    ]


def test_equal_work_goes_on_as_it_went() -> None:
    found = foretell(made(100, 60) + made(50, 180, predicted=False, first=100), {}, 120, [], 5.0)
    assert (found.made, found.tasks_left, found.n_with, found.n_without) == (5.0, 120, 100, 50)
    assert found.with_prelabels is not None
    assert found.without_prelabels is not None
    assert found.with_prelabels.expected == pytest.approx(2, rel=0.05)
    assert found.without_prelabels.expected == pytest.approx(6, rel=0.05)
    assert found.with_prelabels.low < 2 < found.with_prelabels.high
    assert found.without_prelabels.low < 6 < found.without_prelabels.high
    assert found.missing == []


def test_the_interval_is_wider_where_less_is_known() -> None:
    few, many = (foretell(made(count, 60), {}, 500, [], 0.0).with_prelabels for count in (20, 200))
    assert few is not None
    assert many is not None
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_what_was_left_open_adds_no_hours() -> None:
    plain = made(60, 60)
    lunch = [TimedAnnotation(99, 1, 4000.0, DAY * 4, True)]
    without, found = (foretell(each, {}, 500, [], 0.0) for each in (plain, plain + lunch))
    assert found.left_open == 1
    assert found.with_prelabels is not None
    assert without.with_prelabels is not None
    assert found.with_prelabels.expected == pytest.approx(without.with_prelabels.expected, rel=0.02)


def test_easier_tasks_take_less() -> None:
    """Tasks of score 1 took 90 s, of score 0 30 s; only such of score 0 are left."""
    times = [
        TimedAnnotation(n, 1, 90.0 if n % 2 else 30.0, DAY * (n * 10 // 100), True)
        for n in range(100)
    ]
    scores = {n: float(n % 2) for n in range(100)}
    found = foretell(times, scores, 120, [0.0] * 120, 0.0).with_prelabels
    assert found is not None
    assert found.expected == pytest.approx(1, rel=0.05)
    blind = foretell(times, {}, 120, [], 0.0).with_prelabels
    assert blind is not None
    assert blind.expected == pytest.approx(2, rel=0.1)


def test_hours_that_are_not_known_say_what_to_do() -> None:
    found = foretell(made(19, 60), {}, 120, [], 0.0)
    assert found.with_prelabels is None
    assert found.without_prelabels is None
    with_, without = found.missing
    assert "from 20 annotations" in with_
    assert "so far there are 19" in with_
    assert "Annotate some tasks that have no prediction, chosen by chance" in without
    (only,) = foretell(made(20, 60), {}, 120, [], 0.0).missing
    assert only == without


def test_nothing_left_takes_no_time() -> None:
    found = foretell(made(30, 60), {}, 0, [], 0.0).with_prelabels
    assert found is not None
    assert (found.low, found.expected, found.high) == (0, 0, 0)


def test_the_same_input_gives_the_same_numbers() -> None:
    one, two = (foretell(made(30, 60), {}, 12, [], 0.0) for _ in range(2))
    assert one == two
    assert HoursLeft.from_json(one.to_json()) == one
