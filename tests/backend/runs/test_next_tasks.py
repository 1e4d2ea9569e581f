"""Tasks that are picked show different pictures, on drives through drawn scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from backend.errors import LabelConfigError, ModelUnavailable, StudioRefused, StudioUnreachable
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.learning.examples import TrainingExample
from backend.runs.next_tasks import NEXT_TASKS, AskedTasks, NextTasks, _at_random
from backend.runs.run import Run
from backend.services import Services
from backend.settings import Settings
from clearclip_core import Example, Segmenter
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer
from tests.backend.runs.conftest import MODEL
from tests.backend.runs.drives import (
    FRAMES,
    SEEDS,
    drive_of,
    drive_studio,
    frames,
)
from tests.backend.runs.maker import Maker

DRIVES = len(SEEDS)


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
    assert first.compared > DRIVES, "some are near-duplicates"
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
        frame = [*frames(SEEDS[drive])][1]
        task = drive * FRAMES + 2
        annotation = studio.annotate(task, [])["id"]
        example = Example.of(segmenter.encode(frame), {}, ["sky"], segmenter.prepare(frame).digest)
        stored = TrainingExample(example.digest, example.to_bytes())
        services.examples.replace(annotation, 7, [stored])
    try:
        report = choose(count=DRIVES)
    finally:
        for each in {made.annotation for made in services.examples.examples(7)}:
            services.examples.forget(each)
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
    assert drives(report) == [4, 5, 6]
    assert report.unlabeled == 3 * FRAMES


def test_a_project_that_is_done_has_no_next_task(choose: Maker, studio: FakeStudio) -> None:
    studio.annotated = {*studio.tasks}
    report = choose(count=3)
    assert (report.tasks, report.unlabeled, report.compared) == ((), 0, 0)
    assert report.shortage == "Each task of the project has an annotation or a draft."


def test_pictures_that_cannot_be_read_are_left_out_with_the_reason(
    choose: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.next_tasks.MOST_LEFT_OUT", 2)
    for task in range(1, FRAMES + 1):
        studio.tasks[task] = {"image": "data:,"}
    studio.tasks[FRAMES + 1] = {"photo": "a"}
    report = choose(count=DRIVES)
    assert drives(report) == [*range(1, DRIVES)]
    assert report.left_out_count == FRAMES + 1
    assert len(report.left_out) == 2
    assert set(report.left_out) < {*range(1, FRAMES + 2)}
    assert all(report.left_out.values())
    assert report.compared == DRIVES * FRAMES - FRAMES - 1


def test_of_a_task_with_several_pictures_the_first_counts(
    choose: Maker, studio: FakeStudio
) -> None:
    first, other = studio.tasks[1]["image"], studio.tasks[1 + FRAMES]["image"]
    studio.tasks = {1: {"image": [first, other]}, 2: {"image": [other]}, 3: {"image": [first]}}
    report = choose(count=3)
    assert len(report.tasks) == 2
    assert 2 in {each.task for each in report.tasks}


def test_no_more_pictures_are_compared_than_is_said(
    choose: Maker, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.runs.next_tasks.COMPARED_PER_TASK", 2)
    picture = studio.tasks[1]["image"]
    studio.tasks = {task: {"image": picture} for task in range(1, 31)}
    report = choose(count=3)
    assert (len(report.tasks), report.compared, report.near_duplicates) == (1, 6, 5)
    assert "6 of 30 tasks were tried" in report.shortage


def test_of_a_large_project_some_pages_are_read_and_no_task_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks are annotated meanwhile: the real server answers 404 for a page that is gone."""
    monkeypatch.setattr("backend.runs.next_tasks._MOST_LISTED", 100)
    studio = FakeStudio("<View/>", {task: {} for task in range(1, 251)})
    wanted, asked = TaskFilter(labeled=False, drafted=False), []
    studio.fault = lambda each: asked.append(each)  # type: ignore[func-returns-value]
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        pages: Counter[int] = Counter()
        for _ in range(20):
            some = islice(_at_random(client, 7, wanted, 250), 8)
            pages.update((int(task.id or 0) - 1) // 100 for task in some)
        assert len(asked) <= 40
        assert min(pages[0], pages[1], pages[2]) > 10
        assert Counter(task.id for task in _at_random(client, 7, wanted, 250)) == Counter(
            range(1, 251)
        )
        drawn = []
        for task in _at_random(client, 7, wanted, 250):
            drawn.append(task.id)
            studio.annotated = {*range(51, 251)}
    assert len(drawn) == len(set(drawn))


def test_a_project_that_is_not_there_or_draws_nothing_is_refused(
    choose: Maker, studio: FakeStudio
) -> None:
    run = Run(id=0, kind="next-tasks", project=8, asked={})
    with pytest.raises(StudioRefused):
        NEXT_TASKS.make(
            choose.services.run_parts(choose.client), run, AskedTasks(), lambda _done, _total: None
        )
    studio.label_config = "<View/>"
    with pytest.raises(LabelConfigError):
        choose(count=3)


def test_a_label_studio_that_goes_away_ends_the_search(
    services: Services, studio: FakeStudio
) -> None:
    with studio.served() as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.02, first_pause_s=0.01)
        studio.fault = lambda asked: Answer(503) if asked.path.startswith("/api/tasks") else None
        with pytest.raises(StudioUnreachable):
            Maker(NEXT_TASKS, services, client)(count=3)


def test_without_a_model_no_picture_is_read(studio: FakeStudio) -> None:
    def load() -> Segmenter:
        raise FileNotFoundError("no weights")

    asked: list[str] = []
    services = Services(Settings(**MODEL), Engine(load, lambda: "m", retry_after_s=60))
    with studio.served() as server:
        studio.fault = lambda each: asked.append(each.path)  # type: ignore[func-returns-value]
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=1)
        with services.engine, pytest.raises(ModelUnavailable):
            Maker(NEXT_TASKS, services, client)(count=3)
    assert not any(path.startswith("/api/tasks") for path in asked)
