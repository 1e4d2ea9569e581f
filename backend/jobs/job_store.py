"""Jobs in the shared database: tasks of projects to predict, or predictions to withdraw.

The owner that has leased a job works on it, and renews the lease with each step; when it dies,
another goes on where the job was left. Its deaths are counted as those of all leases are, see
`backend.database.leases`.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal, get_args

import msgspec
import sqlalchemy as sa

from backend.database.database import LOCK, METADATA, Database
from backend.database.leases import (
    ENDED,
    LEASE_S,
    NO_TASK,
    Deaths,
    LeaseLost,
    Leases,
    is_leased,
    lease_columns,
    read_deaths,
    renewed,
    write_tasks,
)
from backend.errors import JobOver, NotFound, WithdrawalRefused
from backend.jobs.job_tasks import JobTasks
from backend.label_studio.task_filter import TaskFilter
from backend.projects.failures import FailureStore

JobState = Literal["queued", "running", "paused", "cancelled", "done", "failed"]
JobKind = Literal["project", "new", "late", "withdrawal"]
Only = Literal["unlabeled", "all"]

_OVER: Final = ("cancelled", "done", "failed")  # states in which nothing more happens to a job
_MERGED: Final = ("new", "late")  # kinds of jobs that take further tasks until they start

_JOBS: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Integer, nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("only", sa.String(16), nullable=False),
    sa.Column("view", sa.Integer),
    sa.Column("limit", sa.Integer),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("version", sa.Text, nullable=False, default=""),
    sa.Column("total", sa.Integer),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("skipped", sa.Integer, nullable=False, default=0),
    sa.Column("failed", sa.Integer, nullable=False, default=0),
    sa.Column("cursor", sa.BigInteger, nullable=False, default=0),
    sa.Column("worked_s", sa.Float, nullable=False, default=0.0),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    sa.Column("withdraws", sa.Integer, index=True),
    *lease_columns(),
    sqlite_autoincrement=True,
)

#: The tasks of jobs that are not about all of their project. A list may be many megabytes: in the
#: row of its job, SQLite would write it again with each step.
_LISTS: Final = sa.Table(
    "job_tasks",
    METADATA,
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tasks", sa.Text, nullable=False),  # a JSON list of ids
)


class Job(msgspec.Struct, frozen=True, rename={"only": "filter"}):
    """The tasks of a project to predict, and how many of them are done.

    Times are in seconds since the epoch.
    """

    id: int
    project: int
    #: For a "project" as somebody asked for; its "new" tasks; those that a request has left over
    #: "late", at its deadline; or the "withdrawal" of another job's predictions.
    kind: JobKind
    only: Only
    view: int | None  # tasks of this view of the data manager only; None for all
    limit: int | None
    state: JobState  # a queued job waits for a worker, a paused one for somebody who resumes it
    version: str
    #: None before its tasks are counted; a withdrawal takes off those with other runs' predictions.
    total: int | None
    done: int  # tasks that are predicted; of a withdrawal, those whose prediction is deleted
    skipped: int  # tasks that had such a prediction; of a withdrawal, those that keep theirs
    failed: int
    cursor: int  # of a withdrawal, the task id up to which all tasks are dealt with
    worked_s: float
    reason: str
    created: float
    updated: float
    started: float | None
    finished: float | None
    withdraws: int | None  # id of the job whose predictions a withdrawal deletes
    owner: str
    leased_until: float

    @property
    def over(self) -> bool:
        """Whether it is cancelled, done or failed."""
        return self.state in _OVER

    @property
    def remaining(self) -> int | None:
        """The number of tasks that are left; None before they are counted."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - self.skipped - self.failed)

    @property
    def rate(self) -> float:
        """Predictions per second, over the time that it ran."""
        return self.done / self.worked_s if self.worked_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until it is done at this rate; None where the rate is unknown."""
        if self.remaining is None or (self.remaining and not self.rate):
            return None
        return self.remaining / self.rate if self.remaining else 0.0


class JobStore:
    """The jobs table of a database.

    Methods raise `NotFound` for a number that no job has, `JobOver` where a job that is over is
    changed, and `LeaseLost` where another owner works on it.

    >>> store = JobStore(Database("sqlite://"))  # in memory
    >>> job = store.start_job(project=7)
    >>> job.id, job.state, store.start_job(project=7).id
    (1, 'queued', 1)
    >>> store.lease_job("worker").state
    'running'
    >>> store.pause(1).state, store.resume(1).state, store.cancel(1).state
    ('paused', 'queued', 'cancelled')
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._failures = FailureStore(database)

    # ---- requests of people ----------------------------------------------------------------------

    def start_job(
        self,
        project: int,
        *,
        kind: JobKind = "project",
        only: Only = "unlabeled",
        view: int | None = None,
        limit: int | None = None,
        tasks: Iterable[int] | None = None,
    ) -> Job:
        """Queue a job, unless an equal one is not over; that is resumed if paused.

        New tasks of a project join its queued job of kind "new", and late ones that of kind "late":
        `tasks` are theirs.
        """
        asked = {"project": project, "kind": kind, "only": only, "view": view, "limit": limit}
        with self.database.write_exclusively(LOCK) as connection:
            row = connection.execute(_equal_job(asked)).first()
            if row is None:
                return self._insert(connection, asked, tasks)
            if kind in _MERGED:
                before = _read_list(connection, row.id) or ()
                _write_list(connection, row.id, {*before, *(tasks or ())})
            if row.state == "paused":
                return self._change(connection, row.id, state="queued")
            return _job(row)

    def start_withdrawal(self, job: int) -> Job:
        """Queue the withdrawal of a job's predictions, unless one is queued or under way."""
        with self.database.write_exclusively(LOCK) as connection:
            of = self._get(connection, job)
            if of.kind == "withdrawal" or not of.done:
                raise WithdrawalRefused(f"Job {of.id} has written no predictions.")
            if not of.over:
                raise WithdrawalRefused(f"Job {of.id} is {of.state}: cancel it first.")
            same = sa.select(_JOBS).where(_JOBS.c.withdraws == job, _JOBS.c.state.not_in(_OVER))
            row = connection.execute(same.limit(1)).first()
            if row is not None:
                return _job(row)
            asked = {"project": of.project, "kind": "withdrawal", "only": "all", "withdraws": job}
            return self._insert(connection, {**asked, "version": of.version}, None)

    def list_jobs(self, project: int | None = None, limit: int = 100) -> list[Job]:
        """Return the newest jobs, of one project or of all, newest first."""
        query = sa.select(_JOBS).order_by(_JOBS.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(_JOBS.c.project == project)
        return [_job(row) for row in self.database.rows(query)]

    def count_states(self) -> dict[str, int]:
        """Return how many jobs are in each state, also in those in which there is no job."""
        query = sa.select(_JOBS.c.state, sa.func.count()).group_by(_JOBS.c.state)
        return dict.fromkeys(get_args(JobState), 0) | dict(self.database.rows(query))

    def get_job(self, job: int) -> Job:
        with self.database.read() as connection:
            return self._get(connection, job)

    def task_ids(self, job: int) -> tuple[int, ...] | None:
        """Return the ids of a job's tasks in ascending order; None for all tasks of its project.

        Of a withdrawal, these are the tasks that keep their prediction.
        """
        with self.database.read() as connection:
            self._get(connection, job)
            return _read_list(connection, job)

    def tasks(self, job: Job) -> JobTasks:
        """Return the tasks of a job that predicts, with what has happened at them so far."""
        labeled = False if job.only == "unlabeled" else None
        query = sa.select(_JOBS.c.deaths).where(_JOBS.c.id == job.id)
        deaths = read_deaths(self.database.scalar(query) or "{}")
        return JobTasks(
            TaskFilter(labeled=labeled, ids=self.task_ids(job.id)),
            failed=frozenset(self._failures.task_ids(job.id)),
            deaths={task: number for task, number in deaths.items() if task != NO_TASK},
        )

    def new_task_ids(self, project: int, limit: int = 100) -> set[int]:
        """Return the ids of the tasks in the newest jobs of kind "new" of a project."""
        query = sa.select(_JOBS.c.id).where(_JOBS.c.project == project, _JOBS.c.kind == "new")
        return self._tasks_in(query.order_by(_JOBS.c.id.desc()).limit(limit))

    def add_late_tasks(self, project: int, tasks: Collection[int]) -> None:
        """Queue tasks of a project that a request has left over."""
        self.start_job(project, kind="late", only="all", tasks=tasks)

    def late_task_ids(self, project: int, ended_within_s: float) -> set[int]:
        """Return the tasks of late jobs that are to run, run, or have ended in the last seconds."""
        now = self.database.clock()
        has_ended = _JOBS.c.finished.between(now - ended_within_s, now)  # not before a clock's jump
        query = sa.select(_JOBS.c.id).where(
            _JOBS.c.project == project,
            _JOBS.c.kind == "late",
            _JOBS.c.state.in_(("queued", "running")) | has_ended,
        )
        return self._tasks_in(query)

    def pause(self, job: int) -> Job:
        return self._set_state(job, "paused", ("queued", "running"))

    def resume(self, job: int) -> Job:
        """Queue a job again that was paused or has failed; it goes on where it was."""
        return self._set_state(job, "queued", ("paused", "failed"))

    def cancel(self, job: int) -> Job:
        """Cancel a job; the predictions that it has written stay."""
        return self._set_state(job, "cancelled", ("queued", "running", "paused"))

    def leased_job(self, project: int) -> Job | None:
        """Return the job of a project that keeps others waiting; None where there is none."""
        leased = is_leased(_JOBS, self.database.clock())
        query = sa.select(_JOBS).where(_JOBS.c.project == project, _JOBS.c.kind != "late", leased)
        return next(map(_job, self.database.rows(query.limit(1))), None)

    # ---- work under a lease ----------------------------------------------------------------------

    def lease_job(
        self,
        owner: str,
        job: int | None = None,
        *,
        late: bool = False,
        held: Collection[int] = (),
    ) -> Job | None:
        """Lease the oldest job that waits, or whose owner has died, or that job alone.

        Of each project, one job at a time is leased, and one of late tasks beside it. Of projects
        that are `held`, jobs of new tasks wait.
        """
        now = self.database.clock()
        other = _JOBS.alias()
        taken = sa.exists().where(
            other.c.project == _JOBS.c.project,
            other.c.id != _JOBS.c.id,
            (other.c.kind == "late") == late,
            is_leased(other, now),
        )
        query = sa.select(_JOBS).where(_JOBS.c.state.in_(("queued", "running")), ~taken)
        query = query.where((_JOBS.c.kind == "late") == late).order_by(_JOBS.c.id).limit(1)
        if held:
            query = query.where(sa.or_(_JOBS.c.kind != "new", _JOBS.c.project.not_in(held)))
        if job is not None:
            query = query.where(_JOBS.c.id == job)

        def begin(row: sa.Row[Any], _deaths: Deaths) -> dict[str, Any]:
            started = row.started if row.started is not None else now
            return {"state": "running", "reason": "", "updated": now, "started": started}

        leases = Leases(self.database, _JOBS, owner)  # each step renews
        rows = leases.take(query, begin)
        return self.get_job(rows[0].id) if rows else None

    def advance(
        self,
        job: int,
        owner: str,
        *,
        scope: Iterable[int] | None = None,
        done: int = 0,
        skipped: int = 0,
        failures: Sequence[tuple[int, str]] = (),
        at_work: Sequence[int] | None = None,
        **changes: str | int,
    ) -> Job:
        """Write a step of a leased job in one transaction, and renew the lease if it is not over.

        It adds what was predicted, skipped and failed in this step. `scope` are its tasks from now
        on, `at_work` those that the owner is at; None leaves them. `changes` are new values of the
        version, the total or the cursor. Return the job as it is now: if it is not running any
        more, its owner has to release it.
        """
        now = self.database.clock()
        with self.database.write_exclusively(LOCK) as connection:
            before = self._owned(connection, job, owner)
            values: dict[str, Any] = {
                "done": before.done + done,
                "skipped": before.skipped + skipped,
                "failed": before.failed + len(failures),
                "worked_s": before.worked_s + max(0.0, min(now - before.updated, LEASE_S)),
            }

            if not before.over:  # nobody would release that lease
                values |= renewed(now)

            if before.state == "queued":  # paused and resumed before its owner noticed
                values["state"] = "running"

            if at_work is not None:
                values["at_work"] = write_tasks(at_work)

            if scope is not None:
                _write_list(connection, job, scope)

            if failures:
                self._failures.insert(connection, failures, job, before.project)

            return self._change(connection, job, **values, **changes)

    def release(self, job: int, owner: str) -> Job:
        """End the lease of a job, so that another owner may lease the job at once."""
        with self.database.write_exclusively(LOCK) as connection:
            state = self._owned(connection, job, owner).state
            state = "queued" if state == "running" else state
            return self._change(connection, job, state=state, **ENDED)

    def expire(self, job: int, owner: str) -> None:
        """End the lease of an owner that has died; whoever takes the job over counts the death."""
        with self.database.write_exclusively(LOCK) as connection:
            if self._owned(connection, job, owner).leased_until:
                self._change(connection, job, leased_until=self.database.clock() - 1)

    def finish(self, job: int, owner: str, reason: str = "") -> Job:
        """Finish a leased job: done, or failed where there is a reason."""
        with self.database.write_exclusively(LOCK) as connection:
            before = self._owned(connection, job, owner)
            state = before.state if before.state == "cancelled" else "failed" if reason else "done"
            over = {"state": state, "reason": reason, "finished": self.database.clock()}
            return self._change(connection, job, **over, **ENDED)

    # ---- inside ----------------------------------------------------------------------------------

    def _tasks_in(self, jobs: sa.Select[tuple[int]]) -> set[int]:
        """Return the tasks in the lists of any of some jobs."""
        lists = self.database.rows(sa.select(_LISTS.c.tasks).where(_LISTS.c.job.in_(jobs)))
        return {id_ for (ids,) in lists for id_ in json.loads(ids)}

    def _insert(
        self, connection: sa.Connection, asked: dict[str, Any], tasks: Iterable[int] | None
    ) -> Job:
        now = self.database.clock()
        values = asked | {"created": now, "updated": now, "state": "queued"}
        key = connection.execute(sa.insert(_JOBS).values(values)).inserted_primary_key
        assert key is not None
        if tasks is not None:
            _write_list(connection, key[0], tasks)
        return self._get(connection, key[0])

    def _set_state(self, job: int, to: JobState, allowed: tuple[JobState, ...]) -> Job:
        with self.database.write_exclusively(LOCK) as connection:
            before = self._get(connection, job)
            if before.state == to or (to == "queued" and before.state == "running"):
                return before
            if before.state not in allowed:
                raise JobOver(f"Job {job} is {before.state}: it cannot become {to}.")
            finished = self.database.clock() if to in _OVER else None
            return self._change(connection, job, state=to, finished=finished)

    def _get(self, connection: sa.Connection, job: int) -> Job:
        row = connection.execute(sa.select(_JOBS).where(_JOBS.c.id == job)).first()
        if row is None:
            raise NotFound(f"There is no job {job}.")
        return _job(row)

    def _owned(self, connection: sa.Connection, job: int, owner: str) -> Job:
        found = self._get(connection, job)
        if found.owner != owner:
            raise LeaseLost(f"Job {job} is worked on by {found.owner}.")
        return found

    def _change(self, connection: sa.Connection, job: int, **changes: Any) -> Job:
        changes["updated"] = self.database.clock()
        connection.execute(sa.update(_JOBS).where(_JOBS.c.id == job).values(changes))
        return self._get(connection, job)


def _job(row: sa.Row[Any]) -> Job:
    return Job(**{name: row._mapping[name] for name in Job.__struct_fields__})


def _equal_job(asked: dict[str, Any]) -> sa.Select[Any]:
    """Select an equal job that is not over; of a merged kind, any that has not started."""
    query = sa.select(_JOBS).order_by(_JOBS.c.id).limit(1)
    if asked["kind"] in _MERGED:
        query = query.where(_JOBS.c.state == "queued", _JOBS.c.started.is_(None))
    else:
        query = query.where(_JOBS.c.state.not_in(_OVER))
    return query.where(*(_JOBS.c[name].is_not_distinct_from(asked[name]) for name in asked))


def _read_list(connection: sa.Connection, job: int) -> tuple[int, ...] | None:
    """Return the ids of a job's tasks in ascending order; None where it has no list."""
    ids = connection.scalar(sa.select(_LISTS.c.tasks).where(_LISTS.c.job == job))
    return None if ids is None else tuple(json.loads(ids))


def _write_list(connection: sa.Connection, job: int, tasks: Iterable[int]) -> None:
    values = {"tasks": json.dumps(sorted(set(tasks)))}
    if not connection.execute(sa.update(_LISTS).where(_LISTS.c.job == job).values(values)).rowcount:
        connection.execute(sa.insert(_LISTS).values(job=job, **values))
