"""Let work on a whole project go on without tasks that Label Studio fails to send."""

from __future__ import annotations

from typing import Final

from backend.errors import BadRequest, StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import Annotation

#: So many tasks are left out. Each has cost twice the time for which calls are repeated.
MOST_UNREADABLE: Final = 10


class UnreadableTasks:
    """Tells a task that cannot be read from a Label Studio that is away.

    Args:
        client: Label Studio.
        project: id of the project.
    """

    def __init__(self, client: LabelStudioClient, project: int) -> None:
        self._client = client
        self._project = project
        self._count = 0

    def annotations(self, task: int) -> list[Annotation]:
        """Read the annotations of a task.

        A task that fails is read once more after Label Studio has answered something else: it may
        have been away, and have come back.

        Raises:
            BadRequest: the task is left out, since they are too large to be read, or since Label
                Studio fails to send them.
            StudioRefused: the token may not see them, or the project.
            StudioUnreachable: Label Studio answers nothing else either, or too many tasks of the
                project were left out already.
        """
        contents = self._client.contents
        try:
            return contents.annotations(task)
        except StudioUnreachable:
            self._client.label_config(self._project)
        try:
            return contents.annotations(task)
        except StudioUnreachable as error:
            self._count += 1
            if self._count > MOST_UNREADABLE:
                raise
            raise BadRequest(str(error)) from None
