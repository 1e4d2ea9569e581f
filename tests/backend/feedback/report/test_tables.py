"""Tables as a terminal gets them."""

from __future__ import annotations

import io

from rich.console import Console

from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.tables import print_report
from tests.backend.fakes.report import project_statistics


def test_figures_are_whole_in_a_terminal_of_80_letters() -> None:
    change = LabelDiff("car", accepted=1, predicted_px=5, true_px=5, shared_px=5)
    read = ReadAnnotation(
        1,
        7,
        1,
        "compared",
        "demo clearclip d4f5aa8d",
        created=1.7e9,
        seconds=48.0,
        changes=(change,),
    )
    file = io.StringIO()
    print_report(project_statistics(7, [read]), Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    figures = ["1", "1", "100.0", "100.0", "–", "100.0", "0", "0", "0"]
    for name in ("car", "all", "2023-11-14"):
        assert [name, *figures] in [line.split() for line in lines]
    assert ["demo", "clearclip", "d4f5aa8d", "48", "-"] in [line.split() for line in lines]
    assert "…" not in file.getvalue()


def test_names_from_outside_do_nothing_to_the_terminal() -> None:
    label, version = "\x1b[31mcar[bold]", "\x1b]0;title\x07v1"
    change = LabelDiff(label, accepted=1, predicted_px=5, true_px=5, shared_px=5)
    savings = project_statistics(
        7, [ReadAnnotation(1, 7, 1, "compared", version, created=1.7e9, changes=(change,))]
    )
    file = io.StringIO()
    print_report(savings, Console(file=file, width=200))
    text = file.getvalue()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\ufffd[31mcar[bold]" in text
    assert "\ufffd]0;title\ufffdv1" in text
