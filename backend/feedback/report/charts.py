"""Draws charts as SVG, for a page or as files.

Charts have no style attributes: the page's content security policy allows none. In a page they take
its colours, light or dark; a file has colours of its own, on white. Series differ by dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from backend.feedback.report.definitions import in_percent
from backend.feedback.report.statistics import PrelabelReport
from backend.telemetry.logs import printable

_WIDTH: Final = 520.0
_LETTER: Final = 7.5  # width of a letter, about
_ROW: Final = 24.0
_HEIGHT: Final = 250.0  # of a plot over time
_TICKS: Final = 4

#: Most periods of which each has a point on its line; the points of more would hide the dashes.
_MOST_POINTS: Final = 40

#: Most labels of a chart, and letters of a name: more cannot be read.
_MOST_LABELS: Final = 40
_LONGEST_NAME: Final = 20

_STYLE: Final = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Arial, sans-serif; }
.paper { fill: #fff; } .ink { fill: #1b2230; } .soft { fill: #5b6678; } .rule { stroke: #c9d0d9; }
.one { fill: #2f5fd0; stroke: #2f5fd0; } .two { fill: #1a7f4b; stroke: #1a7f4b; }
.three { fill: #9a6200; stroke: #9a6200; } .harm { fill: #c0362c; stroke: #c0362c; }
.line { fill: none; stroke-width: 2; }
"""

_CLASSES: Final = ("one", "two", "three")
_DASHES: Final = ("", "7 3", "2 3")


@dataclass(frozen=True)
class Series:
    """A line of a chart: one value for each period, None where there is none."""

    name: str
    values: tuple[float | None, ...]


#: The names of the charts.
PLOTS: Final = ("saved-paint", "over-time", "seconds")


def plots(report: PrelabelReport, standalone: bool = False) -> dict[str, str]:
    """Draw all charts that there are figures for: name -> SVG."""
    made: dict[str, Element] = {}
    labels = {
        name: statistics.saved_paint
        for name, statistics in report.all.labels.items()
        if statistics.saved_paint is not None or statistics.harms
    }
    if labels:
        made["saved-paint"] = _bars("Saved paint by label", labels)
    starts = [group.name for group in report.periods]
    shares = [
        Series("accepted", tuple(group.total.accepted_share for group in report.periods)),
        Series("mean IoU", tuple(group.total.mean_iou for group in report.periods)),
        Series("saved paint", tuple(group.total.saved_paint for group in report.periods)),
    ]
    if any(value is not None for series in shares for value in series.values):
        made["over-time"] = _lines(f"Prelabels by {report.step}", starts, shares, _whole_percent)
    seconds = [
        Series("with prelabel", tuple(g.seconds.with_prelabel for g in report.periods)),
        Series("without", tuple(g.seconds.without_prelabel for g in report.periods)),
    ]
    seconds = [each for each in seconds if any(value is not None for value in each.values)]
    if seconds:
        title = f"Seconds an annotation, median by {report.step}"
        made["seconds"] = _lines(title, starts, seconds, lambda value: f"{value:g}")
    return {name: _written(svg, standalone) for name, svg in made.items()}


