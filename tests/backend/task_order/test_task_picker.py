"""Tasks that are picked show different pictures, on drives through drawn scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from backend.errors import LabelConfigError, ModelUnavailable, StudioRefused, StudioUnreachable
from backend.feedback.learning.versions import TrainingExample
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from backend.services import Services
from backend.settings import Settings
from backend.task_order.next_tasks import NextTasks
from backend.task_order.task_picker import TaskPicker
from clearclip_core import Example, Segmenter
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.task_order.drives import (
    FRAMES,
    SEEDS,
    drive_of,
    drive_studio,
    frames,
)

SETTINGS = Settings(model="demo", device="cpu", precision="fp32", short_side_px=224)
DRIVES = len(SEEDS)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    made = Services(SETTINGS)
    with made.engine:
        yield made


@pytest.fixture
def studio() -> FakeStudio:
    return drive_studio()


@pytest.fixture
def picker(services: Services, studio: FakeStudio) -> Iterator[TaskPicker]:
    with studio.served() as server:
        yield services.task_picker(LabelStudioClient(server.url, TOKEN, retry_for_s=1))


def drives(report: NextTasks) -> list[int]:
    return sorted(drive_of(each.task) for each in report.tasks)


def test_each_task_is_of_another_drive_and_the_order_is_that_of_the_lots(
    picker: TaskPicker,
) -> None:
    told: list[tuple[int, int]] = []
    first = picker.pick(7, DRIVES, lambda *step: told.append(step), seed=1)
    assert drives(first) == [*range(DRIVES)]
    assert first.looked_at > DRIVES, "the lots have some near-duplicates"
    assert first.near_duplicates == first.looked_at - DRIVES
    assert (first.asked, first.unlabeled, first.examples) == (DRIVES, DRIVES * FRAMES, 0)
    assert (first.shortage, first.left_out) == ("", {})
    assert told == [(done, DRIVES * FRAMES) for done in range(first.looked_at + 1)]
    again, other = (picker.pick(7, DRIVES, seed=seed) for seed in (1, 2))
    assert again.tasks == first.tasks
    assert other.tasks != first.tasks
    assert all(each.picture.startswith("data:image/jpeg;base64,") for each in first.tasks)
    read = NextTasks.from_json(json.loads(json.dumps(first.to_json())))
    assert read == replace(first, seconds=round(first.seconds, 3))


def test_drives_that_have_a_corrected_frame_are_passed_over(
    services: Services, picker: TaskPicker, studio: FakeStudio
) -> None:
    segmenter = services.engine.segmenter()
    for drive in (2, 5):
        frame = [*frames(SEEDS[drive])][1]
        task = drive * FRAMES + 2
        annotation = studio.annotate(task, [])["id"]
        example = Example.of(segmenter.encode(frame), {}, ["sky"], segmenter.prepare(frame).digest)
        stored = TrainingExample(example.digest, example.to_bytes(), "{}")
        services.examples.replace(annotation, 7, [stored])
    try:
        report = picker.pick(7, DRIVES)
    finally:
        for each in services.examples.annotations(7):
            services.examples.forget(each)
    assert drives(report) == [0, 1, 3, 4, 6]
    assert (report.examples, report.unlabeled) == (2, DRIVES * FRAMES - 2)
    assert report.looked_at == report.unlabeled
    assert report.shortage.startswith(f"There are no more: {DRIVES * FRAMES - 2} tasks ")


def test_tasks_that_somebody_has_annotated_or_begun_are_not_drawn(
    picker: TaskPicker, studio: FakeStudio
) -> None:
    studio.annotated = {*range(1, 3 * FRAMES + 1)}
    studio.drafted = {*range(3 * FRAMES + 1, 4 * FRAMES + 1)}
    report = picker.pick(7, DRIVES)
    assert drives(report) == [4, 5, 6]
    assert report.unlabeled == 3 * FRAMES


def test_a_project_that_is_done_has_no_next_task(picker: TaskPicker, studio: FakeStudio) -> None:
    studio.annotated = {*studio.tasks}
    report = picker.pick(7, 3)
    assert (report.tasks, report.unlabeled, report.looked_at) == ((), 0, 0)
    assert report.shortage == "Each task of the project has an annotation or a draft."


def test_where_all_tasks_are_chosen_no_others_are_said_to_be_left(
    picker: TaskPicker, studio: FakeStudio
) -> None:
    studio.tasks = {task: studio.tasks[task] for task in (1, 1 + FRAMES)}
    report = picker.pick(7, 3)
    assert len(report.tasks) == 2
    assert report.shortage == (
        "There are no more: 2 tasks without an annotation or a draft, all tried."
    )


def test_pictures_that_cannot_be_read_are_left_out_with_the_reason(
    picker: TaskPicker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.task_order.task_picker.MOST_LEFT_OUT", 2)
    for task in range(1, FRAMES + 1):
        studio.tasks[task] = {"image": "data:,"}
    studio.tasks[FRAMES + 1] = {"photo": "a"}
    report = picker.pick(7, DRIVES)
    assert drives(report) == [*range(1, DRIVES)]
    assert report.left_out_count == FRAMES + 1
    assert len(report.left_out) == 2
    assert set(report.left_out) < {*range(1, FRAMES + 2)}
    assert all(report.left_out.values())
    assert report.looked_at == DRIVES * FRAMES - FRAMES - 1


def test_of_a_task_with_several_pictures_the_first_counts(
    picker: TaskPicker, studio: FakeStudio
) -> None:
    first, other = studio.tasks[1]["image"], studio.tasks[1 + FRAMES]["image"]
    studio.tasks = {1: {"image": [first, other]}, 2: {"image": [other]}, 3: {"image": [first]}}
    report = picker.pick(7, 3)
    assert len(report.tasks) == 2
    assert 2 in {each.task for each in report.tasks}


def test_no_more_pictures_are_looked_at_than_is_said(
    picker: TaskPicker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.task_order.task_picker.most_looked_at", lambda count: 2 * count)
    picture = studio.tasks[1]["image"]
    studio.tasks = {task: {"image": picture} for task in range(1, 31)}
    report = picker.pick(7, 3)
    assert (len(report.tasks), report.looked_at, report.near_duplicates) == (1, 6, 5)
    assert report.shortage == (
        "6 pictures of 30 tasks were tried, which is the most for 3 tasks. Ask again for others."
    )


def test_a_project_that_is_not_there_or_draws_nothing_is_refused(
    picker: TaskPicker, studio: FakeStudio
) -> None:
    with pytest.raises(StudioRefused):
        picker.pick(8, 3)
    studio.label_config = "<View/>"
    with pytest.raises(LabelConfigError):
        picker.pick(7, 3)


def test_a_label_studio_that_goes_away_ends_the_search(
    services: Services, studio: FakeStudio
) -> None:
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.02, first_pause_s=0.01)
        studio.fault = lambda asked: Answer(503) if asked.path.startswith("/api/tasks") else None
        with pytest.raises(StudioUnreachable):
            services.task_picker(client).pick(7, 3)


def test_without_a_model_no_picture_is_read(studio: FakeStudio) -> None:
    def load() -> Segmenter:
        raise FileNotFoundError("no weights")

    asked: list[str] = []
    services = Services(SETTINGS, Engine(load, lambda: "m", retry_after_s=60))
    with studio.served() as server:
        studio.fault = lambda each: asked.append(each.path)  # type: ignore[func-returns-value]
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        with services.engine, pytest.raises(ModelUnavailable):
            services.task_picker(client).pick(7, 3)
    assert not any(path.startswith("/api/tasks") for path in asked)
