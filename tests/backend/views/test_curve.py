"""The plot of figures by step, read back from its SVG by an XML parser."""

import xml.etree.ElementTree as ET

import pytest

from backend.feedback.report.periods import Interval
from backend.views.curve import COUNT, MINUTES, Curve, Line


def drawn(curve: Curve) -> ET.Element:
    return ET.fromstring(curve.svg)


def places(curve: Curve, line: int = 0) -> list[tuple[float, float]]:
    """Return the points of a line, of all its parts."""
    dashes = ["none", "5 4"][line]
    found = [
        each for each in drawn(curve).iter("polyline") if each.get("stroke-dasharray") == dashes
    ]
    texts = " ".join(each.attrib["points"] for each in found).split()
    return [(float(x), float(y)) for x, y in (text.split(",") for text in texts)]


def test_higher_figures_lie_higher_and_later_ones_further_right() -> None:
    curve = Curve("IoU", ("v1", "v2", "v3"), (Line("IoU", (0.2, 0.5, 0.4)),))
    (x1, y1), (x2, y2), (x3, y3) = places(curve)
    assert x1 < x2 < x3
    assert y2 < y3 < y1, "the origin of SVG is above"


def test_equal_steps_are_drawn_to_scale() -> None:
    curve = Curve("IoU", ("v1", "v2", "v3"), (Line("IoU", (0.2, 0.4, 0.6)),))
    (_, y1), (_, y2), (_, y3) = places(curve)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)


def test_a_figure_that_was_not_measured_leaves_a_gap() -> None:
    curve = Curve("IoU", ("a", "b", "c", "d"), (Line("IoU", (0.2, 0.3, None, 0.4)),))
    assert len(places(curve)) == 3
    assert len([*drawn(curve).iter("polyline")]) == 2
    assert curve.rows[2] == ("c", "–")


def test_figures_below_zero_are_inside() -> None:
    curve = Curve("Saved", ("a", "b"), (Line("saved", (-0.35, 0.5)),))
    height = float(drawn(curve).attrib["viewBox"].split()[3])
    assert all(0 < y < height for _, y in places(curve))
    texts = [each.text for each in drawn(curve).iter("text")]
    assert texts[:3] == ["-40 %", "0 %", "50 %"]


def test_all_zero_is_drawn() -> None:
    assert len(places(Curve("IoU", ("a", "b"), (Line("IoU", (0.0, 0.0)),)))) == 2


def test_one_figure_alone_is_no_curve() -> None:
    assert not Curve("IoU", ("a", "b"), (Line("IoU", (0.2, None)),)).svg


def test_names_are_text() -> None:
    curve = Curve('"><script>', ("<b>", "v&2"), (Line("IoU", (0.1, 0.2)),))
    assert {each.tag for each in drawn(curve).iter()} <= {
        *("svg", "line", "text", "polyline", "circle", "rect")
    }
    assert drawn(curve).get("aria-label") == '"><script>'


def test_no_style_that_the_pages_would_refuse() -> None:
    curve = Curve("IoU", ("v1", "v2"), (Line("IoU", (0.1, 0.2)), Line("left", (0.3, 0.2))))
    assert not any("style" in each.attrib for each in drawn(curve).iter())


def test_a_figure_between_gaps_is_seen_and_a_long_line_has_no_marks() -> None:
    lone = Curve("IoU", ("a", "b", "c", "d"), (Line("IoU", (0.2, None, 0.3, None)),))
    assert len([*drawn(lone).iter("circle")]) == 2
    steps = tuple(f"v{number}" for number in range(13))
    long = Curve("IoU", steps, (Line("IoU", (0.5,) * 13),))
    assert not [*drawn(long).iter("circle")]


def test_of_many_steps_the_last_is_named() -> None:
    steps = tuple(f"v{number}" for number in range(1, 51))
    curve = Curve("IoU", steps, (Line("IoU", tuple(number / 50 for number in range(50))),))
    named = [each.text for each in drawn(curve).iter("text")][3:]
    assert named[0] == "v50"
    assert len(named) <= 5


def test_the_axis_begins_at_zero_where_no_figure_is_below() -> None:
    curve = Curve("IoU", ("v1", "v2"), (Line("IoU", (0.2, 0.5)),))
    assert next(drawn(curve).iter("text")).text == "0 %"


def test_ranges_are_drawn_to_scale_and_told_in_the_table() -> None:
    intervals = [Interval(60.0, 30.0, 90.0), None, Interval(90.0, 84.0, 96.0)]
    curve = Curve("Time", ("a", "b", "c"), (Line.of("time", intervals),), unit=MINUTES)
    wide, narrow = (each for each in drawn(curve).iter("line") if each.get("stroke-width") == "8")

    def height(bar: ET.Element) -> float:
        return float(bar.attrib["y1"]) - float(bar.attrib["y2"])

    assert height(wide) == pytest.approx(5 * height(narrow), rel=0.03)
    assert curve.rows[0] == ("a", "1.0 min (0.5 min to 1.5 min)")
    assert curve.rows[1] == ("b", "–")


def test_a_range_above_all_figures_is_inside() -> None:
    curve = Curve("n", ("a", "b"), (Line("n", (2.0, 3.0), ((1.0, 28.0), None)),), unit=COUNT)
    bar = next(each for each in drawn(curve).iter("line") if each.get("stroke-width") == "8")
    assert float(bar.attrib["y2"]) > 0
    assert [each.text for each in drawn(curve).iter("text")][2] == "30"
