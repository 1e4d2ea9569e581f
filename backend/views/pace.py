"""How a project's work changes over time, as pages show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final, TypeVar

from msgspec import Struct

from backend.feedback.report.periods import Period
from backend.feedback.report.statistics import FEW
from backend.feedback.sums import Step
from backend.views.curve import COUNT, MINUTES, PERCENT, Curve, Line, Unit
from clearclip_core.quantities import inflected

Figure = TypeVar("Figure")


_STEP_DAYS: Final[dict[Step, int]] = {"day": 1, "week": 7}

#: Days from the first to the last period from which on their names have the year.
_LONG_DAYS: Final = 300


def saved_curve(periods: Sequence[Period], step: Step) -> Curve:
    """Return the share of work that predictions saved, by day or week, with its range."""
    times = _Timeline.of(periods, step)
    saved = Line.of("Saved paint", times.figures(lambda each: each.saved_paint))
    return times.curve(f"Saved paint by {step}, with its 90 % range", saved)


def pace_curves(periods: Sequence[Period], step: Step) -> tuple[Curve, ...]:
    """Return the plots of the report: saved paint, minutes a picture, and annotations a day."""
    times = _Timeline.of(periods, step)
    taken = Line.of("Minutes a picture", times.figures(lambda each: each.seconds))
    made = Line("Annotations a day", times.figures(lambda each: each.annotations / each.days))
    return (
        saved_curve(periods, step),
        times.curve(f"Minutes a picture by {step}, with 90 % range", taken, MINUTES),
        times.curve(f"Annotations on a day of work, by {step}", made, COUNT),
    )


def thin_periods(periods: Sequence[Period], step: Step) -> str:
    """Say which figures are missing because too few annotations make them; "" if all are there."""
    thin = sum(each.saved_paint is None for each in periods)
    if not thin:
        return ""
    told = f"{thin} {inflected(thin, step)} with fewer than {FEW} compared annotations"
    return f"{told}: too few to tell."


class _Timeline(Struct, frozen=True):
    """Periods on a line of time: those in which nobody annotated are None."""

    step: Step
    periods: dict[date, Period | None]  # first day of each -> what was made in it

    @classmethod
    def of(cls, periods: Sequence[Period], step: Step) -> _Timeline:
        made = {date.fromisoformat(each.name): each for each in periods}
        if not made:
            return cls(step, {})

        first, last, length = min(made), max(made), _STEP_DAYS[step]
        days = (first + timedelta(n) for n in range(0, (last - first).days + 1, length))
        return cls(step, {day: made.get(day) for day in days})

    def figures(self, figure: Callable[[Period], Figure | None]) -> tuple[Figure | None, ...]:
        """Return a figure of each period, None where nobody annotated."""
        return tuple(None if each is None else figure(each) for each in self.periods.values())

    def curve(self, title: str, line: Line, unit: Unit = PERCENT) -> Curve:
        """Return the plot of a line."""
        return Curve(
            title=title,
            steps=self._names(),
            lines=(line,),
            unit=unit,
            step_name=self.step.capitalize(),
            bare=tuple(n for n, each in enumerate(self.periods.values()) if each is None),
        )

    def _names(self) -> tuple[str, ...]:
        """Write the first days for people, as in 23 Nov; over long times, as in 23 Nov 26."""
        days = [*self.periods]
        is_long = bool(days) and (days[-1] - days[0]).days >= _LONG_DAYS
        return tuple(f"{day.day} {day:%b %y}" if is_long else f"{day.day} {day:%b}" for day in days)
