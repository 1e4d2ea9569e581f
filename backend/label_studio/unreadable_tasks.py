"""Let work on a whole project go on without tasks that Label Studio fails to send."""

from __future__ import annotations

from typing import Final

from backend.errors import StudioUnreachable
from backend.label_studio.client import LabelStudioClient

#: So many tasks are left out. Each has cost the time for which calls are repeated.
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

    def reason(self, error: StudioUnreachable) -> str:
        """Return why one task is left out.

        Args:
            error: what the client has raised for it, after its own retries.

        Raises:
            StudioUnreachable: Label Studio answers nothing else either, or too many tasks of the
                project were left out already.
        """
        self._count += 1
        if self._count > MOST_UNREADABLE:
            raise error
        self._client.label_config(self._project)
        return str(error)
