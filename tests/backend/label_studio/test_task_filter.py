"""Which tasks Label Studio is asked for."""

from typing import Any

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.label_studio import FakeStudio

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
    assert ids(TaskFilter(without_version=VERSION, labeled=False, after_id=4)) == [5, 6, 7, 8]
    assert ids(TaskFilter(with_version=VERSION)) == [1, 2]
    assert ids(TaskFilter(min_predictions=1)) == [1, 2, 4] == ids(TaskFilter(predicted=True))
    assert not {1, 2, 4} & {*ids(TaskFilter(predicted=False))}
    assert ids(TaskFilter(ids=(2, 9, 999), without_version=VERSION)) == [9]
    assert ids(TaskFilter(ids=())) == []
    studio.annotate(9, [])
    studio.drafted = {8}
    assert ids(TaskFilter(labeled=True, min_annotations=1)) == [9]
    assert ids(TaskFilter(drafted=True)) == [8]
    assert client.count(7, TaskFilter(without_version=VERSION)) == 248
    assert client.count(7, TaskFilter(ids=tuple(range(1, 1000)), labeled=False)) == 247
    (first,) = client.tasks(7, TaskFilter(), size=1)
    assert (first.data, first.project_id) == ({"image": "1.png"}, 7)
