"""Draw how figures change from step to step: a plot as inline SVG, and the rows of its table.

The plot takes its colour from the page (``currentColor``), so that it is right in dark mode, too.
Lines differ by their dashes and marks and not by colour alone. It needs neither script nor style.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Final

from msgspec import Struct

from backend.feedback.report.periods import Interval

#: Size of the drawing, and where its axes are. At its own size its letters have 12 px.
_WIDTH: Final = 340
_HEIGHT: Final = 180
_LEFT: Final = 58
_RIGHT: Final = 326
_TOP: Final = 12
_BOTTOM: Final = 152

_MOST_NAMES: Final = 5  # of steps below the plot; of more, some are left out

_MOST_MARKED: Final = 12  # figures beside each other with a mark each; more are a line alone

#: Dashes of the lines, in turn. The first is solid.
_DASHES: Final = ("none", "5 4", "1 4")

#: How far the end of an axis is from 0 at least, as a share of the other end: else the figures of
#: both would lie over each other.
_LEAST_END: Final = 0.2


class Unit(Struct, frozen=True):
    """How the figures of a curve are written."""

    suffix: str = ""
    factor: float = 1.0  # of the figure that is written to the one that is measured
    decimals: int = 1

    def text(self, value: float | None) -> str:
        """Write a figure with its unit; a dash for None.

        >>> PERCENT.text(0.625), MINUTES.text(90), PERCENT.text(None)
        ('62.5 %', '1.5 min', '–')
        """
        if value is None:
            return "–"
        return f"{self.factor * value + 0.0:.{self.decimals}f}{self.suffix}"

    def of_axis(self, value: float) -> str:
        """Write a level of the axis, without needless decimals."""
        return f"{self.factor * value:.3g}{self.suffix}"


PERCENT: Final = Unit(" %", 100.0)
POINTS: Final = Unit("", 100.0)  # differences of percentages
MINUTES: Final = Unit(" min", 1 / 60)
COUNT: Final = Unit()


class Line(Struct, frozen=True):
    """One figure at each step."""

    name: str
    values: tuple[float | None, ...]  # such as 0.62 for 62 %; None: not measured
    ranges: tuple[tuple[float, float] | None, ...] = ()  # of each value; (): none is known

    @classmethod
    def of(cls, name: str, estimates: Sequence[Interval | None]) -> Line:
        """Return the line of some means, with their ranges."""
        return cls(
            name,
            tuple(None if each is None else each.mean for each in estimates),
            tuple(None if each is None else (each.low, each.high) for each in estimates),
        )

    @property
    def known(self) -> list[float]:
        """All figures that the drawing has to hold, ends of ranges included."""
        ends = [end for each in self.ranges if each is not None for end in each]
        return [each for each in self.values if each is not None] + ends

    def text(self, step: int, unit: Unit) -> str:
        """Write the figure of a step, with its range where there is one."""
        told = unit.text(self.values[step])
        bounds = self.ranges[step] if self.ranges else None
        if bounds is None:
            return told
        return f"{told} ({unit.text(bounds[0])} to {unit.text(bounds[1])})"


class Curve(Struct, frozen=True):
    """Figures by step, as a page prints them.

    >>> curve = Curve("Mean IoU by version", ("v1", "v2"), (Line("mean IoU", (0.4, 0.6)),))
    >>> curve.is_drawn, curve.rows
    (True, (('v1', '40.0 %'), ('v2', '60.0 %')))
    """

    title: str  # what the plot shows, as a sentence for people who do not see it
    steps: tuple[str, ...]  # name of each step, in their order
    lines: tuple[Line, ...]
    unit: Unit = PERCENT
    step_name: str = "Version"  # what the steps are: the head of the table's first column
    #: Indices of steps at which nothing was made: they have a place in the plot and no row.
    bare: tuple[int, ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether some line has two steps, so that there is something to see."""
        return any(sum(value is not None for value in line.values) > 1 for line in self.lines)

    @property
    def head(self) -> tuple[str, ...]:
        """The head of the table below the plot."""
        return (self.step_name, *(line.name for line in self.lines))

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The table below the plot: the name of a step, then each line's figure or a dash."""
        return tuple(
            (step, *(line.text(index, self.unit) for line in self.lines))
            for index, step in enumerate(self.steps)
            if index not in self.bare
        )

    @property
    def svg(self) -> str:
        """The plot as an SVG element; names are escaped. "" where nothing is drawn."""
        if not self.is_drawn:
            return ""

        known = [self.unit.factor * value for line in self.lines for value in line.known]
        lowest, highest = _ends(known)
        scale = _Scale(
            steps=len(self.steps),
            highest=highest / self.unit.factor,
            lowest=lowest / self.unit.factor,
        )
        parts = [*_axes(scale, self.unit), *_names(self.steps, scale)]
        for number, line in enumerate(self.lines):
            parts += _ranges(line, scale)
            parts += _line(line, number, scale)

        size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        label = f'role="img" aria-label="{escape(self.title)}"'
        look = 'fill="currentColor" font-size="12"'
        return f'<svg class="curve" {size} {label} {look}>{"".join(parts)}</svg>'

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Each line's name, with a small SVG element that shows how it is drawn."""
        return tuple((line.name, _key(number)) for number, line in enumerate(self.lines))


