"""Agreement of a project's people against counts by hand."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.runs import agreement
from backend.runs.agreement import AGREEMENT, Agreement, shrink
from backend.runs.run_store import AskedNothing, Run
from backend.services import Services
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import pixels_of
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.shared_project import HEIGHT, WIDTH, boxed, brushed, shared_studio

PIXELS = HEIGHT * WIDTH
LEFT, RIGHT = (0, 0, 20, 20), (20, 0, 20, 20)


def measured(
    studio: FakeStudio, advance: Callable[[int, int | None], None] = lambda _done, _all: None
) -> Agreement:
    images = Services(Settings()).images
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.1, first_pause_s=0.02)
        parts: Any = SimpleNamespace(client=client, images=images)
        run = Run(id=0, kind=AGREEMENT.name, project=7, asked={})
        report: Agreement = AGREEMENT.make(parts, run, AskedNothing(), advance)
        return report


Told = list[tuple[int, int | None]]


@pytest.fixture(scope="module")
def two_tasks() -> tuple[Agreement, Told]:
    """Task 1: all of the car is shared, but one has a tree more. Task 2: half of the car is."""
    told: Told = []
    report = measured(
        shared_studio(
            [(1, [brushed(LEFT)]), (2, [brushed(LEFT), brushed((20, 0, 10, 20), "tree")])],
            [(1, [brushed((0, 0, 20, 10))]), (2, [brushed((0, 0, 10, 10))])],
            [(1, [brushed(LEFT)])],
        ),
        lambda *step: told.append(step),
    )
    return report, told


def test_tasks_of_two_people_are_read_and_counted(two_tasks: tuple[Agreement, Told]) -> None:
    report, told = two_tasks
    assert (report.tasks, report.pictures, report.annotations) == (2, 2, 4)
    assert told == [(1, 2), (2, 2)], "the task of one person is not read"
    assert report.left_out == {}


def test_the_disputed_area_is_a_mean_over_the_pictures(two_tasks: tuple[Agreement, Told]) -> None:
    assert two_tasks[0].disputed == pytest.approx((200 / PIXELS + 100 / PIXELS) / 2)


def test_labels_have_the_pictures_that_show_them(two_tasks: tuple[Agreement, Told]) -> None:
    car, tree = two_tasks[0].labels
    assert (car.label, car.pictures, car.iou) == ("car", 2, pytest.approx((1 + 0.5) / 2))
    assert car.disputed == pytest.approx((0 + 100 / PIXELS) / 2)
    assert (tree.label, tree.pictures, tree.iou) == ("tree", 1, 0.0)
    assert tree.disputed == pytest.approx(200 / PIXELS)


def test_confusions_have_their_share_of_the_area(two_tasks: tuple[Agreement, Told]) -> None:
    confusions = two_tasks[0].confusions
    assert [(each.label, each.other) for each in confusions] == [("tree", ""), ("car", "")]
    shares = [each.share for each in confusions]
    assert shares == pytest.approx([200 / PIXELS / 2, 100 / PIXELS / 2])


def test_people_are_named_and_agree_alike(two_tasks: tuple[Agreement, Told]) -> None:
    ann, bob = two_tasks[0].annotators
    assert (ann.annotator, ann.name, ann.pictures) == (1, "Ann Berg", 2)
    assert (bob.annotator, bob.name, bob.pictures) == (2, "bob@example.com", 2)
    assert ann.iou == bob.iou == pytest.approx(((1 + 0) / 2 + 0.5) / 2)


def test_the_most_disputed_picture_is_shown_first(two_tasks: tuple[Agreement, Told]) -> None:
    first, second = two_tasks[0].disputes
    assert (first.task, first.people, first.disputed) == (1, 2, pytest.approx(200 / PIXELS))
    assert [each.label for each in first.labels] == ["tree"]
    assert (second.task, second.labels[0].iou) == (2, pytest.approx(0.5))
    assert first.picture.startswith("data:image/jpeg;base64,")


def test_each_picture_counts_once_however_many_people_there_are() -> None:
    """Of three pairs on task 1 one agrees on the car; the pair of task 2 agrees."""
    report = measured(
        shared_studio(
            [(1, [brushed(LEFT)]), (2, [brushed(LEFT)]), (3, [brushed(RIGHT)])],
            [(1, [brushed(LEFT)]), (2, [brushed(LEFT)])],
        )
    )
    assert report.labels[0].iou == pytest.approx((1 / 3 + 1) / 2)
    figures = {each.annotator: (each.pictures, each.iou) for each in report.annotators}
    mean = pytest.approx((1 / 2 + 1) / 2)
    assert figures == {1: (2, mean), 2: (2, mean), 3: (1, 0.0)}
    assert [each.annotator for each in report.annotators] == [1, 2, 3], "no name: last"
    assert report.disputes[0].disputed == 1


def test_the_newest_of_each_person_counts_and_no_other() -> None:
    studio = shared_studio([(1, [brushed(LEFT)]), (2, [brushed(LEFT)])], [], [], [])
    studio.annotate(1, [brushed(RIGHT)], created=-5.0, completed_by=1)
    studio.annotate(1, [brushed(RIGHT)], was_cancelled=True, completed_by=3)
    for task, person in ((2, 1), (4, None)):
        studio.annotate(task, [brushed(LEFT)], completed_by=1)
        studio.annotate(task, [brushed(RIGHT)], created=9.0, completed_by=person)
    report = measured(studio)
    assert (report.tasks, report.annotations, report.left_out) == (1, 2, {})
    assert (report.labels[0].iou, report.disputed, report.disputes) == (1.0, 0.0, ())


def test_a_copy_of_another_persons_annotation_does_not_count() -> None:
    studio = shared_studio([(1, [brushed(LEFT)])], [(1, [brushed(LEFT)]), (2, [brushed(RIGHT)])])
    for task, person in ((1, 2), (2, 2), (2, 1)):
        origin = next(
            each["id"]
            for each in studio.annotations.values()
            if (each["task"], each["completed_by"]) == (task, 1)
        )
        made = [brushed(RIGHT if person == 1 else LEFT)]
        studio.annotate(task, made, created=9.0, completed_by=person, parent_annotation=origin)
    report = measured(studio)
    assert (report.tasks, report.annotations) == (1, 2), "task 1 has one person's and its copy"
    assert report.labels[0].iou == 1.0, "one's own copy counts"


def test_a_rectangle_around_what_is_painted_does_not_count() -> None:
    around = boxed((0, 0, WIDTH, HEIGHT), "car")
    report = measured(shared_studio([(1, [brushed(LEFT), around]), (2, [brushed(LEFT)])]))
    assert [(each.label, each.iou) for each in report.labels] == [("car", 1.0)]


def test_a_task_that_cannot_be_compared_says_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    larger, broken = brushed(LEFT) | {"original_width": WIDTH + 1}, brushed(LEFT)
    del broken["value"]["rle"][20:]
    tasks = [
        [(1, [brushed(LEFT)]), (2, [brushed(LEFT)])],
        [(1, [brushed(LEFT)]), (2, [larger])],
        [(1, [brushed(LEFT)]), (2, [broken])],
        [(1, [brushed(LEFT)]), (2, [brushed(LEFT) | {"value": None}])],
    ]
    monkeypatch.setattr(agreement, "MOST_LEFT_OUT", 2)
    report = measured(shared_studio(*tasks))
    assert report.tasks == 1
    assert ([*report.left_out], report.left_out_count) == ([2, 3], 3)
    assert "different sizes" in report.left_out[2]
    assert "brush region of car is broken" in report.left_out[3]
    nothing = measured(shared_studio([(1, []), (2, [])]))
    assert (nothing.tasks, nothing.disputed) == (0, None), "nobody has a region yet: no failure"
    with pytest.raises(ValueError, match=r"No task can be compared\. .*different sizes"):
        measured(shared_studio(*tasks[1:]))


def test_of_many_disputes_the_largest_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_DISPUTES", 2)
    widths = (3, 7, 5, 7)
    studio = shared_studio(*([(1, [brushed((0, 0, width, 20))]), (2, [])] for width in widths))
    studio.tasks[2], studio.users = {"image": "data:,"}, None
    report = measured(studio)
    assert ([each.task for each in report.disputes], report.dispute_count) == ([2, 4], 4)
    assert [bool(each.picture) for each in report.disputes] == [False, True], "one cannot be read"
    assert report.labels[0].iou == 0, "who submits nothing has left it out"
    assert [each.name for each in report.annotators] == ["", ""], "nobody may list people"


def test_each_picture_of_a_list_is_compared_by_itself() -> None:
    studio = shared_studio([])
    studio.label_config = studio.label_config.replace('value="$image"', 'valueList="$images"')
    studio.tasks[1] = {"images": [studio.tasks[1]["image"]] * 3}
    for person, indices in ((1, (0, 2)), (2, (0,))):
        result = [brushed(LEFT) | {"item_index": index} for index in indices]
        studio.annotate(1, result, completed_by=person)
    report = measured(studio)
    assert (report.tasks, report.pictures, report.annotations) == (1, 2, 2)
    assert [(each.item_index, each.disputed) for each in report.disputes] == [(2, 0.5)]


def test_what_is_in_dispute_is_seen_also_where_it_is_thin() -> None:
    disputed = np.zeros((600, 960), bool)
    disputed[200:400, 300:600] = True
    disputed[498:499] = True
    small = shrink(disputed)
    assert small.shape == (300, 480)
    assert small[100:200, 150:300].all()
    assert small[249].all(), "a line of one pixel, which is half of one here"
    assert small.sum() == 100 * 150 + 480
    assert shrink(np.ones((3, 5), bool)).shape == (3, 5), "it is not made larger"
    report = measured(shared_studio([(1, [brushed(LEFT)]), (2, [])]))
    drawn = pixels_of(report.disputes[0].picture).astype(int)
    assert drawn[10, 5, 0] > drawn[10, 5, 1] + 80, "pink"
    assert np.abs(drawn[10, 35] - 128).max() < 8, "the picture itself"
