"""Withdraw the predictions of a job: delete those that nobody has worked with.

A task that has an annotation or a draft keeps its prediction: it may have begun with it, and the
report compares the two. Of the other tasks, predictions of the job's ``model_version`` are deleted
that were stored while the job ran.

Nothing but that version and that time tells whose a prediction is: Label Studio answers a request
to store predictions with their number, without their ids. Those of other runs and of opened tasks
that are alike in both are taken for the job's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Final

from backend.errors import AnswerTooLarge, StudioRefused
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter

#: Tasks between two steps of a job; a lease outlasts them.
_TASKS_AT_ONCE: Final = 20

#: By how much the clocks of two machines may differ, in seconds.
_CLOCKS_DIFFER_S: Final = 60.0


class Withdrawer:
    """Runs withdrawals."""

    def __init__(self, store: JobStore, client: LabelStudioClient, owner: str) -> None:
        self._store = store
        self._client = client
        self._owner = owner

    def run(
        self, job: Job, stopping: threading.Event, watch: Callable[[Job], None] = lambda _: None
    ) -> Job:
        """Run a leased withdrawal until it is over, paused or stopped, as `Prelabeler.run` does."""
        try:
            return self._run(job, stopping, watch)
        except (StudioRefused, AnswerTooLarge) as error:
            return self._store.finish(job.id, self._owner, str(error))

    def _run(self, job: Job, stopping: threading.Event, watch: Callable[[Job], None]) -> Job:
        of = self._store.get_job(job.withdraws or 0)
        wanted = TaskFilter(with_version=of.version, ids=self._store.task_ids(of.id))
        if job.total is None:
            total = self._client.count(job.project, wanted)
            job = self._store.advance(job.id, self._owner, total=total)
        kept = {*(self._store.task_ids(job.id) or ())}
        watch(job)
        ids = self._client.ids(job.project, replace(wanted, after_id=job.cursor))
        while tasks := tuple(islice(ids, _TASKS_AT_ONCE)):
            if stopping.is_set() or job.state != "running":
                return job
            worked_on = self._worked_on(job.project, replace(wanted, ids=tasks))
            done, stay = 0, set[int]()
            for task in tasks:
                found = self._predictions(of, task)
                if found and task in worked_on:
                    stay.add(task)
                elif found:
                    for each in found:
                        self._client.delete(each)
                    done += 1
            of_others = len(tasks) - done - len(stay)
            kept |= stay
            job = self._store.advance(
                job.id,
                self._owner,
                total=max(0, (job.total or 0) - of_others),
                cursor=tasks[-1],
                done=done,
                skipped=len(stay),
                scope=kept,
            )
            watch(job)
        return self._store.finish(job.id, self._owner)

    def _worked_on(self, project: int, wanted: TaskFilter) -> set[int]:
        """Return the tasks that have an annotation or a draft, of those that pass a filter."""
        either = replace(wanted, labeled=True), replace(wanted, drafted=True)
        return {id_ for each in either for id_ in self._client.ids(project, each)}

    def _predictions(self, of: Job, task: int) -> list[int]:
        """Return the ids of the predictions of a job for a task."""
        first = (of.started or of.created) - _CLOCKS_DIFFER_S
        last = (of.finished or of.updated) + _CLOCKS_DIFFER_S
        return [
            each.id
            for each in self._client.stored(task)
            if each.version == of.version and first <= each.created <= last
        ]
