"""Draw how figures change from step to step: a plot as inline SVG, and the rows of its table.

The plot takes its colour from the page (``currentColor``), so that it is right in dark mode, too.
Lines differ by their dashes and marks and not by colour alone. It needs neither script nor style.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Final

from msgspec import Struct

#: Size of the drawing, and where its axes are. At its own size its letters have 12 px.
_WIDTH: Final = 340
_HEIGHT: Final = 180
_LEFT: Final = 38
_RIGHT: Final = 326
_TOP: Final = 12
_BOTTOM: Final = 152

_MOST_NAMES: Final = 5  # of steps below the plot; of more, some are left out
_STEP: Final = 0.1  # the axis ends at a multiple of this share

#: Dashes of the lines, in turn. The first is solid.
_DASHES: Final = ("none", "5 4", "1 4")


class Line(Struct, frozen=True):
    """One figure at each step."""

    name: str
    values: tuple[float | None, ...]  # shares, such as 0.62 for 62 %; None: not measured


class Curve(Struct, frozen=True):
    """Figures by step, as a page prints them.

    >>> curve = Curve("Mean IoU by version", ("v1", "v2"), (Line("mean IoU", (0.4, 0.6)),))
    >>> curve.is_drawn, curve.rows
    (True, (('v1', '40.0 %'), ('v2', '60.0 %')))
    """

    title: str  # what the plot shows, as a sentence for people who do not see it
    steps: tuple[str, ...]  # name of each step, in their order
    lines: tuple[Line, ...]

    @property
    def is_drawn(self) -> bool:
        """Whether some line has two steps, so that there is something to see."""
        return any(sum(value is not None for value in line.values) > 1 for line in self.lines)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The table below the plot: the name of a step, then each line's figure or a dash."""
        return tuple(
            (step, *(_percent(line.values[index]) for line in self.lines))
            for index, step in enumerate(self.steps)
        )

    @property
    def svg(self) -> str:
        """The plot as an SVG element; names are escaped. "" where nothing is drawn."""
        if not self.is_drawn:
            return ""

        known = [value for line in self.lines for value in line.values if value is not None]
        highest = max(_ceiling(max(known)), _STEP)
        scale = _Scale(len(self.steps), highest, 0.0 - _ceiling(-min(known)))
        parts = [
            *_axes(scale),
            *_names(self.steps, scale),
            *(
                part
                for number, line in enumerate(self.lines)
                for part in _line(line, number, scale)
            ),
        ]

        size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        label = f'role="img" aria-label="{escape(self.title)}"'
        return f'<svg class="curve" {size} {label} font-size="12">{"".join(parts)}</svg>'

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Each line's name, with a small SVG element that shows how it is drawn."""
        return tuple((line.name, _key(number)) for number, line in enumerate(self.lines))


class _Scale(Struct, frozen=True):
    """Where steps and shares lie in the drawing."""

    steps: int
    highest: float
    lowest: float

    def x(self, step: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (step + 0.5) / self.steps

    def y(self, share: float) -> float:
        part = (share - self.lowest) / (self.highest - self.lowest)
        return _BOTTOM - (_BOTTOM - _TOP) * part


def _ceiling(share: float) -> float:
    """Return the end of an axis that holds a share, at least 0.

    >>> _ceiling(0.61), _ceiling(-0.2)
    (0.7, 0.0)
    """
    steps = -(-round(share * 1000) // round(_STEP * 1000))
    return max(0.0, round(steps * _STEP, 3))


def _axes(scale: _Scale) -> list[str]:
    """Draw three levels with their percentages."""
    parts = []
    for share in (scale.lowest, (scale.lowest + scale.highest) / 2, scale.highest):
        y = f"{scale.y(share):.1f}"
        parts.append(
            f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y}" y2="{y}" stroke="currentColor" '
            'stroke-opacity="0.2"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y}" dy="4" text-anchor="end" fill="currentColor">'
            f"{100 * share:.0f} %</text>"
        )
    return parts


def _names(steps: Sequence[str], scale: _Scale) -> list[str]:
    """Write the names of steps below: the last one, and others at equal distances before it."""
    every = -(-len(steps) // _MOST_NAMES)
    return [
        f'<text x="{scale.x(index):.1f}" y="{_HEIGHT - 10}" text-anchor="middle" '
        f'fill="currentColor">{escape(steps[index])}</text>'
        for index in range(len(steps) - 1, -1, -every)
    ]


def _line(line: Line, number: int, scale: _Scale) -> list[str]:
    """Draw a line, with a gap where nothing was measured, and a mark at each figure."""
    parts = []
    for is_known, run in groupby(enumerate(line.values), lambda each: each[1] is not None):
        if is_known:
            places = [(scale.x(step), scale.y(value or 0.0)) for step, value in run]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="currentColor" '
                f'stroke-width="2" {_dashes(number)}/>'
            )
            parts += [_mark(x, y, number) for x, y in places]
    return parts


def _key(number: int) -> str:
    stroke = f'stroke="currentColor" stroke-width="2" {_dashes(number)}'
    line = f'<line x1="0" x2="28" y1="6" y2="6" {stroke}/>'
    return f'<svg width="28" height="12" aria-hidden="true">{line}{_mark(14, 6, number)}</svg>'


def _dashes(number: int) -> str:
    return f'stroke-dasharray="{_DASHES[number % len(_DASHES)]}"'


def _mark(x: float, y: float, number: int) -> str:
    """Draw a dot for the first line, and a square for the others."""
    if number == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="currentColor"/>'
    return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="currentColor"/>'


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
