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


def test_weeks_without_work_have_a_place_in_the_plots_and_no_row() -> None:
    later = Period("2026-12-21", 8, 2, Interval(0.7, 0.6, 0.8), None)
    for curve in pace_curves((*WEEKS, later), "week"):
        assert curve.steps == ("23 Nov", "30 Nov", "7 Dec", "14 Dec", "21 Dec")
        assert [row[0] for row in curve.rows] == ["23 Nov", "30 Nov", "21 Dec"]


def test_over_long_times_names_have_the_year() -> None:
    later = Period("2027-11-22", 8, 2, Interval(0.7, 0.6, 0.8), None)
    saved, *_ = pace_curves((*WEEKS, later), "week")
    assert (saved.steps[0], saved.steps[-1], len(saved.steps)) == ("23 Nov 26", "22 Nov 27", 53)


def test_weeks_with_few_annotations_are_counted() -> None:
    told = "1 week with fewer than 5 compared annotations: too few to tell."
    assert thin_periods(WEEKS, "week") == told
    assert thin_periods(WEEKS[:1], "week") == ""
