"""Label Studio's API through its SDK, against a stand-in; tests/e2e asks the real one."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import StudioRefused
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import LocalServer

VERSION = "demo clearclip 12ab"


def test_the_tasks_that_are_wanted(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.annotated = {1, 3}
    for task in (1, 2):
        studio.add(task, VERSION)
    studio.add(4, "other")

    def ids(wanted: TaskFilter) -> list[Any]:
        return [task.id for task in client.tasks(7, wanted, size=4)]

    assert ids(TaskFilter()) == [1, 2, 3, 4]
    assert ids(TaskFilter(without_version=VERSION)) == [3, 4, 5, 6]
    assert ids(TaskFilter(without_version=VERSION, unlabeled=True, after_id=4)) == [5, 6, 7, 8]
    assert ids(TaskFilter(with_version=VERSION)) == [1, 2]
    assert ids(TaskFilter(min_predictions=1)) == [1, 2, 4]
    assert ids(TaskFilter(ids=(2, 9, 999), without_version=VERSION)) == [9]
    assert ids(TaskFilter(ids=())) == []
    assert client.count(7, TaskFilter(without_version=VERSION)) == 248
    assert client.count(7, TaskFilter(ids=tuple(range(1, 1000)), unlabeled=True)) == 248
    (first,) = client.tasks(7, TaskFilter(), size=1)
    assert (first.data, first.project_id) == ({"image": "1.png"}, 7)


def test_all_ids_are_walked_through_while_they_change(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    walked = []
    for task in client.ids(7, TaskFilter(without_version=VERSION)):
        walked.append(task)
        studio.add(task, VERSION)  # drops out of the pages that are still to come
    assert walked == list(range(1, 251))
    assert len(walked) > 2 * PAGE


def test_possible_duplicates_are_found_without_reading_predictions(
    client: LabelStudioClient, studio: FakeStudio, server: LocalServer
) -> None:
    for task in studio.tasks:
        studio.add(task, "older")
        studio.add(task, VERSION)
    studio.add(5, VERSION)
    studio.add(205, VERSION)
    studio.add(6, "older")  # it may be of any version
    assert [id_ for page in client.possible_duplicates(7, VERSION) for id_ in page] == [5, 6, 205]
    assert len(server.asked) == 4
    assert [id_ for page in client.possible_duplicates(7, VERSION, [4, 5]) for id_ in page] == [5]
    assert list(client.possible_duplicates(7, VERSION, [])) == []


def test_the_ids_of_a_view(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.views[3] = [*range(250, 100, -1), 5]
    assert client.view_ids(7, 3) == [5, *range(101, 251)]
    with pytest.raises(StudioRefused, match="no such project, view or task"):
        client.view_ids(7, 4)


def test_stored_predictions_are_listed_and_deleted(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    first, second = studio.add(5, VERSION, 100), studio.add(5, "other", 200)
    stored = client.stored(5)
    assert [(each.id, each.version, each.created) for each in stored] == [
        (first, VERSION, 100),
        (second, "other", 200),
    ]
    client.delete(first)
    client.delete(first)
    assert [each.id for each in client.stored(5)] == [second]


def test_a_task_that_is_gone_has_no_predictions(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.add(5, VERSION)
    del studio.tasks[5]
    assert client.stored(5) == []


def test_settings_without_a_token_make_no_client() -> None:
    assert LabelStudioClient.from_settings(Settings()) is None
    assert LabelStudioClient.from_settings(Settings(label_studio_url="http://studio")) is None
    settings = Settings(label_studio_url="http://studio", label_studio_api_key=TOKEN)  # type: ignore[arg-type]
    client = LabelStudioClient.from_settings(settings)
    assert client is not None
    assert client.url == "http://studio"
