"""Tell which jobs, failures and reports are of projects that were deleted in Label Studio."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from backend.jobs.connection_watch import ProjectTitles
from backend.jobs.job import Job

#: How long a job that is over, or a failure, is shown when its project is gone, in seconds.
_SHOWN_FOR_S: Final = 86400.0


@dataclass(frozen=True)
class DeletedProjects:
    """Judges them by the projects that Label Studio had when their titles were read last.

    Args:
        titles: the projects that are there.
    """

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
