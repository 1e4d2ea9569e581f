"""Draw tasks of a project by lot, without listing a large project."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from backend.errors import StudioRefused
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter

#: So many tasks are listed, all of them; of more, pages are drawn.
MOST_LISTED: Final = 1000

#: Tasks that are taken of a page: these follow each other, as frames of a video do, so that few are
#: taken. Each page costs Label Studio a count over the project.
_OF_PAGE: Final = 4


class RandomTasks:
    """Tasks that pass a filter, in random order, each once.

    Up to `MOST_LISTED` tasks are listed and shuffled. Of a larger project, random pages are asked
    for one after the other, and a few tasks of each are taken: to draw some costs no more there.

    Args:
        client: Label Studio.
        project: id of the project.
        wanted: the filter.
        lots: draws the order.

    Attributes:
        total: number of the tasks when they were counted last.
    """

    def __init__(
        self,
        client: LabelStudioClient,
        project: int,
        wanted: TaskFilter,
        lots: random.Random,
    ) -> None:
        self._client = client
        self._project = project
        self._wanted = wanted
        self._lots = lots
        self.total = client.count(project, wanted)

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        if self.total <= MOST_LISTED:
            tasks = list(self._client.all_tasks(self._project, self._wanted))
            self.total = len(tasks)
            self._lots.shuffle(tasks)
            yield from tasks
            return
        seen: set[object] = set()
        while len(seen) < self.total:
            fresh = [task for task in self._random_page() if task.id not in seen]
            chosen = self._lots.sample(fresh, min(_OF_PAGE, len(fresh)))
            seen.update(task.id for task in chosen)
            yield from chosen

    def _random_page(self) -> list[Task]:
        number = 1 + self._lots.randrange(max(1, -(-self.total // PAGE)))
        try:
            tasks, self.total = self._client.page(self._project, self._wanted, number)
        except StudioRefused:
            # Tasks that were annotated meanwhile pass no more, so that the last page may be gone.
            tasks, self.total = self._client.page(self._project, self._wanted, 1)
        return tasks
