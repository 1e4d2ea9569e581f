"""Which projects pages are about: their routes, whether Label Studio has them and may be asked."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flask import Flask, request

from backend.database.database import Database, has_rows
from backend.errors import BadRequest, ProjectNotFound, StudioRefused, StudioUnreachable
from backend.jobs.connection_watch import ProjectTitles
from backend.jobs.job_store import Job
from backend.label_studio.client import LabelStudioClient

#: A part of a rule for a number from 1 on that a database can hold.
URL_NUMBER: Final = "int(min=1, max=2147483647)"

#: The start of each rule of a project's pages; routes are given its number as `project`.
PROJECT: Final = f"/projects/<{URL_NUMBER}:project>"


def token_sentence(use: str) -> str:
    """Return the sentence that asks for the address of Label Studio and a token for it.

    >>> token_sentence("Tasks are read from Label Studio")
    'Tasks are read from Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.'
    """
    return f"{use}: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."


def required_client(client: LabelStudioClient | None, use: str) -> LabelStudioClient:
    """Return the client.

    Args:
        client: Label Studio; None without a token.
        use: what it is needed for, see `token_sentence`.

    Raises:
        BadRequest: there is no token.
    """
    if client is None:
        raise BadRequest(token_sentence(use))
    return client


def no_key(client: LabelStudioClient | None, use: str) -> str:
    """Return what a page tells people who cannot use it: empty where there is a token."""
    return token_sentence(use) if client is None else ""


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


#: How long a job that is over, or a failure, is shown when its project is gone, in seconds.
_SHOWN_FOR_S: Final = 86400.0


@dataclass(frozen=True)
class DeletedProjects:
    """Judges them by the projects that Label Studio had when their titles were read last."""

    titles: ProjectTitles

    def has_project_of(self, job: Job) -> bool:
        """Tell whether the project of a job is gone, or no longer shown to the backend's token."""
        return self.titles.is_gone(job.project, time.time() - job.created)

    def hides(self, job: Job) -> bool:
        """Tell whether a job has nothing to say any more: it was over for a day.

        A job that is not over stays until somebody cancels it.
        """
        is_old = job.over and time.time() - (job.finished or job.updated) > _SHOWN_FOR_S
        return is_old and self.has_project_of(job)

    def hidden(self, failed_at: Mapping[int, float]) -> set[int]:
        """Return the projects whose failures have nothing to say any more: the last was a day ago.

        Args:
            failed_at: project -> when a task of it has failed last, in seconds since the epoch.
        """
        ages = {project: time.time() - at for project, at in failed_at.items()}
        return {
            project
            for project, age_s in ages.items()
            if age_s > _SHOWN_FOR_S and self.titles.is_gone(project, age_s)
        }

    def there(self, projects: Iterable[int]) -> tuple[int, ...]:
        """Return those of some projects that are there, in their order.

        One that is new in Label Studio is left out until the titles are read again, for seconds.
        """
        return tuple(each for each in projects if not self.titles.is_gone(each, math.inf))


#: What only reads. The starts have a check of their own, see `ProjectCheck`.
_READING: Final = ("GET", "HEAD")


@dataclass(frozen=True, eq=False)
class MissingProjects:
    """Knows whether a project was never here: it has no title and no row in the database.

    A project that was deleted keeps its pages while the database holds something of it.
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
        titles are read again, once a second at most, and not in the minute after Label Studio did
        not answer. One that is still not among them is asked for by its number: a list that changes
        while its pages are read may leave a project out.

        Raises:
            ProjectNotFound: Label Studio has no such project, or does not show it to the token.
        """
        project = (request.view_args or {}).get("project")
        if project is None or request.method not in _READING or self.titles.knows(project):
            return
        if not has_rows(self.database, project) and self.titles.is_missing(project):
            self.projects.check(project)
