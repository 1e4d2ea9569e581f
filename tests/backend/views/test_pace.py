"""Curves of the report."""

from backend.feedback.report.periods import Interval, Period
from backend.views.pace import pace_curves, thin_periods

WEEKS = (
    Period("2026-11-23", 12, 4, Interval(0.5, 0.4, 0.6), Interval(90.0, 60.0, 120.0)),
    Period("2026-11-30", 3, 2, None, None),
)


def test_the_plots_have_their_units() -> None:
    saved, minutes, pace = pace_curves(WEEKS, "week")
    assert saved.rows[0] == ("23 Nov", "50.0 % (40.0 % to 60.0 %)")
    assert minutes.rows[0] == ("23 Nov", "1.5 min (1.0 min to 2.0 min)")
    assert pace.rows == (("23 Nov", "3.0"), ("30 Nov", "1.5"))


def test_weeks_with_few_annotations_are_counted() -> None:
    told = "1 week with fewer than 5 compared annotations: too few to tell."
    assert thin_periods(WEEKS, "week") == told
    assert thin_periods(WEEKS[:1], "week") == ""
