"""Run a job: predict the tasks of a project, write the predictions and check them at the end.

The job store and Label Studio itself hold what is done: Label Studio is asked for the tasks that
have no prediction of the version yet. So a run that has ended in any way goes on where it was.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Final, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.database.leases import LeaseLost, deadly
from backend.errors import BadRequest, StudioRefused
from backend.inference.queue import Priority
from backend.jobs.job_store import Job, JobStore
from backend.jobs.job_tasks import CHUNK, JobTasks
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome, TaskRunner
from backend.prediction.images import PredictionSpec
from backend.prediction.predictor import Predictor
from backend.projects.scores import ScoreStore
from backend.projects.task_scope import TaskScope
from clearclip_core.quantities import quantity

log = logging.getLogger(__name__)

#: The number of tasks that are predicted and written together: one of this many parts of a job,
#: from `CHUNK` on. With each request to write, Label Studio may look at all tasks of the project.
_PARTS: Final = 250
_LARGEST_CHUNK: Final = 200
_FIRST_CHUNKS: Final = (1, 4)  # the first chunks are small: so people soon see that a job moves
_TRIES: Final = 3  # requests for an image while its host is away
_CHUNKS_AHEAD: Final = 3  # chunks at the same time: while one is written, the model has the next
_CLOSING_ROUNDS: Final = 3  # how many times what is missing at the end is tried again

#: The pause before another walk, in which others may finish writing, in seconds.
_CLOSING_PAUSE_S: Final = 2.0

_POLL_S: Final = 1.0  # how often a running job's lease is renewed and its state is read, in seconds


class ChunkResult(NamedTuple):
    """What was written of a chunk of tasks."""

    made: dict[int, float]  # task -> the score of its prediction
    failures: list[tuple[int, str]]  # tasks without one, and why


def predict_and_write(
    client: LabelStudioClient,
    project: int,
    version: str,
    tasks: Sequence[Task],
    predict: Callable[[Sequence[Task]], list[Outcome]],
    *,
    halt: threading.Event,
) -> ChunkResult:
    """Predict one task or more and write their predictions, in one request.

    Args:
        client: where they are written.
        project: id of the project.
        version: model version of the predictions.
        tasks: one or more.
        predict: predicts some of them. Where the host of its image was away, a task is predicted
            again.
        halt: once it is set, such a task is left.
    """

    def wait() -> None:
        if not halt.is_set():
            client.label_config(project)  # waits where Label Studio is away

    by_id = _predict_all(tasks, predict, wait)
    entries = {id_: each.entry for id_, each in by_id.items() if isinstance(each.entry, dict)}
    refused = client.write_predictions(project, version, entries)
    failures = {id_: each.reason for id_, each in by_id.items() if each.reason} | refused
    scores = {id_: float(each["score"]) for id_, each in entries.items() if id_ not in refused}
    return ChunkResult(scores, list(failures.items()))


class Prelabeler:
    """Runs jobs."""

    def __init__(
        self,
        *,
        store: JobStore,
        task_runner: TaskRunner,
        predictor: Predictor,
        client: LabelStudioClient,
        owner: str,
        scope: TaskScope,
    ) -> None:
        self._store = store
        self._scope = scope
        self._scores = ScoreStore(store.database)
        self._task_runner = task_runner
        self._predictor = predictor
        self._client = client
        self._owner = owner

    def run(
        self, job: Job, stopping: threading.Event, watch: Callable[[Job], None] = lambda _: None
    ) -> Job:
        """Run a leased job until it is over, paused or stopped; return it.

        Once `stopping` is set, the run ends soon, and what is predicted by then is written. The
        lease of a job that was stopped remains: see `JobStore.release`.
        """
        job = self._store.advance(job.id, self._owner)
        with self._keep_lease(job, stopping) as halt:

            def tell(job: Job) -> None:
                watch(job)
                if stopping.is_set() or job.state != "running":
                    halt.set()  # at once, not only with the next renewal

            try:
                job = self._run_leased(job, halt, tell)
            except (StudioRefused, BadRequest) as error:
                job = self._store.finish(job.id, self._owner, str(error))
        watch(job)
        return job

    def _run_leased(self, job: Job, halt: threading.Event, watch: Callable[[Job], None]) -> Job:
        """Walk through the tasks, and again through those that are left, until all are done."""
        for closing in range(1 + _CLOSING_ROUNDS):
            job = self._update_counts(job)
            watch(job)
            if halt.is_set() or (closing and not job.remaining):
                break
            if closing:
                halt.wait(_CLOSING_PAUSE_S)  # others may be writing some of them just now
            job = self._walk(job, halt, watch)
        if halt.is_set():
            return self._store.get_job(job.id)
        left = self._update_counts(job).remaining
        reason = (
            f"{quantity(left, 'task')} without a prediction yet: start it again." if left else ""
        )
        return self._store.finish(job.id, self._owner, reason)

    @contextmanager
    def _keep_lease(self, job: Job, stopping: threading.Event) -> Iterator[threading.Event]:
        """Renew the lease in a thread; yield an event that is set once the work has to end."""
        halt, over = threading.Event(), threading.Event()

        def keep() -> None:
            state = job.state
            while not over.wait(_POLL_S):
                try:
                    state = self._store.advance(job.id, self._owner).state
                except LeaseLost:
                    state = "cancelled"
                except SQLAlchemyError as error:  # it may be back before the lease ends
                    log.warning("A job's lease is not renewed: %s", error_message(error))
                if stopping.is_set() or state != "running":
                    halt.set()

        keeper = threading.Thread(target=keep, name=f"lease-{job.id}", daemon=True)
        keeper.start()
        try:
            yield halt
        finally:
            over.set()
            keeper.join()

    def _update_counts(self, job: Job) -> Job:
        """Count the tasks that are left, and start again where the version has changed."""
        version, count = self._spec(job).version, self._client.count
        tasks = self._store.tasks(job)
        if tasks.wanted.ids is None:
            job, tasks = self._choose(job, tasks, version)

        lacking = count(job.project, tasks.lacking(version))
        if job.version != version:
            there = count(job.project, tasks.wanted)
            total = job.done + job.skipped + job.failed + there
            return self._store.advance(
                job.id, self._owner, skipped=there - lacking, version=version, total=total
            )

        left = (job.total or 0) - job.done - job.skipped - job.failed
        more = left - max(0, lacking - job.failed)  # written without our noting it, or new tasks
        total = (job.total or 0) - min(0, more)
        return self._store.advance(job.id, self._owner, done=max(0, more), total=total)

    def _choose(self, job: Job, tasks: JobTasks, version: str) -> tuple[Job, JobTasks]:
        """Choose the tasks of a job that is not about all of its project; keep them with it."""
        ids = self._scope.choose(
            self._client, job.project, tasks.lacking(version), view=job.view, limit=job.limit
        )
        if ids is None:
            return job, tasks
        job = self._store.advance(job.id, self._owner, scope=ids)
        return job, self._store.tasks(job)

    def _walk(self, job: Job, halt: threading.Event, watch: Callable[[Job], None]) -> Job:
        """Predict and write all tasks that lack a prediction, a few chunks at the same time.

        Those at which the process has died come last, and from the second time on alone: one of
        them may end it again.
        """
        job = self._walk_through(job, self._chunks(job), _CHUNKS_AHEAD, halt, watch)
        return self._walk_through(job, self._suspects(job), 1, halt, watch)

    def _walk_through(
        self,
        job: Job,
        chunks: Iterator[list[Task]],
        at_once: int,
        halt: threading.Event,
        watch: Callable[[Job], None],
    ) -> Job:
        spec = self._spec(job)
        moving: deque[tuple[list[Task], Future[ChunkResult]]] = deque()

        with ThreadPoolExecutor(_CHUNKS_AHEAD, thread_name_prefix=f"job-{job.id}") as pool:
            try:
                while True:
                    while len(moving) < at_once and not halt.is_set():
                        if (chunk := next(chunks, None)) is None:
                            break
                        future = pool.submit(self._predict_chunk, job, spec, chunk, halt)
                        moving.append((chunk, future))
                    at_work = [int(task.id or 0) for chunk, _ in moving for task in chunk]
                    job = self._store.advance(job.id, self._owner, at_work=at_work)

                    if not moving:
                        return job
                    step = moving.popleft()[1].result()
                    self._scores.keep(job.project, spec.version, step.made)
                    job = self._store.advance(
                        job.id, self._owner, done=len(step.made), failures=step.failures
                    )
                    watch(job)
            except BaseException:
                halt.set()  # or the pool would wait for whole chunks
                raise

    def _chunks(self, job: Job) -> Iterator[list[Task]]:
        """Yield the tasks that lack a prediction, until the version changes."""
        its = self._store.tasks(job)
        lacking = self._client.all_tasks(job.project, its.lacking(job.version))
        tasks = (task for task in lacking if task.id not in its.touched)
        for size in chain(_FIRST_CHUNKS, repeat(chunk_size(job.total or 0))):
            chunk = list(islice(tasks, size)) if self._is_current(job) else []
            if not chunk:
                return
            yield chunk

    def _suspects(self, job: Job) -> Iterator[list[Task]]:
        """Yield the tasks at which the process has died, but fail those at which it did often."""
        its = self._store.tasks(job)
        hopeless = its.hopeless()
        if hopeless:
            failures = [(task, deadly(task)) for task in hopeless]
            self._store.advance(job.id, self._owner, failures=failures)

        lacking = its.lacking(job.version)
        for group in its.suspects():
            tasks = self._client.tasks(job.project, replace(lacking, ids=group), len(group))
            if tasks and self._is_current(job):
                yield tasks

    def _is_current(self, job: Job) -> bool:
        """Return whether predictions made now would be of the version that the job makes."""
        return self._spec(job).version == job.version

    def _predict_chunk(
        self, job: Job, spec: PredictionSpec, tasks: Sequence[Task], halt: threading.Event
    ) -> ChunkResult:
        def predict(tasks: Sequence[Task]) -> list[Outcome]:
            return self._task_runner.run_all(tasks, spec, self._predictor.outcome, halt)

        return predict_and_write(self._client, job.project, spec.version, tasks, predict, halt=halt)

    def _spec(self, job: Job) -> PredictionSpec:
        """Return what to predict, by the version that the job has started with where it can."""
        config = self._client.config(job.project)
        learned = self._predictor.versions.active_model(config, job.project, keep=job.version)
        return self._predictor.spec(config, Priority.BATCH, job.project, learned)


def _predict_all(
    tasks: Sequence[Task],
    predict: Callable[[Sequence[Task]], list[Outcome]],
    wait: Callable[[], None],
) -> dict[int, Outcome]:
    """Return task -> its outcome; what may pass is predicted again a few times, after a wait."""
    by_id: dict[int, Outcome] = {}
    again = tasks
    for attempt in range(_TRIES):
        if attempt:
            wait()
        made = list(zip(again, predict(again), strict=True))
        by_id |= {int(task.id or 0): outcome for task, outcome in made}
        again = [task for task, outcome in made if outcome.may_pass]
        if not again:
            break
    return by_id


def chunk_size(total: int) -> int:
    """Return how many tasks of a job with this many are predicted and written together.

    >>> chunk_size(100), chunk_size(10_000), chunk_size(1_000_000)
    (25, 40, 200)
    """
    return min(max(CHUNK, total // _PARTS), _LARGEST_CHUNK)
