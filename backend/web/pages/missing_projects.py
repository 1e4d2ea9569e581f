"""Answer 404 to who reads pages of projects that Label Studio does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flask import Flask, request

from backend.database.database import Database, has_rows
from backend.jobs.connection_watch import ProjectTitles
from backend.web.pages.project_check import ProjectCheck

#: What only reads. The starts have a check of their own, see `ProjectCheck`.
_READING: Final = ("GET", "HEAD")


@dataclass(frozen=True, eq=False)
class MissingProjects:
    """Knows whether a project was never here: it has no title and no row in the database.

    A project that was deleted keeps its pages while the database holds something of it.

    Args:
        titles: the projects that Label Studio has.
        database: what is held of projects.
        projects: asks Label Studio for one that has no title.
    """

    titles: ProjectTitles
    database: Database
    projects: ProjectCheck

    def add_to(self, app: Flask) -> None:
        """Check each request that reads below ``/projects/<number>``."""
        app.before_request(self.check_request)

    def check_request(self) -> None:
        """Refuse to show a project that is not there.

        A project with a title costs nothing. Of others that the database holds nothing of, the
        titles are read anew, once a second at most and not in the minute after Label Studio did not
        answer. One that is still not among them is asked for by its number: a list that changes
        while its pages are read may leave a project out.

        Raises:
            ProjectNotFound: Label Studio has no such project, or does not show it to the token.
        """
        project = (request.view_args or {}).get("project")
        if project is None or request.method not in _READING or self.titles.knows(project):
            return
        if not has_rows(self.database, project) and self.titles.is_missing(project):
            self.projects.check(project)
