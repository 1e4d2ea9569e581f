"""The report as CSV and in a terminal."""

import csv
import io

import pytest
from msgspec import structs

from backend.feedback.report.hours_left import HoursLeft
from backend.feedback.report.statistics import PrelabelReport
from backend.feedback.report.tables import report_text, to_csv
from tests.backend.fakes.report import project_sums, report_of
from tests.backend.feedback.report.read import CAR, CAT, FALSE, OTHER, SAME, read


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r="])
def test_names_are_no_formulas_for_a_spreadsheet(sign: str) -> None:
    change = structs.replace(SAME, label=f"{sign}cmd")
    text = to_csv(report_of([read(1, change, version=f"{sign}HYPERLINK()")]))
    cells = {cell for row in csv.reader(io.StringIO(text)) for cell in row}
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert {cell[-3:] for cell in cells if cell[:1] in ("'", "\ufffd")} == {"cmd", "K()"}


def test_the_csv_has_a_line_for_each_label_in_all_by_period_and_by_version() -> None:
    reads = [read(1, CAR, FALSE, version="v1"), read(2, OTHER, CAT, version="v2", day=1)]
    rows = list(csv.DictReader(io.StringIO(to_csv(report_of(reads)))))
    lines = {(row["period"], row["model_version"], row["label"]): row for row in rows}
    assert len(lines) == len(rows) == (4 + 3 + 3) + (3 + 3)
    dog = lines["2026-11-24", "all", "dog"]
    assert (dog["false"], dog["relabelled"], dog["saved_paint"]) == ("1", "1", "")
    assert lines["all", "v1", "car"]["saved_paint"] == "0.4"
    assert lines["all", "all", "all"]["annotations"] == "2"


def test_figures_are_whole_in_a_terminal_of_80_letters() -> None:
    version = "demo clearclip d4f5aa8d"
    sums = project_sums([read(n, SAME, version=version) for n in range(30)])
    report = PrelabelReport(7, sums, hours_left=HoursLeft(None, 1, 48.0))
    text = report_text(report)
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    for name in ("car", "all", "2026-11-23", version):
        assert [*name.split(), "30", "30", "100.0", "100.0", "100.0", "0", "0"] in lines
    assert "An annotation with a prelabel takes 48 s." in text


def test_names_from_outside_do_nothing_to_the_terminal() -> None:
    change = structs.replace(SAME, label="\x1b[31mcar[bold]")
    text = report_text(report_of([read(1, change, version="\x1b]0;title\x07v1")]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\ufffd[31mcar[bold]" in text
    assert "\ufffd]0;title\ufffdv1" in text
