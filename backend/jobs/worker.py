"""What a backend does beside answering: jobs, and predictions that were made after the deadline.

Nothing of it needs a request. Without a token for Label Studio, there is only the part that keeps
claims alive: results then wait until Label Studio asks for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from backend.database.leases import LEASE_S, LeaseLost
from backend.errors import BackendError, LabelConfigError, StudioRefused
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import Annotations
from backend.feedback.learning.learner import Learner
from backend.jobs.job_store import Job, JobStore
from backend.jobs.prelabeler import Prelabeler
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import OutboxItem, PredictionOutbox
from backend.prediction.predictor import Predictor
from backend.settings import Settings

log = logging.getLogger(__name__)

#: Between two looks for work, in seconds.
_POLL_S: Final = 1.0

#: Before what could not be done is tried again.
_RETRY_AFTER_S: Final = 15.0

#: How long an annotation is asked for before the next one has its turn, in seconds.
_PATIENCE_S: Final = 20.0

#: Predictions of one request to Label Studio.
_BATCH_SIZE: Final = 50


class Worker:
    """Five threads: for jobs, for what was made after a deadline, for annotations that have
    changed, for what they teach, and to keep claims alive.

    Args:
        store: the jobs.
        results: the predictions that wait, of the same store.
        owner: who leases the jobs.
        pipeline: tells the version that a label config has.
        client: Label Studio; None: results are kept until it asks, and no job is run.
        prelabeler: runs jobs; None: none is run.
        annotations: those that have changed, of the same store.
        reader: reads them; None: none is read.
        learner: makes new versions of what they teach; None: none is made.
    """

    def __init__(
        self,
        store: JobStore,
        results: PredictionOutbox,
        owner: str,
        predictor: Predictor,
        client: LabelStudioClient | None = None,
        prelabeler: Prelabeler | None = None,
        annotations: Annotations | None = None,
        reader: AnnotationReader | None = None,
        learner: Learner | None = None,
    ) -> None:
        self._store = store
        self._failures = FailureStore(store)
        self._results = results
        self._owner = owner
        self._predictor = predictor
        self._client = client
        self._prelabeler = prelabeler
        self._annotations = annotations
        self._reader = reader
        self._learner = learner
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        store: JobStore,
        results: PredictionOutbox,
        owner: str,
        predictor: Predictor,
        pending: DeadlineRunner,
        annotations: Annotations,
        learner: Learner | None = None,
    ) -> Worker:
        """The worker of a backend: with a token for Label Studio, it runs jobs and reads what
        annotators have changed.
        """
        worker = cls(store, results, owner, predictor)
        client = LabelStudioClient.from_settings(settings, stopping=worker._stopping)
        if client is not None:
            worker._client = client
            worker._prelabeler = Prelabeler(store, results, pending, predictor, client, owner)
        soon = LabelStudioClient.from_settings(
            settings, stopping=worker._stopping, retry_for_s=_PATIENCE_S
        )
        if soon is not None:
            worker._annotations = annotations
            worker._reader = AnnotationReader(annotations, soon, learner)
            worker._learner = learner
        return worker

    def start(self) -> None:
        """Begin, in the background; once, however often it is called."""
        if not self._threads:
            rounds = {
                "claims": self._renew_claims,
                "results": self._bring_results,
                "jobs": self._run_a_job,
                "annotations": self._read_annotations,
                "steps": self._learn,
            }
            self._threads = [
                threading.Thread(target=self._repeat, args=(each,), name=name, daemon=True)
                for name, each in rounds.items()
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End soon: a job is given back, for another or for later."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_POLL_S)

    def _repeat(self, round_: Callable[[], bool]) -> None:
        while not self._stopping.is_set():
            try:
                busy = round_()
            except (BackendError, SQLAlchemyError) as error:
                log.warning("%s; tried again in %g s", error, _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            except Exception:  # a round of the background, like a request
                log.exception("The background has failed; tried again in %g s", _RETRY_AFTER_S)
                self._stopping.wait(_RETRY_AFTER_S)
            else:
                self._stopping.wait(0 if busy else _POLL_S)

    # ---- jobs --------------------------------------------------------------------------------

    def _run_a_job(self) -> bool:
        """Run the next job as far as it goes; whether there was one."""
        if self._prelabeler is None:
            return False
        job = self._store.lease_job(self._owner)
        if job is None:
            return False
        log.info("Job %d: project %d, by %s", job.id, job.project, self._owner)
        try:
            job = self._prelabeler.run(job, self._stopping)
            if not job.over:
                self._store.let_go(job.id, self._owner)
        except LeaseLost as error:
            log.warning("%s", error)
        except BackendError:
            self._store.let_go(job.id, self._owner)
            raise
        log.info("Job %d is %s: %s", job.id, job.state, describe_job(job))
        return True

    # ---- annotations -------------------------------------------------------------------------

    def _read_annotations(self) -> bool:
        """Read some annotations that have changed; whether there was one."""
        if self._reader is None:
            return False
        return self._reader.read_some(pause=self._has_no_time) > 0

    def _has_no_time(self) -> bool:
        in_burst = self._annotations is not None and self._annotations.in_burst
        return in_burst or self._stopping.is_set()

    def _learn(self) -> bool:
        """Make a new version of what a project has learned, where one is due; whether it was."""
        client, reader, learner = self._client, self._reader, self._learner
        if learner is None or reader is None or client is None:
            return False

        def config_of(project: int) -> LabelConfig:
            reader.mark_gone(project, learner.lessons.annotations(project))
            return parse_label_config(client.label_config(project))

        return learner.take_due_step(config_of)

    # ---- results -----------------------------------------------------------------------------

    def _renew_claims(self) -> bool:
        """Keep claims alive, however long others have to wait for Label Studio."""
        self._results.renew()
        if self._annotations is not None:
            self._annotations.renew()
        self._stopping.wait(LEASE_S / 3)
        return True

    def _bring_results(self) -> bool:
        """Write what is due; whether there was anything."""
        if self._client is None:
            return False
        for project, claims in self._results.orphans().items():
            log.info("Project %d: %d tasks of a backend that has died", project, len(claims))
            self._store.start_job(project, kind="new", only="all", tasks=claims.values())
            self._results.discard_orphans(claims)
        waiting = self._results.lease_due(_BATCH_SIZE)
        if not waiting:
            return False
        keys = [each.key for each in waiting]
        try:
            self._write(self._client, waiting)
        except (StudioRefused, LabelConfigError) as error:
            log.warning("%d predictions are not written: %s", len(keys), error)
            if not _is_final(error):
                self._results.release(keys, self._results.now + _RETRY_AFTER_S)
                return True  # other projects have their turn meanwhile
        except BaseException:
            self._results.release(keys, self._results.now + _RETRY_AFTER_S)
            raise
        self._results.complete(keys)
        return True

    def _write(self, client: LabelStudioClient, waiting: Sequence[OutboxItem]) -> None:
        """Write predictions of one project and version, where they are the newest."""
        project, version = waiting[0].project, waiting[0].version
        config = parse_label_config(client.label_config(project))
        if not self._predictor.knows(version, config, project):
            log.info("Project %d has another label config by now: %s is over", project, version)
            return
        entries = {each.task: each.prediction for each in waiting}
        begun = {each.task: each.begun for each in waiting}
        wanted = TaskFilter(ids=tuple(entries), min_predictions=1)
        for task in client.tasks(project, wanted):
            task_id = int(task.id or 0)
            if any(stored.created > begun[task_id] for stored in client.stored(task_id)):
                del entries[task_id]  # somebody has predicted it since
        for task_id, reason in client.write(project, version, entries).items():
            log.warning("Task %d has no prediction: %s", task_id, reason)
            self._failures.add([(task_id, reason)])


def _is_final(error: StudioRefused | LabelConfigError) -> bool:
    """Whether predictions will never be taken: not where token or address are what is wrong."""
    if isinstance(error, LabelConfigError):
        return True
    return error.status >= 400 and error.status not in (401, 403)


def describe_job(job: Job) -> str:
    """A job's counts in words."""
    return f"{job.done} done, {job.skipped} skipped, {job.failed} failed of {job.total}"
