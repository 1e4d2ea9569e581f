"""Tables as a terminal gets them, and the chart read out of its SVG."""

from __future__ import annotations

import io
from xml.etree.ElementTree import fromstring

from rich.console import Console

from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.report.statistics import PrelabelReport
from backend.feedback.report.tables import over_time, print_report
from tests.backend.fakes.report import project_sums, report_of

DAY = 86400.0


def read(number: int, change: LabelDiff, version: str, created: float) -> ReadAnnotation:
    return ReadAnnotation(number, 7, 1, "compared", version, created=created, changes=(change,))


def printed(report: PrelabelReport, width: int) -> str:
    file = io.StringIO()
    print_report(report, Console(file=file, width=width))
    return file.getvalue()


def test_figures_are_whole_in_a_terminal_of_80_letters() -> None:
    change = LabelDiff("car", accepted=1, predicted_px=5, true_px=5, shared_px=5)
    sums = project_sums([read(1, change, "demo clearclip d4f5aa8d", 1.7e9)])
    hours_left = HoursLeft(None, 1, 0, seconds_with=48.0)
    text = printed(PrelabelReport(7, sums, hours_left=hours_left), width=80)
    lines = [line.split() for line in text.splitlines()]
    figures = ["1", "1", "100.0", "100.0", "100.0", "0", "0"]
    for name in ("car", "all", "2023-11-14", "demo clearclip d4f5aa8d"):
        assert [*name.split(), *figures] in lines
    assert "48 s with a prelabel, not measured without" in text
    assert "…" not in text


def test_names_from_outside_do_nothing_to_the_terminal() -> None:
    label, version = "\x1b[31mcar[bold]", "\x1b]0;title\x07v1"
    change = LabelDiff(label, accepted=1, predicted_px=5, true_px=5, shared_px=5)
    text = printed(report_of([read(1, change, version, 1.7e9)]), width=200)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\ufffd[31mcar[bold]" in text
    assert "\ufffd]0;title\ufffdv1" in text


def test_lines_over_time_stay_in_the_picture_and_say_what_they_are() -> None:
    changes = [
        LabelDiff("car", 1, predicted_px=100 + wrong, true_px=100, shared_px=100)
        for wrong in (50, 25, 150, 0)
    ]
    reads = [read(n, change, "v", DAY * n) for n, change in enumerate(changes)]
    svg = fromstring(over_time(project_sums(reads)))
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    points = [(float(c.get("cx", -1)), float(c.get("cy", -1))) for c in svg.iter("circle")]
    assert len(points) == 3 * 4
    assert all(0 < x < width and 0 < y < height for x, y in points)
    assert {"accepted", "mean IoU", "saved paint", "1970-01-01"} <= {e.text for e in svg.iter()}
    dashes = {line.get("stroke-dasharray") for line in svg.iter("polyline")}
    assert len(dashes) == 3, "they differ without their colours too"
    saved = [y for _, y in points[-4:]]
    assert saved[3] < saved[1] < saved[0] < saved[2]
    assert "style" not in {name for element in svg.iter() for name in element.attrib}
    assert over_time(project_sums([])) == ""
