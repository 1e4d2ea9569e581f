"""Report the status of a running backend: for ``/status``, and for the dashboard.

Nothing here waits for the model, for Label Studio, or for an image.
"""

import logging
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import asdict, replace
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import error_message
from backend.feedback.sums import GroupSums
from backend.inference.engine import Snapshot
from backend.inference.queue import Priority
from backend.jobs.change_poller import Poll
from backend.jobs.job_store import Job
from backend.projects.failures import FailingTask, FailureCount, FailureStore
from backend.services import Services
from backend.telemetry.logs import known_secrets, scrub
from backend.telemetry.task_tracker import RefusedRequest, TaskTracker, TrackedTask
from backend.views.jobs import Failure, JobView, ProjectFigures
from backend.views.status import (
    CachesUse,
    ConnectionStatus,
    DeviceMemory,
    ModelStatus,
    PolledProject,
    RunningTask,
    Status,
    WaitingTasks,
    WordsUse,
)
from backend.web.metrics import gpu_memory_bytes

log = logging.getLogger(__name__)

_Counts = Mapping[tuple[Priority, Any], int]

ROWS_SHOWN: Final = 20  # how many jobs and how many failures are shown; ``/jobs`` lists more jobs
_TASK_ID_LENGTH: Final = 100  # longest task id that is shown, in characters

_PACKAGES: Final = ("clearclip-label-studio", "torch", "open_clip_torch")


class StatusSerializer:
    """Serialize what `StatusReport` and the job routes answer."""

    def __init__(self, services: Services) -> None:
        self._files, self._watch = services.files, services.connection_watch
        self._secrets = tuple(known_secrets(services.settings))

    def job(self, job: Job) -> JobView:
        scrubbed = replace(job, reason=self.scrub(job.reason))
        eta_s = None if self._watch.trouble else job.eta_s
        return JobView(
            **asdict(scrubbed),
            can_resume=self._can_resume(job),
            over=job.over,
            remaining=job.remaining,
            rate=job.rate,
            eta_s=eta_s,
            url=self._files.task_url(job.project),
        )

    def _can_resume(self, job: Job) -> bool:
        """Whether a job that does nothing would go on; in a project that is gone it fails again."""
        return job.state in ("paused", "failed") and not self._watch.is_gone(job.project)

    def running_task(self, running: TrackedTask) -> RunningTask:
        """Serialize a task that is being worked on; an id that is a text comes from outside."""
        task = running.task
        return RunningTask(
            task=self.scrub(task)[:_TASK_ID_LENGTH] if isinstance(task, str) else task,
            project=running.project,
            urgency=running.priority,
            seconds=running.seconds,
            stage=running.stages.now,
            url=self._files.task_url(running.project, running.task),
        )

    def failing_task(self, failing: FailingTask) -> Failure:
        """Serialize a task without a prediction."""
        return Failure(
            task=failing.task,
            project=failing.project,
            job=failing.job or None,
            at=failing.at,
            since=failing.since,
            sentence=self.scrub(failing.reason),
            url=self._files.task_url(failing.project, failing.task),
        )

    def refused_request(self, refused: RefusedRequest) -> Failure:
        """Serialize a request that was refused with all of its tasks."""
        return Failure(at=refused.at, since=refused.at, sentence=self.scrub(refused.sentence))

    def scrub(self, sentence: str) -> str:
        """Cut secrets out of a sentence."""
        return scrub(sentence, self._secrets)


@dataclass(frozen=True)
class StoredStatus:
    """The rows of the database that the pages show."""

    jobs: tuple[Job, ...] = ()  # the newest jobs; those that are not over come first
    failing: tuple[FailingTask, ...] = ()  # without a prediction, the last first
    failure_count: FailureCount = field(default_factory=FailureCount)
    failing_by_project: Mapping[int, int] = field(default_factory=dict)  # its tasks
    annotations: Mapping[int, GroupSums] = field(default_factory=dict)  # of a project
    polls: tuple[Poll, ...] = ()
    gone: frozenset[int] = frozenset()  # projects that Label Studio no longer has
    trouble: str = ""  # what is wrong with the database, in one sentence; empty if it could be read


