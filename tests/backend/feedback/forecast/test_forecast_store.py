"""Forecasts in the database, SQLite and a real PostgreSQL."""

from __future__ import annotations

from backend.database.database import Database
from backend.feedback.forecast.forecast_store import ForecastStore
from backend.feedback.forecast.hours_left import Hours, HoursLeft
from tests.backend.conftest import Clock

FORECAST = HoursLeft(1000.0, 12, 20, 3, 1, Hours(2.0, 1.5, 2.5), None)


def test_the_newest_forecast_is_read(url: str) -> None:
    one, other = ForecastStore(Database(url)), ForecastStore(Database(url))
    assert one.read(7) is None
    one.keep(7, FORECAST, 600)
    assert other.read(7) == FORECAST
    other.keep(7, HoursLeft(2000.0, 3), 600)
    assert one.read(7) == HoursLeft(2000.0, 3)
    assert one.read(8) is None


def test_one_backend_makes_a_forecast_that_is_due(url: str, clock: Clock) -> None:
    one, other = (ForecastStore(Database(url, clock)) for _ in range(2))
    assert one.claim(7, 20)
    assert not other.claim(7, 20)
    assert one.read(7) is None, "claimed and not made yet"
    one.keep(7, FORECAST, 600)
    clock.now += 599
    assert not other.claim(7, 24), "it is new"
    clock.now += 2
    assert not other.claim(7, 23), "nothing was added"
    assert other.claim(7, 24)
    assert not one.claim(7, 25)


def test_a_backend_that_dies_leaves_the_forecast_to_another(url: str, clock: Clock) -> None:
    one, other = (ForecastStore(Database(url, clock)) for _ in range(2))
    assert one.claim(7, 20)
    clock.now += 901
    assert other.claim(7, 20)
    other.keep(7, FORECAST, 600)
    clock.now += 601
    assert one.claim(7, 24)
    clock.now += 901
    assert other.claim(7, 24), "the one before it was made of fewer"


def test_a_forecast_is_made_anew_each_day(url: str, clock: Clock) -> None:
    forecasts = ForecastStore(Database(url, clock))
    forecasts.keep(7, FORECAST, 600)
    clock.now += 86400 + 599
    assert not forecasts.claim(7, 23)
    clock.now += 2
    assert forecasts.claim(7, 23), "tasks may have been added"
