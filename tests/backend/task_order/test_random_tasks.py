"""Tasks are drawn each once, in any order, and of large projects without listing them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.task_order import random_tasks
from backend.task_order.random_tasks import RandomTasks
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Asked

UNLABELED = TaskFilter(unlabeled=True, undrafted=True)


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("<View/>", {task: {} for task in range(1, 251)})


@pytest.fixture
def client(studio: FakeStudio) -> Iterator[LabelStudioClient]:
    with studio.served() as server:
        yield LabelStudioClient(server.url, TOKEN, retry_for_s=1)


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_tasks, "MOST_LISTED", 100)


def draw(client: LabelStudioClient, seed: int = 0) -> list[object]:
    return [task.id for task in RandomTasks(client, 7, UNLABELED, random.Random(seed))]


def test_a_small_project_is_shuffled(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.annotated, studio.drafted = {1, 2}, {3}
    drawn = draw(client)
    assert sorted(drawn, key=str) == sorted(range(4, 251), key=str)
    assert drawn == draw(client)
    assert drawn != draw(client, 1)
    assert drawn != sorted(drawn, key=int)  # type: ignore[call-overload]


@pytest.mark.usefixtures("is_large")
def test_all_tasks_of_a_large_project_are_drawn_once(client: LabelStudioClient) -> None:
    assert Counter(draw(client)) == Counter(range(1, 251))


@pytest.mark.usefixtures("is_large")
def test_few_requests_draw_some_tasks_of_a_large_project_from_all_its_pages(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    asked: list[Asked] = []
    studio.fault = lambda each: asked.append(each)  # type: ignore[func-returns-value]
    pages: Counter[int] = Counter()
    for seed in range(20):
        tasks = RandomTasks(client, 7, UNLABELED, random.Random(seed))
        pages.update((int(task.id or 0) - 1) // 100 for task in islice(tasks, 16))
    assert len(asked) <= 20 * (1 + 16 / 4)
    assert min(pages[0], pages[1], pages[2]) > 50, "the last page is half a page"


@pytest.mark.usefixtures("is_large")
def test_tasks_that_are_annotated_meanwhile_do_not_end_the_drawing(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    """The real server answers 404 for a page that is not there any more."""
    drawn: list[object] = []
    for task in RandomTasks(client, 7, UNLABELED, random.Random(3)):
        drawn.append(task.id)
        if len(drawn) == 5:
            studio.annotated = {*range(51, 251)}
    assert len(drawn) == len(set(drawn))
    assert set(drawn[9:]) <= {*range(1, 51)}
    assert len(drawn) >= 50


def test_tasks_that_are_annotated_between_the_count_and_the_list_do_not_count(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    tasks = RandomTasks(client, 7, UNLABELED, random.Random(0))
    studio.annotated = {*range(1, 101)}
    assert len(list(tasks)) == 150
    assert tasks.total == 150
