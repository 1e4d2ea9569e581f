"""Read the scores that the data manager of Label Studio sorts tasks by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from backend.label_studio.connection import Connection
from backend.label_studio.task_filter import TaskFilter
from backend.label_studio.task_rows import read_rows

#: Tasks of one request.
_PAGE: Final = 100


class TaskScores:
    """Reads the score of each task: the mean score of its predictions.

    Args:
        connection: calls the API.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, project: int, wanted: TaskFilter) -> Iterator[tuple[int, float]]:
        """Iterate over the tasks that pass a filter and have a score, by ascending id.

        Each page is asked for when the tasks of the one before it are taken.

        Args:
            project: its id.
            wanted: the filter.

        Returns:
            Id of a task, and its score.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        wanted = replace(wanted, scored=True)
        while rows := read_rows(self._connection, project, _PAGE, query=wanted.query())[0]:
            for row in rows:
                if isinstance(row.predictions_score, int | float):
                    yield int(row.id), float(row.predictions_score)
            wanted = replace(wanted, after_id=int(rows[-1].id))
