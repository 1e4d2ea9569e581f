"""Run the tasks of requests, a few of them at the same time."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from backend.label_studio.requests import Task

#: Tasks of batches of one project that are worked on at the same time: while the model has one
#: picture, the next ones are fetched and the last ones drawn. Each may hold a picture in memory.
AHEAD: Final = 4


#: Threads that do so for all projects together; as many more for tasks that somebody has opened.
_WORKERS: Final = 2 * AHEAD


#: One task's entry: a prediction, or an empty list, which Label Studio asks for again.
Entry = dict[str, Any] | list[Any]


@dataclass(frozen=True)
class Outcome:
    """What has become of a task.

    Attributes:
        entry: its prediction; ``[]`` where there is none, or none for this answer.
        reason: why there is none; empty where it is only not there yet, or elsewhere.
        may_pass: whether the same may succeed a little later, since a host was away.
    """

    entry: Entry
    reason: str = ""
    may_pass: bool = False


Work = Callable[[Task], Outcome]


#: A project, and whether its tasks were opened or came in a batch.
_Line = tuple[int | None, bool]


@dataclass(eq=False)
class Item:
    """A task that waits for its turn, or is worked on; `context` is that of who asked first."""

    task: Task
    project: int | None
    work: Work
    key: str = ""
    due: float = 0.0
    opened: bool = False
    outcome: Future[Outcome] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)

    @property
    def line(self) -> _Line:
        return self.project, self.opened


class TaskRunner:
    """Works on the tasks of batches, `AHEAD` of one project at the same time; projects in turn."""

    def __init__(self) -> None:
        self._workers = {
            opened: ThreadPoolExecutor(_WORKERS, thread_name_prefix=name)
            for opened, name in ((False, "batch"), (True, "opened"))
        }
        self._lock = threading.Lock()
        self._lines: dict[_Line, deque[Item]] = {}
        self._busy: Counter[_Line] = Counter()

    def outcomes(
        self, tasks: Sequence[Task], version: str, project: int | None, work: Work
    ) -> list[Outcome]:
        """What becomes of tasks, in their order; waits for all of them.

        Args:
            tasks: of one project.
            version: the ``model_version`` of their predictions.
            project: projects take turns.
            work: what makes a task's outcome; an error that it raises is raised here.
        """
        items = [Item(task, project, work) for task in tasks]
        self._start(items)
        return [item.outcome.result() for item in items]

    def opened(self, task: Task, version: str, project: int | None, work: Work) -> Outcome:
        """What becomes of a task that somebody has opened and looks at; see `outcomes`."""
        return work(task)

    def count_waiting(self) -> dict[int | None, int]:
        """How many tasks are not done yet, by project."""
        counts: Counter[int | None] = Counter()
        with self._lock:
            for (project, _), line in self._lines.items():
                counts[project] += len(line)
            for (project, _), busy in self._busy.items():
                counts[project] += busy
        return dict(+counts)

    def _start(self, items: Iterable[Item]) -> None:
        with self._lock:
            for item in items:
                self._lines.setdefault(item.line, deque()).append(item)
                self._fill(item.line)

    def _fill(self, which: _Line) -> None:
        """Hand tasks of a line to the threads, as many as it may have there; under the lock."""
        line = self._lines.get(which)
        while line and self._busy[which] < AHEAD:
            self._busy[which] += 1
            item = line.popleft()
            self._workers[item.opened].submit(item.context.run, self._run, item)
        if not line:
            self._lines.pop(which, None)

    def _run(self, item: Item) -> None:
        try:
            outcome = self._make(item)
        except Exception as error:  # noqa: BLE001 -- one task of a batch: whoever waits hears of it
            self._fail([item, *self._rest(item.line)], error)
        else:
            item.outcome.set_result(outcome)
        finally:
            with self._lock:
                self._busy[item.line] -= 1
                self._fill(item.line)

    def _make(self, item: Item) -> Outcome:
        return item.work(item.task)

    def _rest(self, which: _Line) -> list[Item]:
        """All that wait in a line: what is no fault of one task would only hit each in turn."""
        with self._lock:
            return list(self._lines.pop(which, ()))

    def _fail(self, items: Sequence[Item], error: Exception) -> None:
        for item in items:
            item.outcome.set_exception(error)
