"""Figures worked out by hand, from changes written by hand, and how they are shown."""

import pytest
from msgspec import structs

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import PRELABELLED, AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.hours_left import HoursLeft, at_pace, estimate
from backend.feedback.report.statistics import FEW, PrelabelReport, harm
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.fakes.report import project_sums, report_of, sums_of
from tests.backend.feedback.report.read import CAR, CAT, FALSE, OTHER, SAME, read

MISSED = LabelDiff("dog", added=1, true_px=10)
BLOT = LabelDiff("dog", corrected=1, predicted_px=10, true_px=2, shared_px=2)


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
    assert none.mean_iou is none.saved_paint is none.accepted_share is None
    assert not none.harms
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
        read(8, SAME, kind="unchecked", day=1),
        ReadAnnotation(9, 7, 0, "broken", reason="HTTP 500."),  # of 0.2.0: no task, no day
    ]
    report = report_of(reads, waiting=3)
    zeros = dict.fromkeys(("copy", "converted", "reviewed", "repaired", "foreign", "lost"), 0)
    counts = {"compared": 3, "unchecked": 1, "scratch": 1, "skipped": 1, "broken": 2}
    assert report.kinds == counts | zeros
    sums = report.sums
    assert (sums.all.compared, {*sums.all.labels}) == (3, {"car", "dog"})
    assert sums.all.total.saved_paint == pytest.approx(1 - (6 + 30) / 50)
    accepted = {day: group.total.accepted for day, group in sums.periods.items()}
    assert sums.step == "day"
    assert accepted == {"2026-11-23": 0, "2026-11-24": 2, "2026-11-25": 0}
    assert {name: group.compared for name, group in sums.versions.items()} == {"v1": 2, "v2": 1}
    assert sums.broken == {7: "Task 7: It has no size.", 9: "HTTP 500."}


def test_what_was_drawn_anew_saves_nothing_and_blames_no_label() -> None:
    """A script, or somebody who redraws, deletes regions and leaves others with equal masks."""
    pixels = {"predicted_px": 20, "true_px": 20, "shared_px": 20, "redrawn_px": 20}
    anew = LabelDiff("car", deleted=1, added=1, **pixels)
    report = report_of([read(n, anew, version="v1") for n in range(10)])
    car = report.sums.all.labels["car"]
    assert (car.mean_iou, car.saved_paint, car.false, car.missed) == (1, 0, 10, 10)
    assert (report.harmful, report.missing) == ({}, {})


def test_a_label_is_blamed_by_the_iou_of_its_masks_alone() -> None:
    """One picture has a large false region; on the others the masks are nearly right."""
    right = LabelDiff("car", corrected=1, predicted_px=10, true_px=10, shared_px=9)
    large = LabelDiff("car", deleted=1, predicted_px=900)
    report = report_of([read(n, right) for n in range(9)] + [read(9, large)])
    assert report.sums.all.labels["car"].saved_paint < -8
    assert report.harmful == {}


@pytest.mark.parametrize(("pictures", "harmful"), [(FEW - 1, []), (FEW, ["dog"])])
def test_few_pictures_raise_no_alarm(pictures: int, harmful: list[str]) -> None:
    report = report_of([read(n, FALSE) for n in range(pictures)])
    assert [*report.harmful] == harmful


def test_labels_that_are_mostly_missed_are_named_with_what_to_do() -> None:
    scant = LabelDiff("dog", corrected=1, predicted_px=4, true_px=10, shared_px=4)
    report = report_of([read(n, scant, CAR, CAT) for n in range(FEW)])
    assert [*report.missing] == ["cat", "dog"]
    assert report.missing["dog"].fact == "60 % of its pixels were painted by hand"
    assert report.figures()["missing"]["dog"] == str(report.missing["dog"])
    assert report.harmful == {}
    half = LabelDiff("dog", corrected=1, predicted_px=5, true_px=10, shared_px=5)
    assert report_of([read(n, half) for n in range(FEW)]).missing == {}


def test_advice_is_about_the_newest_versions_that_have_enough_pictures() -> None:
    bad = [read(n, FALSE, version="old") for n in range(9)]
    good = structs.replace(SAME, label="dog")
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
        ([FALSE] * 6, "6 of its 6 regions were deleted, with a mean IoU of 0.0 %."),
        ([OTHER] * 6, 'became "cat"'),
        ([BLOT] * 6, "80 % of its"),
    ],
)
def test_advice_for_labels_that_do_harm(changes: list[LabelDiff], words: str) -> None:
    made = sums_of(changes)
    assert made.harms
    assert words in str(harm(made))


def test_a_renamed_label_counts_under_its_new_name() -> None:
    old = LabelDiff("House", accepted=1, predicted_px=4, true_px=4, shared_px=4)
    new = LabelDiff("Building", relabelled={"House": 1}, predicted_px=2, true_px=2)
    sums = project_sums([read(1, old), read(2, new)])
    (made,) = PrelabelReport(7, sums.renamed({"House": "Building"})).sums.all.labels.items()
    assert (made[0], made[1].pictures, made[1].accepted) == ("Building", 2, 1)
    assert made[1].relabelled == {"Building": 1}
    assert {*sums.all.labels} == {"House", "Building"}, "the sums are unchanged"


def keep(
    annotations: AnnotationStore, first: int, times_s: list[float], kind: AnnotationOrigin
) -> None:
    for n, seconds in enumerate(times_s, start=first):
        annotations.mark(7, [n])
        made = read(n, kind=kind, day=n, seconds=seconds)
        annotations.complete(annotations.lease(1)[0], made)


def test_the_last_annotations_with_a_prediction_tell_the_pace() -> None:
    annotations = AnnotationStore(Database("sqlite://"), "me")
    keep(annotations, 1, [900.0] * 20, "compared")
    keep(annotations, 21, [30.0, 60.0] * 25, "compared")
    keep(annotations, 100, [120.0] * 9, "scratch")
    keep(annotations, 200, [1.0] * 20, "copy")
    studio = FakeStudio(brush_config("red"), {n: {"image": "a.png"} for n in range(1, 252)})
    studio.annotated = set(range(1, 131))
    studio.annotate(251, [], was_cancelled=True)
    times = annotations.newest_times(7, PRELABELLED, 100)
    assert [each.seconds for each in times] == [60.0, 30.0] * 25 + [900.0] * 20
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
        found = estimate(annotations, client, 7)
        assert found == HoursLeft(120, 50, 45, at_pace(120, times), 120)
        assert (found.expected.hours, found.missing) == (120 * 45 / 3600, "")
        assert "so far there are 9" in HoursLeft(120, 9, 45).missing
        assert estimate(annotations, client, 8) is None, "nothing was measured"
        studio.fault = lambda _: Answer(503)
        silent = estimate(annotations, client, 7)
    assert silent == HoursLeft(None, 50, 45) == estimate(annotations, None, 7)
    assert "does not say" in silent.missing
