"""Tell which jobs are of projects that were deleted in Label Studio."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from backend.jobs.job import Job
from backend.jobs.project_titles import ProjectTitles

#: How long a job that is over is shown when its project is gone, in seconds.
_SHOWN_FOR_S: Final = 86400.0


@dataclass(frozen=True)
class DeletedProjects:
    """Judges jobs by the projects that Label Studio had when their titles were read last.

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
