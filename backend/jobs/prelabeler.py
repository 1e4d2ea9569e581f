"""A whole project: walked through, predicted, written to Label Studio, and checked at the end.

What is done stands in the store and in Label Studio itself, which is asked for the tasks that have
no prediction of the version yet. So a run that was ended in whatever way goes on where it was.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)

from backend.database.database import Database, sentence
from backend.database.leases import LeaseLost
from backend.errors import LabelConfigError, StudioRefused
from backend.inference.image_request import Priority
from backend.jobs.job import Job, Only
from backend.jobs.job_store import JobStore
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import Failure, FailureStore
from backend.prediction.outbox import PredictionOutbox
from backend.prediction.prediction_spec import PredictionSpec
from backend.prediction.predictor import Predictor
from backend.prediction.task_runner import Outcome
from backend.telemetry.logs import printable

log = logging.getLogger(__name__)

#: Tasks that are predicted and written together.
CHUNK: Final = 25

#: Chunks at the same time: while one is written, the model has the next.
_CHUNKS_AHEAD: Final = 3

#: How often what is missing at the end is tried again.
_CLOSING_ROUNDS: Final = 3

#: How often a picture is asked for whose host is away.
_TRIES: Final = 3

#: Before what others are writing just then is looked for again.
_CLOSING_PAUSE_S: Final = 2.0

#: How often a running job's lease is renewed, and looked whether it is to rest.
_POLL_S: Final = 1.0

#: How often a job goes on where the database was away, and the longest pause before, in seconds.
_DATABASE_TRIES: Final = 10
_DATABASE_PAUSE_S: Final = 20.0

#: Different reasons for failures that a report tells, the most frequent first.
_REASONS_TOLD: Final = 10

_NO_DEADLINE_S: Final = 1e8


@dataclass(frozen=True)
class Step:
    """What has become of a chunk.

    Attributes:
        done: tasks whose prediction Label Studio has by now.
        failures: tasks without one, and why.
        cursor: its last task.
        whole: whether no task of it is left over.
    """

    done: int
    failures: list[tuple[int, str]]
    cursor: int
    whole: bool


@dataclass(frozen=True)
class Report:
    """How a job went.

    Attributes:
        job: as it is at the end.
        failures: tasks without a prediction, and why.
    """

    job: Job
    failures: list[Failure] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every task has its prediction."""
        return self.job.state == "done" and not self.job.failed

    def __str__(self) -> str:
        job = self.job
        reasons = Counter(failure.reason for failure in self.failures).most_common(_REASONS_TOLD)
        lines = [
            f"Job {job.id}, project {job.project}: {job.state}. {printable(job.reason)}".rstrip(),
            f"{job.done} done, {job.skipped} skipped, {job.failed} failed of {job.total}, "
            f"{job.rate:.1f} pictures/s",
            *(f"{count} x {printable(reason)}" for reason, count in reasons),
        ]
        if job.state == "paused":
            lines.append("The same command goes on from here.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For machines; times are in seconds."""
        job = self.job
        return {
            "job": job.id,
            "project": job.project,
            "state": job.state,
            "reason": job.reason,
            "model_version": job.version,
            "total": job.total,
            "done": job.done,
            "skipped": job.skipped,
            "failed": job.failed,
            "seconds": round(job.worked_s, 3),
            "pictures_per_second": round(job.rate, 3),
            "failures": [{"task": each.task, "reason": each.reason} for each in self.failures],
        }


@dataclass(frozen=True)
class Plan:
    """What a job would do.

    Attributes:
        project: whose tasks.
        version: the ``model_version`` of the predictions.
        to_predict: tasks that lack one.
        to_skip: tasks that have one.
    """

    project: int
    version: str
    to_predict: int
    to_skip: int

    def __str__(self) -> str:
        return (
            f"Project {self.project}: {self.to_predict} tasks to predict as {self.version!r}, "
            f"{self.to_skip} have such a prediction."
        )


class Prelabeler:
    """Runs jobs.

    Args:
        store: where jobs stand.
        results: claims on what is being predicted, renewed along with a job's lease.
        pending: works on the tasks, beside those that Label Studio asks for itself.
        pipeline: predicts them.
        client: Label Studio.
        owner: who leases the jobs.
    """

    def __init__(
        self,
        store: JobStore,
        results: PredictionOutbox,
        pending: DeadlineRunner,
        predictor: Predictor,
        client: LabelStudioClient,
        owner: str,
    ) -> None:
        self._store = store
        self._failures = FailureStore(store.database)
        self._results = results
        self._pending = pending
        self._predictor = predictor
        self._client = client
        self._owner = owner

    def plan(
        self,
        project: int,
        *,
        only: Only = "unlabeled",
        view: int | None = None,
        limit: int | None = None,
    ) -> Plan:
        """What a job would do.

        Raises:
            BackendError: it could not be done, or Label Studio does not answer.
        """
        job = JobStore(Database("sqlite://")).start_job(project, only=only, view=view, limit=limit)
        version = self._wish(job).version
        if (scope := self._scope(job, version)) is not None:
            job = replace(job, scope=json.dumps(scope))
        there = self._client.count(project, self._wanted(job))
        lacking = self._client.count(project, self._wanted(job, version))
        return Plan(project, version, lacking, there - lacking)

    def run(
        self,
        job: Job,
        stopping: threading.Event,
        watch: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Work on a leased job until it is over, paused, or we are asked to stop.

        Args:
            job: as `JobStore.lease_job` gave it.
            stopping: once it is set, this ends soon; what is predicted by then is written.
            watch: hears of each step.

        Returns:
            The job. One that was stopped is still ours: see `JobStore.release`.

        Raises:
            StudioUnreachable: Label Studio does not answer; the job can go on later.
            ModelUnavailable: nor does the model.
            LeaseLost: another has taken the job.
            SQLAlchemyError: the database stays away; the job can go on later.
        """
        tries = Retrying(
            retry=retry_if_exception_type(OperationalError),
            wait=wait_exponential(max=_DATABASE_PAUSE_S),
            stop=stop_any(stop_after_attempt(_DATABASE_TRIES), stop_when_event_set(stopping)),
            sleep=sleep_using_event(stopping),
            before_sleep=_tell,
            reraise=True,
        )
        return tries(self._run, job.id, stopping, watch)

    def report(self, job: int) -> Report:
        """How a job went."""
        return Report(self._store.get_job(job), self._failures.newest(job, limit=10_000))

    # ---- inside ------------------------------------------------------------------------------

    def _run(self, job_id: int, stopping: threading.Event, watch: Callable[[Job], None]) -> Job:
        job = self._store.advance(job_id, self._owner)
        with self._leased(job, stopping) as halt:

            def tell(job: Job) -> None:
                watch(job)
                if stopping.is_set() or job.state != "running":
                    halt.set()  # sooner than who keeps the lease looks

            try:
                job = self._go(job, halt, tell)
            except (StudioRefused, LabelConfigError) as error:
                job = self._store.finish(job.id, self._owner, str(error))
        watch(job)
        return job

    def _go(self, job: Job, halt: threading.Event, watch: Callable[[Job], None]) -> Job:
        """Walk through it, and then again through what is left, until nothing is."""
        for closing in range(1 + _CLOSING_ROUNDS):
            job = self._open(job)
            watch(job)
            if halt.is_set() or job.state != "running" or (closing and not job.remaining):
                break
            if closing:
                halt.wait(_CLOSING_PAUSE_S)  # for what others are writing just now
                job = self._store.advance(job.id, self._owner, cursor=0)
            job = self._walk(job, halt, watch)
        if halt.is_set() or job.state != "running":
            return self._store.get_job(job.id)
        self._remove_doubles(job, halt)
        if halt.is_set():
            return self._store.get_job(job.id)
        left = self._open(job).remaining
        reason = f"{left} tasks have no prediction yet: start it again." if left else ""
        return self._store.finish(job.id, self._owner, reason)

    @contextmanager
    def _leased(self, job: Job, stopping: threading.Event) -> Iterator[threading.Event]:
        """Keep the lease beside the work; the value is set once the work is to end."""
        halt, over = threading.Event(), threading.Event()

        def keep() -> None:
            state = job.state
            while not over.wait(_POLL_S):
                try:
                    state = self._store.advance(job.id, self._owner).state
                    self._results.renew()
                except LeaseLost:
                    state = "cancelled"
                except SQLAlchemyError as error:  # it may be back before the lease ends
                    log.warning("Job %d: its lease is not renewed: %s", job.id, sentence(error))
                if stopping.is_set() or state != "running":
                    halt.set()

        keeper = threading.Thread(target=keep, name=f"lease-{job.id}", daemon=True)
        keeper.start()
        try:
            yield halt
        finally:
            over.set()
            keeper.join()

    def _open(self, job: Job) -> Job:
        """Find out what there is to do, and what has changed since somebody looked last."""
        version, count = self._wish(job).version, self._client.count
        if job.ids is None and (scope := self._scope(job, version)) is not None:
            job = self._store.advance(job.id, self._owner, scope=scope)
        lacking = count(job.project, self._wanted(job, version))
        if job.version != version:
            there = count(job.project, self._wanted(job))
            before = job.done + job.skipped + job.failed
            return self._store.advance(
                job.id,
                self._owner,
                version=version,
                total=before + there,
                skipped=there - lacking,
                cursor=0,
            )
        told = (job.total or 0) - job.done - job.skipped - job.failed
        more = told - max(0, lacking - job.failed)  # written without our noting it, or new tasks
        total = (job.total or 0) - min(0, more)
        return self._store.advance(job.id, self._owner, done=max(0, more), total=total)

    def _walk(self, job: Job, halt: threading.Event, watch: Callable[[Job], None]) -> Job:
        """Predict and write all that is left after the cursor, a few chunks at the same time."""
        spec, chunks = self._wish(job), self._chunks(job)
        moving: deque[Future[Step]] = deque()
        gapless = True
        with ThreadPoolExecutor(_CHUNKS_AHEAD, thread_name_prefix=f"job-{job.id}") as pool:
            try:
                while True:
                    while len(moving) < _CHUNKS_AHEAD and not halt.is_set():
                        if (chunk := next(chunks, None)) is None:
                            break
                        moving.append(pool.submit(self._do, job, spec, chunk, halt))
                    if not moving:
                        return job
                    step = moving.popleft().result()
                    gapless = gapless and step.whole
                    cursor = step.cursor if gapless else None
                    job = self._store.advance(
                        job.id,
                        self._owner,
                        cursor=cursor,
                        done=step.done,
                        failures=step.failures,
                    )
                    watch(job)
            except BaseException:
                halt.set()  # or the pool would wait for whole chunks
                raise

    def _chunks(self, job: Job) -> Iterator[list[Task]]:
        """The tasks after the cursor that lack a prediction, until the label config changes."""
        failed = self._failures.task_ids(job.id)
        cursor, ids = job.cursor, job.ids
        while self._wish(job).version == job.version:
            wanted = self._wanted(job, job.version, after=cursor)
            if ids is not None:
                some = tuple(id_ for id_ in ids if id_ > cursor)[:PAGE]
                wanted = replace(wanted, ids=some, after_id=0)
            tasks = self._client.tasks(job.project, wanted)
            last = wanted.ids[-1:] if wanted.ids is not None else [task.id for task in tasks[-1:]]
            if not last:
                return
            cursor = int(last[0] or 0)
            tasks = [task for task in tasks if task.id not in failed]
            yield from (tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK))

    def _do(
        self, job: Job, spec: PredictionSpec, tasks: Sequence[Task], halt: threading.Event
    ) -> Step:
        """Predict a chunk and write it."""

        def work(task: Task) -> Outcome:
            return Outcome([]) if halt.is_set() else self._predictor.outcome(task, spec)

        def predict(tasks: Sequence[Task]) -> list[Outcome]:
            return self._pending.until(
                _NO_DEADLINE_S, tasks, spec.version, job.project, work, whole=True
            )

        return predict_and_write(self._client, job.project, spec.version, tasks, predict, halt)

    def _remove_doubles(self, job: Job, halt: threading.Event) -> None:
        """Leave one prediction of the version where a task has got several."""
        for tasks in self._client.possible_duplicates(job.project, job.version, job.ids):
            for task in tasks:
                if halt.is_set():
                    return
                stored = self._client.stored(task)
                for double in [each for each in stored if each.version == job.version][1:]:
                    log.info("Task %s had a second prediction, which is removed", task)
                    self._client.delete(double.id)
            if halt.is_set():
                return

    def _wish(self, job: Job) -> PredictionSpec:
        """What is predicted: by the version that the job has begun with, if only lessons came."""
        config = parse_label_config(self._client.label_config(job.project))
        learned = self._predictor.versions.active_model(config, job.project, keep=job.version)
        return self._predictor.spec(config, Priority.BATCH, job.project, learned)

    def _wanted(self, job: Job, lacking: str | None = None, after: int = 0) -> TaskFilter:
        return TaskFilter(lacking, unlabeled=job.only == "unlabeled", after_id=after, ids=job.ids)

    def _scope(self, job: Job, version: str) -> list[int] | None:
        """The tasks of a view, or the first that lack a prediction; None for the whole project."""
        ids = None if job.view is None else self._client.view_ids(job.project, job.view)
        if job.limit is None:
            return ids
        lacking = self._client.ids(job.project, self._wanted(job, version), among=ids)
        return list(islice(lacking, job.limit))


def predict_and_write(
    client: LabelStudioClient,
    project: int,
    version: str,
    tasks: Sequence[Task],
    predict: Callable[[Sequence[Task]], list[Outcome]],
    halt: threading.Event,
) -> Step:
    """Predict some tasks and write their predictions, in one request.

    Args:
        client: Label Studio.
        project: whose tasks.
        version: the ``model_version`` of the predictions.
        tasks: one or more; where the host of a picture is away, its task is predicted again.
        predict: one outcome a task, in their order.
        halt: once it is set, tasks without a prediction are left over.

    Raises:
        BackendError: they could not be predicted or written, for no fault of one task.
    """
    ids = [int(task.id or 0) for task in tasks]
    by_id: dict[int, Outcome] = {}
    for _ in range(_TRIES):
        again = [t for t, id_ in zip(tasks, ids, strict=True) if _open(by_id.get(id_))]
        if by_id and again and not halt.is_set():
            client.label_config(project)  # waits where Label Studio is away
        made = predict(again)
        by_id |= {int(task.id or 0): each for task, each in zip(again, made, strict=True)}
    entries = {id_: each.entry for id_, each in by_id.items() if isinstance(each.entry, dict)}
    refused = client.write(project, version, entries)
    failures = {id_: each.reason for id_, each in by_id.items() if each.reason} | refused
    left = len(ids) - len(entries.keys() | failures.keys())
    return Step(
        done=len(entries.keys() - refused.keys()),
        failures=list(failures.items()),
        cursor=ids[-1],
        whole=not (left and halt.is_set()),
    )


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    told = sentence(error) if error else ""
    log.warning("%s; the job goes on in %.0f s", told, state.upcoming_sleep)


def _open(outcome: Outcome | None) -> bool:
    """Whether a task is to be predicted: not yet done, or failed for a while only."""
    return outcome is None or outcome.may_pass
