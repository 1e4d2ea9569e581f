"""Figures that were worked out by hand, from changes that were written by hand."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from typing import Any

import pytest
from msgspec import structs

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.statistics import advice, make_report
from backend.feedback.report.tables import to_csv
from backend.feedback.sums import LabelSums
from tests.backend.fakes.report import project_statistics, project_sums, sums_of

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
CAR = LabelDiff(
    "car",
    corrected=1,
    predicted_px=8,
    true_px=10,
    shared_px=6,
    band_shared_px=1,
    band_px=4,
)
SAME = LabelDiff(
    "car", accepted=1, predicted_px=20, true_px=20, shared_px=20, band_shared_px=9, band_px=9
)
FALSE = LabelDiff("dog", deleted=1, predicted_px=30, band_px=12)
MISSED = LabelDiff("dog", added=1, true_px=10, band_px=10)
OTHER = LabelDiff("dog", relabelled={"cat": 1}, predicted_px=5, band_px=5)
CAT = LabelDiff("cat", received=1, true_px=5, band_px=5)


def test_figures_of_a_label() -> None:
    car = sums_of([CAR, SAME])
    assert (car.pictures, car.prelabels, car.accepted_share) == (2, 2, 0.5)
    assert car.mean_iou == (0.5 + 1) / 2
    assert car.mean_boundary_iou == (0.25 + 1) / 2
    assert car.saved_paint == pytest.approx(1 - (4 + 2) / 30)
    assert (car.false, car.missed, car.harms) == (0, 0, False)


def test_false_missed_and_relabelled_regions() -> None:
    dog, cat = sums_of([FALSE, MISSED, OTHER]), sums_of([CAT])
    assert (dog.false, dog.missed, dict(dog.relabelled), dog.prelabels) == (2, 1, {"cat": 1}, 2)
    assert (dog.mean_iou, dog.accepted_share) == (0, 0)
    assert dog.saved_paint == 1 - (10 + 35) / 10
    assert dog.harms
    assert (cat.false, cat.missed, cat.accepted_share, cat.saved_paint) == (0, 1, None, 0)
    assert not cat.harms  # it has done nothing
    assert cat.misses
    assert not dog.misses  # that it harms is told already


def test_nothing_to_measure() -> None:
    none = sums_of([])
    assert (none.mean_iou, none.saved_paint, none.accepted_share, none.harms) == (
        None,
        None,
        None,
        False,
    )
    assert sums_of([FALSE]).saved_paint is None
    assert sums_of([FALSE]).harms
    empty = project_statistics(7, [])
    assert (empty.periods, empty.versions, empty.harmful) == ((), (), {})


def test_a_project_by_time_and_by_version() -> None:
    reads = [
        read(1, CAR, FALSE, version="v1", seconds=10.0),
        read(2, SAME, version="v2", seconds=30.0, day=1),
        read(3, SAME, version="v1", seconds=0.0, day=1),
        read(4, kind="scratch", seconds=50.0, day=1),
        read(5, kind="copy", seconds=1.0, day=1),
        read(6, kind="skipped", seconds=1.0, day=90),
        read(7, kind="broken", reason="It has no size.", day=2),
    ]
    savings = project_statistics(7, reads, waiting=3)
    assert {kind: count for kind, count in savings.kinds.items() if count != 1} == {
        "compared": 3,
        "converted": 0,
        "foreign": 0,
        "lost": 0,
    }
    assert savings.all.annotations == 3
    assert list(savings.all.labels) == ["car", "dog"]
    assert savings.all.total.saved_paint == pytest.approx(1 - (6 + 30) / 50)
    assert (savings.step, [group.name for group in savings.periods]) == (
        "day",
        ["2026-11-23", "2026-11-24", "2026-11-25"],
    )
    assert [group.total.accepted for group in savings.periods] == [0, 2, 0]
    seconds = savings.all.seconds
    assert (seconds.with_prelabel, seconds.n_with) == (20, 2)  # nobody takes no time
    assert (seconds.without_prelabel, seconds.n_without) == (50, 1)
    assert [(group.name, group.annotations) for group in savings.versions] == [("v1", 2), ("v2", 1)]
    assert savings.broken == {7: "It has no size."}
    assert list(savings.harmful) == ["dog"]


def test_labels_that_are_mostly_missed_are_named_with_what_to_do() -> None:
    scant = LabelDiff("dog", corrected=1, predicted_px=4, true_px=10, shared_px=4, band_px=10)
    savings = project_statistics(7, [read(1, scant, CAR), read(2, CAT)])
    assert list(savings.missing) == ["cat", "dog"]
    assert savings.missing["dog"].startswith("60 % of its pixels were painted by hand")
    assert savings.figures()["missing"] == savings.missing
    assert savings.harmful == {}
    half = LabelDiff("dog", corrected=1, predicted_px=5, true_px=10, shared_px=5, band_px=10)
    assert project_statistics(7, [read(1, half)]).missing == {}


def test_a_picture_counts_once_in_the_lines_of_all_labels() -> None:
    second = structs.replace(CAT, image=1)
    savings = project_statistics(
        7, [read(1, CAR, FALSE, second, version="v1"), read(2, SAME, version="v1")]
    )
    for group in (savings.all, *savings.periods, *savings.versions):
        assert group.total.pictures == 3  # two of the first annotation, one of the second
        assert group.total.mean_iou == (0.5 + 0 + 0 + 1) / 4
    assert savings.all.labels["car"].pictures == 2
    nothing = LabelDiff("dog", accepted=1)
    assert project_statistics(7, [read(1, nothing)]).all.total.pictures == 0


def test_one_label_over_time() -> None:
    reads = [read(1, CAR, FALSE, seconds=9.0), read(2, SAME, day=1), read(3, MISSED, day=2)]
    car = project_statistics(7, reads, label="car")
    assert (car.label, list(car.all.labels), car.kinds["compared"]) == ("car", ["car"], 3)
    assert car.all.total == sums_of([CAR, SAME])
    saved = [group.total.saved_paint for group in car.periods]
    assert saved == [pytest.approx(0.4), 1, None]
    assert car.all.seconds.with_prelabel == 9
    assert project_statistics(7, reads, label="cow").all.total == LabelSums()


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
    assert words in advice(made)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r="])
def test_names_are_no_formulas_for_a_spreadsheet(sign: str) -> None:
    change = LabelDiff(f"{sign}cmd", accepted=1, predicted_px=5, true_px=5, shared_px=5)
    text = to_csv(project_statistics(7, [read(1, change, version=f"{sign}HYPERLINK()")]))
    cells = {cell for row in csv.reader(io.StringIO(text)) for cell in row}
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert {cell[-3:] for cell in cells if cell[:1] in ("'", "\ufffd")} == {"cmd", "K()"}


def test_json_and_csv_say_the_same() -> None:
    reads = [
        read(1, CAR, FALSE, version="v1", seconds=10.0),
        read(2, OTHER, CAT, version="v2", day=1),
    ]
    savings = project_statistics(7, reads)
    figures = json.loads(json.dumps(savings.figures()))
    rows = list(csv.DictReader(io.StringIO(to_csv(savings))))
    names = [(row["period"], row["model_version"], row["label"]) for row in rows]
    assert len(set(names)) == len(names) == (4 + 3 + 3) + (3 + 3)
    for row in rows:
        if row["period"] != "all":
            group = next(g for g in figures["periods"] if g["name"] == row["period"])
        elif row["model_version"] != "all":
            group = next(g for g in figures["versions"] if g["name"] == row["model_version"])
        else:
            group = figures["all"]
        told = group["total"] if row["label"] == "all" else group["labels"][row["label"]]
        for column in ("pictures", "accepted", "false", "missed", "true_px", "saved_paint"):
            assert row[column] == ("" if told[column] is None else str(told[column]))
    (total,) = (row for row in rows if names[rows.index(row)] == ("all", "all", "all"))
    assert (total["seconds_with_prelabel"], total["seconds_without_prelabel"]) == ("10.0", "")
    assert total["annotations"] == "2"
    assert figures["definitions"]["saved paint"].startswith("1 - ")


def test_a_renamed_label_counts_under_its_new_name() -> None:
    old = LabelDiff("House", accepted=1, predicted_px=4, true_px=4, shared_px=4)
    new = LabelDiff("Building", relabelled={"House": 1}, predicted_px=2, true_px=2)
    sums = project_sums([read(1, old), read(2, new)])
    report = make_report(7, sums.renamed({"House": "Building"}))
    (made,) = report.all.labels.items()
    assert (made[0], made[1].pictures, made[1].accepted) == ("Building", 2, 1)
    assert made[1].relabelled == {"Building": 1}
    assert set(make_report(7, sums).all.labels) == {"House", "Building"}, "the sums are unchanged"
