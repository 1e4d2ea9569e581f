"""The tasks of a project of Label Studio with their annotations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from backend.errors import BackendError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import Annotation, TaskRow, WholeTask
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
#: Tasks of one request, whose masks are in memory at once.
_TOGETHER: Final = 16


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
            wanted = [task for task in found if among is None or task.id in among]
            for start in range(0, len(wanted), _TOGETHER):
                some = wanted[start : start + _TOGETHER]
                ids = tuple(task.id for task in some if self._counts(task))
                whole = _WholeTasks(self._client, self._project, ids)
                yield from (TaskReference(t.id, partial(self._read, t, whole)) for t in some)

    def _counts(self, task: TaskRow) -> bool:
        predicted = self._with_predictions and task.total_predictions
        return bool(task.annotations or predicted)

    def _read(self, found: TaskRow, tasks: _WholeTasks) -> TaskRecord:
        task = Task(found.id, self._project, found.data)
        whole = tasks.take(found.id) if self._counts(found) else None
        if whole is None:  # nothing counts, or it is gone
            return TaskRecord(task)
        predictions = sorted(whole.predictions, key=lambda each: each.id)
        if found.annotations:
            versions = {each.id: each.version for each in predictions}
            return TaskRecord(task, tuple(whole.annotations), versions)
        if not predictions:  # deleted meanwhile: it would count as an empty picture
            return TaskRecord(task)
        return TaskRecord(task, prediction=(predictions[-1].version, predictions[-1].regions))


class _WholeTasks:
    """Tasks that the first thread asks for together that takes one of them."""

    def __init__(self, client: LabelStudioClient, project: int, ids: tuple[int, ...]) -> None:
        self._ask = partial(client.whole_tasks, project)
        self._ids = ids
        self._found: dict[int, WholeTask] = {}
        self._lock = threading.Lock()

    def take(self, task: int) -> WholeTask | None:
        """Return one task, once; None where it is gone."""
        with self._lock:
            ids, self._ids = self._ids, ()
            if ids:
                with suppress(BackendError):  # one is broken or too large: each is asked for then
                    self._found = {each.id: each for each in self._ask(ids)}
            found = self._found.pop(task, None)
        return found or next(iter(self._ask((task,))), None)