class StatusReport:
    """Read the status of the backend's parts, and of the tasks that run and that have failed."""

    def __init__(self, services: Services, tracker: TaskTracker) -> None:
        self._services = services
        self._tracker = tracker
        self._failures = FailureStore(services.database)
        self.serializer = StatusSerializer(services)
        packages = {name: version(name) for name in _PACKAGES}
        self._versions = {"python": platform.python_version(), **packages}
        self._started_at = time.time()

    def read(self) -> Status:
        """Read the status of one moment."""
        now, tasks = self._services.engine.snapshot(), self._services.task_runner.count_waiting()
        stored = self._read_database()
        jobs = tuple(self.serializer.job(job) for job in stored.jobs)
        running = tuple(self.serializer.running_task(task) for task in self._tracker.running)

        return Status(
            at=time.time(),
            started_at=self._started_at,
            label_studio=self._services.files.browser_url,
            connection=self._connection(stored.polls),
            model=self._model(now),
            waiting=_waiting(now, tasks),
            vocabularies=now.vocabularies,
            running=running,
            done=self._tracker.done,
            remaining=_remaining(now, tasks, jobs),
            pictures_per_second=round(self._tracker.images_per_second, 3),
            eta_s=_eta_s(jobs),
            jobs=jobs,
            jobs_trouble=stored.trouble,
            served=_served(stored, jobs),
            errors=self._errors(stored),
            failing=stored.failure_count,
            caches=self._caches(now),
            gpu_memory_bytes=_gpu_memory(),
            versions=self._versions,
        )

    def _read_database(self) -> StoredStatus:
        """Read the database; where that fails, the status holds nothing but the trouble."""
        try:
            return self._read_rows()
        except SQLAlchemyError as error:
            log.warning("The database of jobs cannot be read: %s", error)
            sentence = f"The database of jobs cannot be read ({error_message(error)})."
            return StoredStatus(trouble=sentence)

    def _read_rows(self) -> StoredStatus:
        poller, is_gone = self._services.change_poller, self._services.connection_watch.is_gone
        polls = tuple(poller.polls.list_polls()) if poller.client else ()
        jobs = self._services.store.list_jobs(limit=ROWS_SHOWN)
        failing, annotations = self._failures.by_project(), self._services.annotations.totals()
        known = failing.keys() | annotations.keys() | {job.project for job in jobs}
        gone = {*filter(is_gone, known - {poll.project for poll in polls})}  # polls find new ones
        return StoredStatus(
            jobs=tuple(sorted(jobs, key=lambda job: job.over)),
            failing=tuple(self._failures.failing(ROWS_SHOWN, gone)),
            failure_count=self._failures.count(gone),
            failing_by_project=failing,
            annotations=annotations,
            polls=polls,
            gone=frozenset(gone),
        )

    def _connection(self, polls: Iterable[Poll]) -> ConnectionStatus:
        """Return what background threads have found out about Label Studio; ask it nothing."""
        poller, scrubbed = self._services.change_poller, self.serializer.scrub
        polled = (
            PolledProject(
                project=poll.project,
                url=self._services.files.task_url(poll.project),
                at=poll.polled or None,
                tasks=poll.tasks if poll.polled else None,
                trouble=scrubbed(poll.trouble),
            )
            for poll in polls
        )
        return ConnectionStatus(
            trouble=scrubbed(self._services.connection_watch.trouble),
            poll_interval_s=poller.settings.poll_interval_s if poller.client else None,
            polled=tuple(polled),
        )

    def _model(self, now: Snapshot) -> ModelStatus:
        settings = self._services.settings
        clicks = settings.click_model
        return ModelStatus(
            name=settings.encoders,
            clicks=f"clicks and boxes by {clicks}" if clicks else "",
            method=settings.method,
            device=now.device,
            precision=now.precision,
            state=now.status.state,
            reason=self.serializer.scrub(now.status.reason),
        )

    def _errors(self, stored: StoredStatus) -> tuple[Failure, ...]:
        """Return what failed last first: tasks, and requests of Label Studio."""
        errors = [self.serializer.failing_task(each) for each in stored.failing]
        errors += [self.serializer.refused_request(each) for each in self._tracker.refusals]
        return tuple(sorted(errors, key=attrgetter("at"), reverse=True)[:ROWS_SHOWN])

    def _caches(self, now: Snapshot) -> CachesUse:
        return CachesUse(
            features=now.cache,
            words=WordsUse(now.words_known, now.words_new),
            pictures=self._services.images.cache_stats,
        )


def _gpu_memory() -> dict[str, DeviceMemory]:
    return {device: DeviceMemory(**kinds) for device, kinds in gpu_memory_bytes().items()}


def _served(stored: StoredStatus, jobs: Sequence[JobView]) -> tuple[ProjectFigures, ...]:
    """Return the figures of each project that is connected, has a job, or was read from.

    The project with most failures comes first, then the one with most annotations.
    """
    polls = {poll.project: poll for poll in stored.polls}
    with_job = {job.project for job in jobs}
    found = []
    for project in (polls.keys() | stored.annotations.keys() | with_job) - stored.gone:
        sums = stored.annotations.get(project, GroupSums())
        poll = polls.get(project, Poll(project))
        figures = ProjectFigures(
            project=project,
            tasks=poll.tasks if poll.polled else None,
            left=poll.tasks_left if poll.polled else None,
            annotations=sum(sums.kinds.values()),
            accepted_share=sums.total.accepted_share,
            failing=stored.failing_by_project.get(project, 0),
        )
        found.append(figures)
    order = attrgetter("failing", "annotations", "project")
    return tuple(sorted(found, key=order, reverse=True))


def _waiting(now: Snapshot, tasks: _Counts) -> tuple[WaitingTasks, ...]:
    """Count waiting work by priority and project.

    Of prompts these are images in the engine's queue, else tasks, running ones included.
    """
    lines = {key: n for key, n in now.waiting_by_project.items() if key[0] is Priority.INTERACTIVE}
    lines |= tasks
    return tuple(
        WaitingTasks(urgency=priority.word, project=project, count=count)
        for (priority, project), count in sorted(lines.items(), key=lambda line: line[0][0])
    )


def _remaining(now: Snapshot, tasks: _Counts, jobs: Sequence[JobView]) -> int:
    """Count what is still to be done; a running job already counts the batches of its project."""
    running = {(Priority.BATCH, job.project) for job in jobs if job.state == "running"}
    of_jobs = sum(job.remaining or 0 for job in jobs if not job.over)
    of_others = sum(count for key, count in tasks.items() if key not in running)
    return of_jobs + of_others + now.waiting[Priority.INTERACTIVE]


def _eta_s(jobs: Sequence[JobView]) -> float | None:
    """Return the seconds until the last running job ends; None if one of them has no estimate."""
    estimates = [job.eta_s for job in jobs if job.state == "running"]
    known = [each for each in estimates if each is not None]
    return max(known) if known and len(known) == len(estimates) else None
