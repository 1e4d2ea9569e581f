"""The tasks of a project of Label Studio with their annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import Annotation, TaskRow
from backend.label_studio.requests import Task


@dataclass(frozen=True)
class TaskRecord:
    """A task with what people and models have said about it.

    Attributes:
        annotations: all of them, skipped ones included.
        versions: id of each prediction -> its ``model_version``.
        prediction: version and regions of the newest prediction, where it counts.
    """

    task: Task
    annotations: tuple[Annotation, ...] = ()
    versions: Mapping[int, str] = field(default_factory=dict)
    prediction: tuple[str, Sequence[Any]] | None = None


@dataclass(frozen=True)
class TaskReference:
    """A task by its id, to be read in a thread."""

    id: int
    read: Callable[[], TaskRecord] = field(repr=False, compare=False)


#: Threads that wait for Label Studio, and what is read ahead: they bound the memory.
READERS: Final = 4
READ_AHEAD: Final = 8


@dataclass(frozen=True, eq=False)
class ProjectTasks:
    """The tasks of a project, or those of a view of the data manager.

    With `with_predictions`, the newest prediction of tasks without an annotation counts.
    """

    _client: LabelStudioClient
    _project: int
    _view: int | None = None
    _with_predictions: bool = False

    @property
    def name(self) -> str:
        """Address of the project, by which a folder knows what it was made of."""
        return f"{self._client.url}/projects/{self._project}"

    def count(self) -> int | None:
        """Return the number of tasks; None with a view, of which all ids are listed first."""
        return None if self._view is not None else self._client.newest_change(self._project)[1]

    def references(self) -> Iterator[TaskReference]:
        """Iterate over the tasks, page by page."""
        among: set[int] | None = None
        if self._view is not None:
            among = set(self._client.view_ids(self._project, self._view))
        for found in self._client.changed_tasks(self._project, 0.0):
            for task in found:
                if among is None or task.id in among:
                    yield TaskReference(task.id, partial(self._read, task))

    def _read(self, found: TaskRow) -> TaskRecord:
        task = Task(found.id, self._project, found.data)
        if found.annotations:
            annotations = tuple(self._client.annotations(found.id))
            began = any(each.prediction is not None for each in annotations)
            stored = self._client.stored(found.id) if found.total_predictions and began else ()
            return TaskRecord(task, annotations, {each.id: each.version for each in stored})
        counts = self._with_predictions and found.total_predictions
        stored = self._client.stored(found.id) if counts else ()
        newest = self._client.prediction(stored[-1].id) if stored else None
        if newest is None:  # none, or deleted meanwhile: it would count as an empty picture
            return TaskRecord(task)
        regions = newest.result if isinstance(newest.result, list) else ()
        return TaskRecord(task, prediction=(newest.version, regions))
