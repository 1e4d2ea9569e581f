"""The background threads of a backend that serves, and the jobs that they run."""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from backend.database.leases import LEASE_S, LeaseLost, Leases
from backend.errors import AnswerTooLarge, BackendError, StudioRefused, TaskNotServed
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter

if TYPE_CHECKING:  # torch
    from backend.jobs.prelabeler import Prelabeler

log = logging.getLogger(__name__)

#: How often a thread without work looks for some, in seconds; some threads seldom have any.
_POLL_S: Final = 1.0
_POLL_SELDOM_S: Final = 5.0
_SELDOM: Final = {"pictures", "runs", "scores", "steps"}

_RETRY_AFTER_S: Final = 15.0  # how long a thread waits after an error, in seconds

#: Does a piece of work; returns whether there was any, and the next round should come at once.
Round = Callable[[], bool | None]


class Worker:
    """Runs rounds of work, each kind in a thread of its own; renews leases in a further one."""

    def __init__(
        self,
        rounds: Mapping[str, Round],  # by the names of their threads
        leases: Sequence[Leases],
        stopping: threading.Event,
        end_leases: Callable[[], None] = lambda: None,
    ) -> None:
        self._end_leases = end_leases
        self._rounds = {"claims": self._renew_leases, **rounds}
        self._leases = leases
        self._stopping = stopping
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; a second call does nothing."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._repeat, args=(name, round_), name=name, daemon=True)
                for name, round_ in self._rounds.items()
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End the threads soon; a running job is released, for another backend or for later."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_POLL_S)
        if self._threads:
            self._end_leases()

    def _repeat(self, name: str, round_: Round) -> None:
        while not self._stopping.is_set():
            try:
                busy = round_()
            except (BackendError, SQLAlchemyError) as error:
                log.warning("%s; tried again in %g s", str(error).rstrip("."), _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            except Exception:  # as for a request, the next round may succeed
                log.exception("The background has failed; tried again in %g s", _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            else:
                poll_s = _POLL_SELDOM_S if name in _SELDOM else _POLL_S
                self._stopping.wait(0 if busy else poll_s)

    def _renew_leases(self) -> bool:
        for each in self._leases:
            each.renew()
        self._stopping.wait(LEASE_S / 3)
        return True


class JobRunner:
    """Leases jobs and runs them; one that runs while the backend stops is released."""

    def __init__(
        self,
        *,
        store: JobStore,
        prelabeler: "Prelabeler",
        withdrawer: "Withdrawer",
        owner: str,
        stopping: threading.Event,
        held: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Put its parts together.

        Args:
            store: the jobs.
            prelabeler: runs jobs that predict.
            withdrawer: runs jobs that delete predictions.
            owner: of the leases.
            stopping: set when the backend ends.
            held: returns the projects whose new tasks wait for a version.
        """
        self._store = store
        self._prelabeler = prelabeler
        self._withdrawer = withdrawer
        self._owner = owner
        self._stopping = stopping
        self._held = held

    def run_next(self, late: bool = False) -> bool:
        """Run the next job, of late tasks or of others; return whether there was one."""
        job = self._store.lease_job(self._owner, late=late, held=self._held())
        if job is None:
            return False
        log.info("Job %d: project %d, by %s", job.id, job.project, self._owner)
        try:
            runner = self._withdrawer if job.kind == "withdrawal" else self._prelabeler
            job = runner.run(job, self._stopping)
            if not job.over:
                self._store.release(job.id, self._owner)
        except LeaseLost as error:
            log.warning("%s", error)
        except BackendError:
            self._store.release(job.id, self._owner)
            raise

        log.info(
            "Job %d is %s: %d done, %d skipped, %d failed of %s",
            job.id,
            job.state,
            job.done,
            job.skipped,
            job.failed,
            job.total,
        )
        return True


_TASKS_AT_ONCE: Final = 20  # tasks between two steps of a job; a lease outlasts them
_CLOCKS_DIFFER_S: Final = 60.0  # by how much the clocks of two machines may differ, in seconds


class Withdrawer:
    """Withdraws the predictions of jobs: deletes those that nobody has worked with.

    A task that has an annotation or a draft keeps its prediction: it may have begun with it, and
    the report compares the two. Of the other tasks, predictions of the job's ``model_version`` are
    deleted that were stored while the job ran. What Label Studio fails to delete is named at the
    end; the others do not wait for it.

    Label Studio does not tell the ids of predictions that it stores. So those of other runs and of
    opened tasks that have the same version and time are taken for the job's.
    """

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
            done, stay, trouble = self._delete(of, tasks, worked_on)
            kept |= stay
            of_others = len(tasks) - done - len(stay)
            total = max(0, (job.total or 0) - of_others)

            job = self._store.advance(
                job.id,
                self._owner,
                total=total,
                cursor=tasks[-1],
                done=done,
                skipped=len(stay),
                scope=kept,
                reason=trouble or job.reason,
            )
            watch(job)
        return self._store.finish(job.id, self._owner, job.reason)

    def _delete(
        self, of: Job, tasks: Sequence[int], worked_on: set[int]
    ) -> tuple[int, set[int], str]:
        """Delete the predictions that a job has stored for some tasks.

        Returns:
            How many tasks have lost theirs, which ones keep theirs, and why one keeps it that
            should not; empty where Label Studio has deleted all.
        """
        done, stay, trouble = 0, set[int](), ""
        for task in tasks:
            found = self._predictions(of, task)
            if found and task in worked_on:
                stay.add(task)
                continue

            try:
                for each in found:
                    self._client.delete(each)
            except TaskNotServed as error:
                stay.add(task)
                trouble = f"Task {task} keeps its prediction. {error} Withdraw the job again."
            else:
                done += bool(found)
        return done, stay, trouble

    def _worked_on(self, project: int, wanted: TaskFilter) -> set[int]:
        """Return the tasks that have an annotation or a draft, of those that pass a filter."""
        either = replace(wanted, labeled=True), replace(wanted, drafted=True)
        return {id_ for each in either for id_ in self._client.ids(project, each)}

    def _predictions(self, of: Job, task: int) -> list[int]:
        first = (of.started or of.created) - _CLOCKS_DIFFER_S
        last = (of.finished or of.updated) + _CLOCKS_DIFFER_S
        return [
            each.id
            for each in self._client.stored(task)
            if each.version == of.version and first <= each.created <= last
        ]
