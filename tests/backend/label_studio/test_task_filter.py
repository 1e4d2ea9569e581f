"""Which tasks Label Studio is asked for."""

import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.label_studio import FakeStudio

VERSION = "demo clearclip 12ab"


@pytest.fixture
def sorted_studio(studio: FakeStudio) -> FakeStudio:
    """Tasks 1 and 2 have a prediction of the version, 4 of another; 1, 3 and 9 are annotated."""
    studio.annotated = {1, 3}
    for task in (1, 2):
        studio.add(task, VERSION)
    studio.add(4, "other")
    studio.drafted = {8}
    studio.annotate(9, [])
    return studio


@pytest.mark.usefixtures("sorted_studio")
@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        (TaskFilter(), [1, 2, 3, 4]),
        (TaskFilter(without_version=VERSION), [3, 4, 5, 6]),
        (TaskFilter(without_version=VERSION, labeled=False, after_id=4), [5, 6, 7, 8]),
        (TaskFilter(with_version=VERSION), [1, 2]),
        (TaskFilter(min_predictions=1), [1, 2, 4]),
        (TaskFilter(predicted=True), [1, 2, 4]),
        (TaskFilter(predicted=False), [3, 5, 6, 7]),
        (TaskFilter(ids=(2, 9, 999), without_version=VERSION), [9]),
        (TaskFilter(ids=()), []),
        (TaskFilter(labeled=True, min_annotations=1), [9]),
        (TaskFilter(drafted=True), [8]),
    ],
)
def test_the_tasks_that_are_wanted(
    client: LabelStudioClient, wanted: TaskFilter, first: list[int]
) -> None:
    assert [task.id for task in client.tasks(7, wanted, size=4)] == first


@pytest.mark.usefixtures("sorted_studio")
@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (TaskFilter(without_version=VERSION), 248),
        (TaskFilter(ids=tuple(range(1, 1000)), labeled=False), 247),
    ],
)
def test_the_tasks_that_are_wanted_are_counted(
    client: LabelStudioClient, wanted: TaskFilter, count: int
) -> None:
    assert client.count(7, wanted) == count


def test_a_task_comes_with_its_data_and_its_project(client: LabelStudioClient) -> None:
    (first,) = client.tasks(7, TaskFilter(), size=1)
    assert (first.data, first.project_id) == ({"image": "1.png"}, 7)
