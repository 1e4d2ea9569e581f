"""Which tasks of a project are meant: requests, jobs, the poll, pages and reviews ask here.

The tasks themselves are Label Studio's. This database knows which of them failed, and which an
experiment leaves without a prediction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import msgspec

from backend.database.database import Database
from backend.feedback.experiment import LEAST, UNSEEN, ExperimentStore
from backend.feedback.report.hours_left import count_left, count_tasks
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import ProjectRow
from backend.label_studio.task_filter import OPEN, TaskFilter
from backend.projects.failures import FailureStore

#: The tasks that a person can review: somebody else has not begun with them.
_REVIEWABLE: Final = replace(OPEN, drafted=False, predicted=True)


class OpenTasks(msgspec.Struct, frozen=True):
    """How many tasks of a project are still to be annotated, and what they wait for.

    Attributes:
        left: tasks that Label Studio does not take for finished, without skipped ones.
        begun: of these, tasks with an annotation: they need one of somebody else.
        needed: annotations that the tasks left need.
        waiting: of those without one, tasks without a prediction of the model version in use.
        older: of those that wait, tasks with a prediction of another version.
        skipped: tasks without an annotation that somebody has skipped.
        failed: of those that wait, tasks that failed when they were last predicted.
        failed_older: of those that failed, tasks with a prediction of another version.
        withheld: of those that wait, tasks that an experiment leaves without a prediction.
    """

    left: int
    begun: int
    needed: int
    waiting: int
    older: int
    skipped: int
    failed: int
    failed_older: int
    withheld: int


@dataclass(frozen=True, eq=False)
class TaskScope:
    """Says which tasks of a project are meant.

    Methods that take a client ask Label Studio, and raise `StudioRefused` or `StudioUnreachable`.
    """

    experiments: ExperimentStore
    failures: FailureStore

    @classmethod
    def of(cls, database: Database) -> TaskScope:
        """Make one from the stores of a database."""
        return cls(ExperimentStore(database), FailureStore(database))

    def withhold(self, project: int | None, tasks: Iterable[int]) -> set[int]:
        """Return which of some tasks are to get no prediction now; everybody who predicts asks.

        The experiment of the project, where one runs, keeps them as its own from now on.

        Args:
            project: number of the project; None where a request does not tell it.
            tasks: ids of tasks that would be predicted.
        """
        return self.experiments.withhold(project, tasks)

    def end_experiment(self, client: LabelStudioClient, project: int) -> bool:
        """End the experiment of a project that can draw no more; return whether it ended here.

        No task is left then that it withholds or may still draw. Enough tasks with a prediction are
        annotated, or all of them.
        """
        experiment = self.experiments.find(project)
        if experiment is None or experiment.ended is not None:
            return False
        withheld = self.experiments.withheld(project)
        failing = tuple({*self.failures.of_project(project)} - {*withheld})

        def is_left(tasks: TaskFilter) -> bool:
            """Whether there are such tasks whose pictures can be read."""
            return client.count(project, tasks) > _count_of(client, project, tasks, failing)

        is_short = experiment.beside < LEAST
        if _count_of(client, project, UNSEEN, withheld) or is_left(OPEN if is_short else UNSEEN):
            return False
        self.experiments.stop(project)
        return True

    def choose(
        self,
        client: LabelStudioClient,
        project: int,
        lacking: TaskFilter,
        *,
        view: int | None = None,
        limit: int | None = None,
    ) -> tuple[int, ...] | None:
        """Choose the tasks of a job, in ascending order of their ids.

        Args:
            client: of Label Studio.
            project: number of the project.
            lacking: the tasks that lack what the job makes.
            view: number of a view of the data manager whose tasks alone are meant; None for all.
            limit: the most tasks; None for all.

        Returns:
            Their ids. None for all tasks of the project, also those that come later.
        """
        ids = None
        if view is not None:
            ids = tuple(row.id for row in client.view_rows(project, view))
        is_measured = self.experiments.is_running(project)
        if limit is None and not is_measured:
            return ids

        tasks: Iterable[int] = client.ids(project, replace(lacking, ids=ids))
        if is_measured:
            withheld = self.withhold(project, client.ids(project, UNSEEN))
            tasks = (task for task in tasks if task not in withheld)
        return tuple(islice(tasks, limit))

    def to_review(self, project: int) -> TaskFilter | None:
        """Return the tasks whose predictions a person can review; None for none.

        While an experiment runs there are none: it measures the time that annotations take in the
        editor.
        """
        return None if self.experiments.is_running(project) else _REVIEWABLE

    def count_unseen(self, client: LabelStudioClient, project: int) -> int:
        """Count the tasks that an experiment may draw from."""
        return client.count(project, UNSEEN)

    def count_left(self, client: LabelStudioClient, project: int) -> int:
        """Count the tasks that Label Studio does not take for finished, without skipped ones."""
        return count_tasks(client, project)[0]

    def count_open(self, client: LabelStudioClient, row: ProjectRow, version: str) -> OpenTasks:
        """Count the tasks that are still to be annotated.

        Args:
            client: of Label Studio.
            row: the project, as Label Studio answers it now.
            version: the model version in use.
        """
        project, work = row.id, count_left(client, row)
        lacking = replace(OPEN, without_version=version)
        waiting = client.count(project, lacking) if work.tasks > work.begun else 0
        older = failed = failed_older = withheld = 0
        if waiting:
            # Of those without any, Label Studio need not look at each prediction's version.
            older = max(0, waiting - client.count(project, UNSEEN))
            drawn = self.experiments.withheld(project)
            failing = tuple({*self.failures.of_project(project)} - {*drawn})
            failed = _count_of(client, project, lacking, failing)
            if failed and older:
                older_ones = replace(lacking, predicted=True)
                failed_older = _count_of(client, project, older_ones, failing)
            withheld = _count_of(client, project, replace(lacking, predicted=False), drawn)

        return OpenTasks(
            left=work.tasks,
            begun=work.begun,
            needed=work.annotations,
            waiting=waiting,
            older=older,
            skipped=work.skipped,
            failed=failed,
            failed_older=failed_older,
            withheld=withheld,
        )


def _count_of(
    client: LabelStudioClient, project: int, wanted: TaskFilter, ids: tuple[int, ...]
) -> int:
    """Count those of some tasks that pass a filter; of none, nobody is asked."""
    return client.count(project, replace(wanted, ids=ids)) if ids else 0
