"""What the plots show, read out of their SVG."""

from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.charts import PLOTS, plots
from backend.feedback.report.statistics import PrelabelReport
from tests.backend.fakes.report import project_statistics

DAY = 86400.0


def savings_of(
    *shares: float, kind: AnnotationOrigin = "compared", name: str = "label {}"
) -> PrelabelReport:
    """A label a share of saved paint, a day an annotation."""
    return project_statistics(7, reads_of(*shares, kind=kind, name=name))


def reads_of(
    *shares: float, kind: AnnotationOrigin = "compared", name: str = "label {}"
) -> list[ReadAnnotation]:
    reads = []
    for number, share in enumerate(shares):
        wrong = round(100 * (1 - share))
        change = LabelDiff(
            name.format(number), 1, predicted_px=100 + wrong, true_px=100, shared_px=100
        )
        changes = (change,) if kind == "compared" else ()
        reads.append(
            ReadAnnotation(number, 7, 1, kind, "v", 1, 10.0 + number, DAY * number, changes=changes)
        )
    return reads


def texts(svg: Element) -> list[str]:
    return [element.text or "" for element in svg.iter() if element.tag.endswith("text")]


def test_a_bar_for_each_label_the_best_first_and_harm_in_its_own_colour() -> None:
    svg = fromstring(plots(savings_of(0.5, -0.25, 1.0, -3.0))["saved-paint"])
    bars = list(svg.iter("rect"))
    assert [bar.get("class") for bar in bars] == ["one", "one", "harm", "harm"]
    widths = [float(bar.get("width", 0)) for bar in bars]
    assert abs(widths[1] - widths[0] / 2) < 0.1
    assert abs(widths[2] - widths[0] / 4) < 0.1
    assert widths[3] == widths[0]  # cut off at -100 %, and says so
    shown = texts(svg)
    order = [shown.index(f"label {number}") for number in (2, 0, 1, 3)]
    assert order == sorted(order)
    assert {"100.0 %", "50.0 %", "-25.0 %", "below -100 %"} <= set(shown)


def test_a_label_that_nobody_has_painted_has_no_bar_and_no_figure() -> None:
    """Its prediction was deleted: there are no annotated pixels to compare it with."""
    deleted = LabelDiff("nobody's", 1, predicted_px=50, true_px=0, shared_px=0)
    read = ReadAnnotation(9, 7, 1, "compared", "v", 1, 10.0, DAY, changes=(deleted,))
    svg = fromstring(plots(project_statistics(7, [*reads_of(0.5, -0.25), read]))["saved-paint"])
    assert len(list(svg.iter("rect"))) == 2
    shown = texts(svg)
    assert shown.index("nobody's") > shown.index("label 1")
    assert "nothing annotated" in shown
    assert "-100.0 %" not in shown
    alone = fromstring(plots(project_statistics(7, [read]))["saved-paint"])
    assert list(alone.iter("rect")) == []
    (text,) = (each for each in alone.iter("text") if each.text == "nothing annotated")
    width = float(alone.get("viewBox", "").split()[2])
    assert float(text.get("x", width)) + 7.5 * len("nothing annotated") <= width


def test_lines_over_time_stay_in_the_picture_and_say_what_they_are() -> None:
    svg = fromstring(plots(savings_of(0.5, 0.75, -0.5, 1.0))["over-time"])
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    points = [(float(c.get("cx", -1)), float(c.get("cy", -1))) for c in svg.iter("circle")]
    assert len(points) == 3 * 4
    assert all(0 < x < width and 0 < y < height for x, y in points)
    assert {"accepted", "mean IoU", "saved paint", "1970-01-01"} <= set(texts(svg))
    dashes = {line.get("stroke-dasharray") for line in svg.iter("polyline")}
    assert len(dashes) == 3, "they differ without their colours too"
    saved = [y for _, y in points[-4:]]
    assert saved[3] < saved[1] < saved[0] < saved[2]


def test_a_file_brings_its_colours_and_a_page_does_not() -> None:
    """The page's policy refuses styles that are not its own."""
    made = savings_of(0.5, -0.5)
    for name in PLOTS:
        inside, file = plots(made)[name], plots(made, standalone=True)[name]
        assert "style" not in inside
        assert "<style>" in file
        assert fromstring(file).tag == "{http://www.w3.org/2000/svg}svg"
        assert texts(fromstring(file)) == texts(fromstring(inside))


def test_names_are_text_however_they_are_written() -> None:
    name = '<script>alert("{}")</script>&\x00 and much more of it'
    svg = fromstring(plots(savings_of(0.5, name=name))["saved-paint"])
    assert not list(svg.iter("script"))
    assert '<script>alert("0")<…' in texts(svg)