class _Scale(Struct, frozen=True):
    """Where steps and values lie in the drawing."""

    steps: int
    highest: float
    lowest: float

    def x(self, step: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (step + 0.5) / self.steps

    def y(self, value: float) -> float:
        part = (value - self.lowest) / (self.highest - self.lowest)
        return _BOTTOM - (_BOTTOM - _TOP) * part


def _ceiling(value: float) -> float:
    """Return the end of an axis that holds a value: a round figure, at least 0.

    >>> _ceiling(61), _ceiling(-20), _ceiling(1.12)
    (70.0, 0.0, 1.2)
    """
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    step = power if value >= 2 * power else power / 5
    return round(step * math.ceil(round(value / step, 6)), 9)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest figure of an axis that holds some values, and 0.

    >>> _ends([20, 61]), _ends([-3, 81]), _ends([0])
    ((0.0, 70.0), (-18.0, 90.0), (0.0, 1.0))
    """
    depth, height = _ceiling(-min(values)), _ceiling(max(values)) or 1.0
    if not depth:
        return 0.0, height
    return -max(depth, _LEAST_END * height), max(height, _LEAST_END * depth)


def _axes(scale: _Scale, unit: Unit) -> list[str]:
    """Draw three levels with their figures; where some are below zero, the middle one is zero."""
    parts = []
    middle = 0.0 if scale.lowest < 0 else scale.highest / 2
    for value in (scale.lowest, middle, scale.highest):
        y = f"{scale.y(value):.1f}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}" stroke="currentColor" '
            'stroke-opacity="0.2"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y}" dy="4" text-anchor="end">'
            f"{escape(unit.of_axis(value))}</text>"
        )
    return parts


def _names(steps: Sequence[str], scale: _Scale) -> list[str]:
    """Write the names of steps below: the last one, and others at equal distances before it."""
    every = -(-len(steps) // _MOST_NAMES)
    return [
        f'<text x="{scale.x(index):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{escape(steps[index])}</text>"
        for index in range(len(steps) - 1, -1, -every)
    ]


def _ranges(line: Line, scale: _Scale) -> list[str]:
    """Draw a broad, pale bar over each range."""
    parts = []
    for step, bounds in enumerate(line.ranges):
        if bounds is not None:
            x = f"{scale.x(step):.1f}"
            low, high = (f"{scale.y(end):.1f}" for end in bounds)
            parts.append(
                f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" stroke="currentColor" '
                'stroke-width="8" stroke-opacity="0.25"/>'
            )
    return parts


def _line(line: Line, number: int, scale: _Scale) -> list[str]:
    """Draw a line, with a gap where nothing was measured, and a mark at each of few figures."""
    parts = []
    for is_known, run in groupby(enumerate(line.values), lambda each: each[1] is not None):
        if is_known:
            places = [(scale.x(step), scale.y(value or 0.0)) for step, value in run]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="currentColor" '
                f'stroke-width="2" {_dashes(number)}/>'
            )
            if len(places) <= _MOST_MARKED:
                parts += [_mark(x, y, number) for x, y in places]
    return parts


def _key(number: int) -> str:
    stroke = f'stroke="currentColor" stroke-width="2" {_dashes(number)}'
    line = f'<line x1="0" x2="28" y1="6" y2="6" {stroke}/>'
    look = 'width="28" height="12" fill="currentColor" aria-hidden="true"'
    return f"<svg {look}>{line}{_mark(14, 6, number)}</svg>"


def _dashes(number: int) -> str:
    return f'stroke-dasharray="{_DASHES[number % len(_DASHES)]}"'


def _mark(x: float, y: float, number: int) -> str:
    """Draw a dot for the first line, and a square for the others."""
    if number == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
