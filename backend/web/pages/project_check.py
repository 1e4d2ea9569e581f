"""Refuse what is asked for in projects that Label Studio does not have, before it is started."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import ProjectNotFound, StudioRefused, StudioUnreachable
from backend.label_studio.client import LabelStudioClient


@dataclass(frozen=True, eq=False)
class ProjectCheck:
    """Asks Label Studio for a project while somebody waits.

    Args:
        page_client: Label Studio; None without a token, and then no project is refused.
    """

    page_client: LabelStudioClient | None

    def check(self, project: int) -> None:
        """Refuse a project that Label Studio says is not there.

        Where it is away, or refuses the token, what was asked for is started: it waits, or says so.

        Raises:
            ProjectNotFound: Label Studio has no such project, or does not show it to the token.
        """
        if not self._may_be_there(project):
            raise ProjectNotFound(
                f"Label Studio has no project {project}, or does not show it to the backend's user."
            )

    def _may_be_there(self, project: int) -> bool:
        try:
            return self.page_client is None or self.page_client.has_project(project)
        except (StudioRefused, StudioUnreachable):
            return True