def _bars(title: str, values: dict[str, float | None]) -> Element:
    """Draw a bar for each value, the best first; values below -1 are cut off there.

    None stands last, without a bar: of a label that was predicted and never annotated.
    """
    rows = sorted(values.items(), key=lambda row: math.inf if row[1] is None else -row[1])
    rows = (
        rows
        if len(rows) <= _MOST_LABELS
        else rows[: _MOST_LABELS // 2] + rows[-_MOST_LABELS // 2 :]
    )
    names = [_short(name) for name, _ in rows]
    left = 16 + _LETTER * max(map(len, names))
    right = _WIDTH - 8 - _LETTER * len("100.0 %")
    low = -1.0 if any(value is not None and value < 0 for _, value in rows) else 0.0
    svg = _canvas(title, 40 + _ROW * len(rows) + 24)

    def x(value: float) -> float:
        return left + (max(low, min(1.0, value)) - low) / (1 - low) * (right - left)

    bottom = 40 + _ROW * len(rows)
    for tick in (low, 0.0, 1.0) if low else (0.0, 0.5, 1.0):
        _rule(svg, x(tick), 36, x(tick), bottom)
        _text(svg, x(tick), bottom + 16, _whole_percent(tick), anchor="middle", soft=True)
    for number, ((_, value), name) in enumerate(zip(rows, names, strict=True)):
        y = 40 + _ROW * number
        _text(svg, left - 8, y + 15, name, anchor="end")
        if value is None:
            _text(svg, x(0) + 6, y + 15, "nothing annotated", soft=True)
            continue
        start, end = sorted((x(0), x(value)))
        bar = {"x": start, "y": y + 4, "width": max(end - start, 1), "height": _ROW - 8}
        _add(svg, "rect", bar, "harm" if value < 0 else "one")
        shown = "below -100 %" if value < -1 else in_percent(value)
        inside = value < 0 and x(value) - left < _LETTER * len(shown)
        at = x(0) + 6 if inside else end + 6 if value >= 0 else start - 6
        _text(svg, at, y + 15, shown, anchor="start" if inside or value >= 0 else "end", soft=True)
    return svg


def _lines(
    title: str, starts: Sequence[str], series: Sequence[Series], shown: Callable[[float], str]
) -> Element:
    """Draw lines over periods, with a point for each where they are few."""
    svg = _canvas(title, _HEIGHT + 30)
    found = [value for each in series for value in each.values if value is not None]
    low, high = _range(found, shares=shown is _whole_percent)
    left, right, top, bottom = 56.0, _WIDTH - 16, 66.0, _HEIGHT

    def x(number: int) -> float:
        return left + (right - left) * ((number + 0.5) / len(starts))

    def y(value: float) -> float:
        return bottom - (max(low, value) - low) / (high - low) * (bottom - top)

    for tick in range(_TICKS + 1):
        value = low + (high - low) * tick / _TICKS
        _rule(svg, left, y(value), right, y(value))
        _text(svg, left - 8, y(value) + 4, shown(value), anchor="end", soft=True)
    every = -(-len(starts) // 5)
    for number in range(0, len(starts), every):
        _text(svg, x(number), bottom + 20, starts[number], anchor="middle", soft=True)
    at = left
    for each, class_, dashes in zip(series, _CLASSES, _DASHES, strict=False):
        _line(svg, [(at, 46), (at + 22, 46)], class_, dashes)
        _text(svg, at + 28, 50, each.name)
        at += 44 + _LETTER * len(each.name)
        points = [(x(n), y(value)) for n, value in enumerate(each.values) if value is not None]
        _line(svg, points, class_, dashes)
        is_seen = len(starts) <= _MOST_POINTS or len(points) == 1  # a line of one point is none
        for point in points if is_seen else ():
            _add(svg, "circle", {"cx": point[0], "cy": point[1], "r": 3}, class_)
    return svg


def _range(values: Sequence[float], shares: bool) -> tuple[float, float]:
    """Return the ends of an axis, so that its ticks are round numbers."""
    if shares:
        return (-1.0 if min(values) < 0 else 0.0), 1.0
    least = max(values) / _TICKS
    steps = (nice * 10.0**power for power in range(-2, 9) for nice in (1, 2, 2.5, 5))
    return 0.0, _TICKS * next(step for step in steps if step >= least)


def _whole_percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _canvas(title: str, height: float) -> Element:
    box = f"0 0 {_WIDTH:g} {height:g}"
    svg = Element("svg", {"viewBox": box, "role": "img", "aria-label": title, "class": "plot"})
    _text(svg, 4, 20, title, size="15", bold=True)
    return svg


def _add(svg: Element, tag: str, numbers: dict[str, float], class_: str) -> Element:
    attributes = {name: f"{number:.1f}".removesuffix(".0") for name, number in numbers.items()}
    return SubElement(svg, tag, attributes | {"class": class_})


def _rule(svg: Element, x1: float, y1: float, x2: float, y2: float) -> None:
    _add(svg, "line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, "rule")


def _line(svg: Element, points: Sequence[tuple[float, float]], class_: str, dashes: str) -> None:
    line = SubElement(svg, "polyline", {"class": f"{class_} line"})
    line.set("points", " ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    if dashes:
        line.set("stroke-dasharray", dashes)


def _text(
    svg: Element,
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    soft: bool = False,
    size: str = "13",
    bold: bool = False,
) -> None:
    element = _add(svg, "text", {"x": x, "y": y}, "soft" if soft else "ink")
    element.set("text-anchor", anchor)
    element.set("font-size", size)
    if bold:
        element.set("font-weight", "600")
    element.text = printable(text)


def _written(svg: Element, standalone: bool) -> str:
    if standalone:
        svg.set("xmlns", "http://www.w3.org/2000/svg")
        width, height = svg.get("viewBox", "").split()[2:]
        svg.set("width", width)
        svg.set("height", height)
        style = Element("style")
        style.text = _STYLE
        svg.insert(0, style)
        svg.insert(1, Element("rect", {"width": "100%", "height": "100%", "class": "paper"}))
    return tostring(svg, encoding="unicode")
