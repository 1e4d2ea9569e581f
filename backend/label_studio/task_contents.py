"""Read the annotations of one task."""

from __future__ import annotations

import logging

from backend.label_studio.connection import Connection
from backend.label_studio.records import DAMAGED, Annotation, AnnotationRow, read_annotation

log = logging.getLogger(__name__)


class TaskContents:
    """Reads what people have said about tasks of one Label Studio.

    Args:
        connection: calls the API.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def annotations(self, task: int) -> list[Annotation]:
        """Return the annotations of a task with their regions; none of a deleted task.

        Raises:
            BadRequest: they are too large to be read.
            StudioRefused: the token may not see it.
            StudioUnreachable: Label Studio does not answer.
        """
        place = f"/api/tasks/{task}/annotations/"
        found = self._connection.find(place, list[AnnotationRow], whose="annotations") or []
        for each in found:
            if each.is_damaged:
                log.warning(
                    "Task %d goes without its annotation %d, which %s", task, each.id, DAMAGED
                )
        return [read_annotation(each) for each in found if not each.is_damaged]
