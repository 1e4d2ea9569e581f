"""Tasks that are picked show different pictures, on drives through drawn scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.learning.examples import TrainingExample
from backend.runs.next_tasks import NEXT_TASKS, NextTasks, _at_random
from backend.services import Services
from clearclip_core import Example
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.runs.conftest import Maker
from tests.backend.runs.scene_project import DRIVE_SEEDS, FRAMES, drive_of, drive_studio, frames

DRIVES = len(DRIVE_SEEDS)


@pytest.fixture
def studio() -> FakeStudio:
    return drive_studio()


@pytest.fixture
def choose(services: Services, studio: FakeStudio) -> Iterator[Maker]:
    with studio.served() as server:
        yield Maker(NEXT_TASKS, services, LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def drives(report: NextTasks) -> list[int]:
    return sorted(drive_of(each.task) for each in report.tasks)


def test_each_task_is_of_another_drive_and_the_order_is_random(choose: Maker) -> None:
    told: list[tuple[int, int | None]] = []
    first = choose(lambda *step: told.append(step), count=DRIVES)
    assert drives(first) == [*range(DRIVES)]
    assert first.near_duplicates == first.compared - DRIVES
    assert (first.asked, first.unlabeled, first.examples) == (DRIVES, DRIVES * FRAMES, 0)
    assert (first.shortage, first.left_out) == ("", {})
    assert told == [(done, DRIVES * FRAMES) for done in range(first.compared)]
    others = [choose(count=DRIVES).tasks for _ in range(3)]
    assert any(each != first.tasks for each in others)
    assert all(each.picture.startswith("data:image/jpeg;base64,") for each in first.tasks)


def test_drives_that_have_a_corrected_frame_are_passed_over(
    services: Services, choose: Maker, studio: FakeStudio
) -> None:
    segmenter = services.engine.segmenter()
    for drive in (2, 5):
        frame = [*frames(DRIVE_SEEDS[drive])][1]
        annotation = studio.annotate(drive * FRAMES + 2, [])["id"]
        example = Example.of(segmenter.encode(frame), {}, ["sky"], segmenter.prepare(frame).digest)
        stored = TrainingExample(example.digest, example.to_bytes())
        services.learner.examples.replace(annotation, 7, [stored])
    try:
        report = choose(count=DRIVES)
    finally:
        for each in {made.annotation for made in services.learner.examples.examples(7)}:
            services.learner.examples.forget(each)
    assert drives(report) == [0, 1, 3, 4, 6]
    assert (report.examples, report.unlabeled) == (2, DRIVES * FRAMES - 2)
    assert report.compared == report.unlabeled
    assert f"{DRIVES * FRAMES - 2} of {DRIVES * FRAMES - 2} tasks were tried" in report.shortage


def test_tasks_that_somebody_has_annotated_or_begun_are_not_drawn(
    choose: Maker, studio: FakeStudio
) -> None:
    studio.annotated = {*range(1, 3 * FRAMES + 1)}
    studio.drafted = {*range(3 * FRAMES + 1, 4 * FRAMES + 1)}
    report = choose(count=DRIVES)
    assert (drives(report), report.unlabeled) == ([4, 5, 6], 3 * FRAMES)
    studio.annotated = {*studio.tasks}
    report = choose(count=3)
    assert (report.tasks, report.unlabeled, report.compared) == ((), 0, 0)
    assert "has an annotation or a draft" in report.shortage


def test_pictures_that_cannot_be_read_are_left_out_with_the_reason(
    choose: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.next_tasks.MOST_LEFT_OUT", 2)
    for task in range(1, FRAMES + 1):
        studio.tasks[task] = {"image": "data:,"}
    studio.tasks[FRAMES + 1] = {"photo": "a"}
    report = choose(count=DRIVES)
    assert drives(report) == [*range(1, DRIVES)]
    assert (len(report.left_out), report.left_out_count) == (2, FRAMES + 1)
    assert set(report.left_out) < {*range(1, FRAMES + 2)}
    assert report.compared == DRIVES * FRAMES - FRAMES - 1


def test_of_a_task_with_several_pictures_the_first_counts(
    choose: Maker, studio: FakeStudio
) -> None:
    first, other = studio.tasks[1]["image"], studio.tasks[1 + FRAMES]["image"]
    studio.tasks = {1: {"image": [first, other]}, 2: {"image": [other]}, 3: {"image": [first]}}
    report = choose(count=3)
    assert {each.task for each in report.tasks} in ({1, 2}, {2, 3})


def test_no_more_pictures_are_compared_than_is_said(
    choose: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.next_tasks.COMPARED_PER_TASK", 2)
    picture = studio.tasks[1]["image"]
    studio.tasks = {task: {"image": picture} for task in range(1, 31)}
    report = choose(count=3)
    assert (len(report.tasks), report.compared, report.near_duplicates) == (1, 6, 5)
    assert "6 of 30 tasks were tried" in report.shortage


def test_of_a_large_project_a_few_tasks_of_each_page_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks are annotated meanwhile: the real server answers 404 for a page that is gone."""
    monkeypatch.setattr("backend.runs.next_tasks._MOST_LISTED", 100)
    studio = FakeStudio("<View/>", {task: {} for task in range(1, 251)})
    wanted = TaskFilter(labeled=False, drafted=False)
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        first: Counter[int] = Counter()
        for _ in range(20):
            drawn = [int(task.id or 0) for task in _at_random(client, 7, wanted, 250, 30)]
            assert Counter((task - 1) // 100 for task in drawn) == {0: 10, 1: 10, 2: 10}
            assert len({*drawn}) == 30
            first[(drawn[0] - 1) // 100] += 1
        assert len(first) == 3, "the order of the pages is random"
        drawn = []
        for task in _at_random(client, 7, wanted, 250, 12):
            drawn.append(int(task.id or 0))
            studio.annotated = {*range(51, 251)}
        assert len(drawn) <= 12
