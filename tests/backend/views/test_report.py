"""The figures of a report as a page shows them."""

from backend.feedback.experiment import Experiment
from backend.feedback.sums import LabelSums
from backend.views.report import Measurement, Row


def bad_cells(sums: LabelSums) -> list[str]:
    return [cell.column for cell in Row.of("car", sums).cells if cell.is_bad]


def harmful(pictures: int, true_px: int = 50) -> LabelSums:
    return LabelSums(pictures=pictures, measured=pictures, predicted_px=100, true_px=true_px)


def test_what_does_harm_is_bad() -> None:
    assert bad_cells(harmful(9)) == ["Saved paint"]


def test_two_pictures_are_no_alarm() -> None:
    assert bad_cells(harmful(2)) == []


def test_a_dash_is_not_bad() -> None:
    """A label that was predicted and never annotated has no saved paint."""
    assert bad_cells(harmful(9, true_px=0)) == []


def test_a_measurement_that_lacks_tasks_says_how_many_it_takes() -> None:
    short, enough = Measurement(None, 299), Measurement(None, 300)
    assert (short.has_enough, enough.has_enough) == (False, True)
    assert short.offer.endswith(
        "299 are left, and it takes 300. Import more pictures, or withdraw the job that has "
        "predicted them."
    )
    assert enough.offer.endswith("300 are left.")


def test_nothing_is_offered_while_it_is_measured() -> None:
    running = Measurement(Experiment(0.0, None, 3, 30), 500)
    assert (running.is_running, running.offer) == (True, "")


def test_where_nobody_says_what_is_left_nothing_is_shown() -> None:
    assert not Measurement(None, None).is_shown
