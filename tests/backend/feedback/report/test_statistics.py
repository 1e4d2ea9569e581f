"""Figures that were worked out by hand, from changes that were written by hand."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timezone
from typing import Any

import pytest
from msgspec import structs

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.statistics import PrelabelReport, harm
from backend.feedback.report.tables import to_csv
from tests.backend.fakes.report import project_sums, report_of, sums_of

MONDAY = datetime(2026, 11, 23, 12, tzinfo=timezone.utc).timestamp()
DAY = 86400.0


def read(
    annotation: int,
    *changes: LabelDiff,
    kind: AnnotationOrigin = "compared",
    day: float = 0,
    **more: Any,
) -> ReadAnnotation:
    created = MONDAY + DAY * day
    return ReadAnnotation(annotation, 7, annotation, kind, created=created, changes=changes, **more)


#: 10 px of which 6 were hit, 2 beside: IoU 6/12, and 6 px of work instead of 10.
CAR = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
SAME = LabelDiff("car", accepted=1, predicted_px=20, true_px=20, shared_px=20)
FALSE = LabelDiff("dog", deleted=1, predicted_px=30)
MISSED = LabelDiff("dog", added=1, true_px=10)
OTHER = LabelDiff("dog", relabelled={"cat": 1}, predicted_px=5)
CAT = LabelDiff("cat", received=1, true_px=5)


def test_figures_of_a_label() -> None:
    car = sums_of([CAR, SAME])
    assert (car.pictures, car.prelabels, car.accepted_share) == (2, 2, 0.5)
    assert car.mean_iou == (0.5 + 1) / 2
    assert car.saved_paint == pytest.approx(1 - (4 + 2) / 30)
    assert (car.false, car.missed, car.harms) == (0, 0, False)
    dog, cat = sums_of([FALSE, MISSED, OTHER]), sums_of([CAT])
    assert (dog.false, dog.missed, dog.relabelled, dog.prelabels) == (2, 1, {"cat": 1}, 2)
    assert (dog.mean_iou, dog.accepted_share) == (0, 0)
    assert dog.saved_paint == 1 - (10 + 35) / 10
    assert (dog.harms, dog.misses) == (True, False), "that it harms is told already"
    assert (cat.false, cat.missed, cat.accepted_share, cat.saved_paint) == (0, 1, None, 0)
    assert (cat.harms, cat.misses) == (False, True), "it has done nothing"


def test_nothing_to_measure() -> None:
    none, false = sums_of([]), sums_of([FALSE])
    assert (none.mean_iou, none.saved_paint, none.accepted_share, none.harms) == (
        *[None] * 3,
        False,
    )
    assert (false.saved_paint, false.harms) == (None, True)
    empty = report_of([])
    assert (empty.sums.periods, empty.sums.versions, empty.harmful) == ({}, {}, {})


def test_a_project_by_time_and_by_version() -> None:
    reads = [
        read(1, CAR, FALSE, version="v1"),
        read(2, SAME, version="v2", day=1),
        read(3, SAME, version="v1", day=1),
        read(4, kind="scratch", day=1),
        read(6, kind="skipped", day=90),
        read(7, kind="broken", reason="It has no size.", day=2),
    ]
    report = report_of(reads, waiting=3)
    zeros = dict.fromkeys(("copy", "converted", "foreign", "lost"), 0)
    assert report.kinds == {"compared": 3, "scratch": 1, "skipped": 1, "broken": 1} | zeros
    sums = report.sums
    assert (sums.all.compared, {*sums.all.labels}) == (3, {"car", "dog"})
    assert sums.all.total.saved_paint == pytest.approx(1 - (6 + 30) / 50)
    accepted = {day: group.total.accepted for day, group in sums.periods.items()}
    assert sums.step == "day"
    assert accepted == {"2026-11-23": 0, "2026-11-24": 2, "2026-11-25": 0}
    assert {name: group.compared for name, group in sums.versions.items()} == {"v1": 2, "v2": 1}
    assert sums.broken == {7: "It has no size."}
    assert [*report.harmful] == ["dog"]


def test_labels_that_are_mostly_missed_are_named_with_what_to_do() -> None:
    scant = LabelDiff("dog", corrected=1, predicted_px=4, true_px=10, shared_px=4)
    report = report_of([read(1, scant, CAR), read(2, CAT)])
    assert [*report.missing] == ["cat", "dog"]
    assert report.missing["dog"].startswith("60 % of its pixels were painted by hand")
    assert (report.figures()["missing"], report.harmful) == (report.missing, {})
    half = LabelDiff("dog", corrected=1, predicted_px=5, true_px=10, shared_px=5)
    assert report_of([read(1, half)]).missing == {}


def test_advice_is_about_the_newest_versions_that_have_enough_pictures() -> None:
    bad = [read(n, FALSE, version="old") for n in range(9)]
    good = LabelDiff("dog", accepted=1, predicted_px=9, true_px=9, shared_px=9)
    newer = [read(20 + n, good, version="new", day=1) for n in range(5)]
    assert [*report_of([*bad, *newer[1:]]).harmful] == ["dog"], "four say too little"
    assert report_of([*bad, *newer]).harmful == {}


def test_a_picture_counts_once_in_the_lines_of_all_labels() -> None:
    second = structs.replace(CAT, image=1)
    sums = project_sums([read(1, CAR, FALSE, second, version="v1"), read(2, SAME, version="v1")])
    for group in (sums.all, *sums.periods.values(), *sums.versions.values()):
        assert group.total.pictures == 3  # two of the first annotation, one of the second
        assert group.total.mean_iou == (0.5 + 0 + 0 + 1) / 4
    assert sums.all.labels["car"].pictures == 2
    assert project_sums([read(1, LabelDiff("dog", accepted=1))]).all.total.pictures == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([FALSE] * 6, "Deleted: 6 of its 6 regions."),
        ([OTHER] * 6, 'became "cat"'),
        (
            [LabelDiff("dog", corrected=1, predicted_px=10, true_px=2, shared_px=2)] * 6,
            "80 % of its",
        ),
        ([FALSE] * 2, "So far: 2 pictures only."),
    ],
)
def test_advice_for_labels_that_do_harm(changes: list[LabelDiff], words: str) -> None:
    made = sums_of(changes)
    assert made.harms
    assert words in harm(made)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r="])
def test_names_are_no_formulas_for_a_spreadsheet(sign: str) -> None:
    change = LabelDiff(f"{sign}cmd", accepted=1, predicted_px=5, true_px=5, shared_px=5)
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


def test_a_renamed_label_counts_under_its_new_name() -> None:
    old = LabelDiff("House", accepted=1, predicted_px=4, true_px=4, shared_px=4)
    new = LabelDiff("Building", relabelled={"House": 1}, predicted_px=2, true_px=2)
    sums = project_sums([read(1, old), read(2, new)])
    (made,) = PrelabelReport(7, sums.renamed({"House": "Building"})).sums.all.labels.items()
    assert (made[0], made[1].pictures, made[1].accepted) == ("Building", 2, 1)
    assert made[1].relabelled == {"Building": 1}
    assert {*sums.all.labels} == {"House", "Building"}, "the sums are unchanged"
