"""How a project's work changes over time, as pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from backend.feedback.report.periods import Period
from backend.feedback.report.statistics import FEW
from backend.feedback.sums import Step
from backend.views.curve import COUNT, MINUTES, Curve, Line
from clearclip_core.quantities import inflected


def saved_curve(periods: Sequence[Period], step: Step) -> Curve:
    """Return the share of work that predictions saved, by day or week, with its range."""
    return Curve(
        title=f"Saved paint by {step}, with its 90 % range",
        steps=_names(periods),
        lines=(Line.of("Saved paint", [each.saved_paint for each in periods]),),
        step_name=step.capitalize(),
    )


def pace_curves(periods: Sequence[Period], step: Step) -> tuple[Curve, ...]:
    """Return the plots of the report: saved paint, minutes a picture, and annotations a day."""
    pace = tuple(each.annotations / each.days for each in periods)
    taken = Curve(
        title=f"Minutes that an annotation takes by {step}, with their 90 % range",
        steps=_names(periods),
        lines=(Line.of("Minutes a picture", [each.seconds for each in periods]),),
        unit=MINUTES,
        step_name=step.capitalize(),
    )
    made = Curve(
        title=f"Annotations a day by {step}, of the days that have any",
        steps=_names(periods),
        lines=(Line("Annotations a day", pace),),
        unit=COUNT,
        step_name=step.capitalize(),
    )
    return saved_curve(periods, step), taken, made


def thin_periods(periods: Sequence[Period], step: Step) -> str:
    """Say which figures are missing because too few annotations make them; "" where none is."""
    thin = sum(each.saved_paint is None for each in periods)
    if not thin:
        return ""
    told = f"{thin} {inflected(thin, step)} with fewer than {FEW} compared annotations"
    return f"{told}: too few to tell."


def _names(periods: Sequence[Period]) -> tuple[str, ...]:
    """Write the first days for people, as in 23 Nov."""
    days = (date.fromisoformat(each.name) for each in periods)
    return tuple(f"{day.day} {day:%b}" for day in days)
