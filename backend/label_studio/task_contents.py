"""Read the annotations of one task."""

from __future__ import annotations

from backend.label_studio.connection import NO_RETRIES, Connection
from backend.label_studio.records import Annotation, read_annotation


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
        found = self._connection.find(
            lambda sdk: sdk.annotations.list(id=task, request_options=NO_RETRIES)
        )
        return [read_annotation(each) for each in found or () if each.id is not None]
