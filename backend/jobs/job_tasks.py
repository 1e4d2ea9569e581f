"""Which tasks a job is about, and in which order it comes to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from backend.database.leases import MOST_DEATHS
from backend.label_studio.task_filter import TaskFilter

#: The fewest tasks that are predicted and written together.
CHUNK: Final = 25


@dataclass(frozen=True)
class JobTasks:
    """The tasks of a job, as they are when it asks.

    Attributes:
        wanted: all of them; without ids where the job is about all tasks of its project.
        failed: those that have failed in it.
        deaths: task -> how often the process has died at it.

    >>> tasks = JobTasks(TaskFilter(), failed=frozenset({4}), deaths={1: 1, 2: 2, 3: 3, 4: 1, 5: 1})
    >>> tasks.suspects(), tasks.hopeless()
    ([(1, 5), (2,)], [3])
    """

    wanted: TaskFilter
    failed: frozenset[int] = frozenset()
    deaths: Mapping[int, int] = field(default_factory=dict)

    def lacking(self, version: str) -> TaskFilter:
        """Return those that have no prediction of a version yet."""
        return replace(self.wanted, without_version=version)

    @property
    def touched(self) -> frozenset[int]:
        """Those at which something has happened, so that they do not come first."""
        return self.failed | self.deaths.keys()

    def suspects(self) -> list[tuple[int, ...]]:
        """Return the tasks to come last: the process has died at them, or beside them.

        Returns:
            Groups of tasks to predict together. From the second death on a task is alone, so that
            it costs no other one.
        """
        left = self.deaths.keys() - self.failed - {*self.hopeless()}
        once = sorted(task for task in left if self.deaths[task] == 1)
        often = sorted(left - {*once}, key=lambda task: (self.deaths[task], task))
        groups = [tuple(once[start : start + CHUNK]) for start in range(0, len(once), CHUNK)]
        return groups + [(task,) for task in often]

    def hopeless(self) -> list[int]:
        """Return the tasks at which the process has died too often: they are to fail."""
        return [
            task
            for task, number in self.deaths.items()
            if number >= MOST_DEATHS and task not in self.failed
        ]
