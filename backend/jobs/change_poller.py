"""Poll Label Studio for what has changed in connected projects.

A poll walks through the tasks that changed since the mark of its project, page by page in the order
of ids; the first poll of a project through all annotated ones, the newest first. It marks those of
their annotations that are in another state than the one that was read, and queues a job for new
tasks where their project is prelabeled by itself. The mark moves when the walk is done, so that
nothing is lost where it is cut short. Webhooks only make a poll come sooner.

The mark is a time on Label Studio's clock and is compared with no other clock. A change may become
visible late, after a long transaction, or come from a server of Label Studio whose clock is behind.
So each walk begins `OVERLAP_S` before the mark, and the last change is walked over until it is so
old.

A task that Label Studio cannot serve is left out, so that the others count. It is kept with its
project, and asked for again, less often each time.

A prediction may be stored twice: two requests overlap, or an import that a killed backend has sent
is stored late. Where a project's predictions have changed, a poll deletes second ones as well.

Backends that share a database take turns: one leases a project that is due.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, Final, TypeGuard

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from backend.database.database import METADATA, Database
from backend.database.leases import FINISHED, RELEASED, Leases, is_due, lease_columns
from backend.errors import BackendError, BadRequest, LabelConfigError, StudioRefused
from backend.feedback.annotation_reader import is_ours
from backend.feedback.annotation_store import LONGEST_RETRY_S, AnnotationStore, retry_delay_s
from backend.jobs.job_store import JobStore
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.records import TaskContents, TaskRow
from backend.projects.task_scope import TaskScope
from backend.settings import Settings, prelabels

log = logging.getLogger(__name__)

#: How late a change may become visible, and how far clocks of Label Studio's servers may differ.
OVERLAP_S: Final = 60.0

#: How long after its first setup a project is polled: Label Studio asks for the setup before it
#: connects the backend.
SETTLED_AFTER_S: Final = 10.0

#: How long a task may have two predictions of one version before one is deleted. Somebody may have
#: it open, and Label Studio refuses what is submitted with a prediction that is gone. The first
#: stroke makes a draft, and tasks with a draft are left alone.
DOUBLE_FOR_S: Final = 60.0

#: A search for second predictions rests this many times as long as it took: of a project with older
#: predictions it goes through all tasks.
_REST_FACTOR: Final = 9

#: How long the number of tasks left stands while no task changes, in seconds. A changed setting of
#: the project, such as how many annotations a task needs, changes that number and no task.
_RECOUNT_AFTER_S: Final = 600.0

#: The most tasks of a page that are left out, as Label Studio cannot serve them.
_MOST_UNSERVED: Final = 20

#: How soon a project is polled after a webhook: a burst of webhooks is one poll.
_WAKE_AFTER_S: Final = 1.0

#: Most projects whose setup or webhook is remembered: anybody may send them.
_MOST_PROJECTS: Final = 1000
_LARGEST_PROJECT: Final = (1 << 31) - 1

_POLLS: Final = sa.Table(
    "polls",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("since", sa.Float, nullable=False, default=0.0),  # on Label Studio's clock
    sa.Column("noted", sa.Float, nullable=False, default=0.0),
    sa.Column("walked", sa.Float, nullable=False, default=0.0),
    sa.Column("polled", sa.Float, nullable=False, default=0.0),
    sa.Column("due", sa.Float, nullable=False, default=0.0, index=True),
    sa.Column("tasks", sa.Integer, nullable=False, default=0),
    sa.Column("tasks_left", sa.Integer),
    sa.Column("trouble", sa.Text, nullable=False, default=""),
    sa.Column("unserved", sa.Text, nullable=False, default="{}"),  # JSON: task -> `UnservedTask`
    *lease_columns(),
)
_ROW: Final = _POLLS.c

_LOCK: Final = 0xC1EA5011  # the advisory lock of PostgreSQL under which a poll is leased


class UnservedTask(msgspec.Struct, frozen=True):
    """A task that Label Studio could not serve. Times are in seconds since the epoch."""

    reason: str
    tries: int
    due: float  # when it is asked for again, on the database's clock
    updated: float  # when it was changed last, on Label Studio's clock


@dataclass(frozen=True)
class Poll:
    """How far a project was polled. Times are in seconds since the epoch."""

    project: int
    since: float = 0.0  # on Label Studio's clock: all changes up to it are kept; 0: not known
    noted: float = 0.0  # when `since` was found to be the newest change
    walked: float = 0.0  # when the last walk through all changes began that came to its end
    polled: float = 0.0  # when the project was polled last without an error; 0: never
    tasks: int = 0  # the number of the project's tasks at `polled`
    tasks_left: int | None = None  # of these, those still to be annotated; None: never counted
    trouble: str = ""  # why the last poll failed; empty where it did not
    unserved: Mapping[int, UnservedTask] = field(default_factory=dict)

    def has_all(self, newest: float) -> bool:
        """Return whether nothing has changed since a walk that came too late to miss anything.

        Args:
            newest: the time of the project's newest change, on Label Studio's clock.
        """
        return newest <= self.since and self.walked >= self.noted + OVERLAP_S


_OF_POLL: Final = [_ROW[each.name] for each in fields(Poll)]


@dataclass(frozen=True)
class _Search:
    """The last search for second predictions of a project. Times are monotonic, in seconds."""

    state: tuple[float, int] = (0.0, -1)  # the newest change, the number of predictions
    rests_until: float = -inf
    doubles: Mapping[int, float] = field(default_factory=dict)  # task -> when they were found


class PollStore:
    """The polls in a database, for one backend.

    >>> polls = PollStore(Database("sqlite://"), "worker")
    >>> polls.add(7, in_s=0)
    >>> polls.lease().project, polls.lease()
    (7, None)
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self.leases = Leases(database, _POLLS, owner, _LOCK)

    @property
    def now(self) -> float:
        """The time on the database's clock, in seconds since the epoch."""
        return self._database.clock()

    def add(self, project: int, in_s: float) -> None:
        """Add a project, first polled in `in_s` seconds; one that is there stays as it is."""
        with suppress(IntegrityError):
            self._database.execute(sa.insert(_POLLS).values(project=project, due=self.now + in_s))

    def remove(self, project: int) -> None:
        """Forget a project that is gone or no longer connected."""
        self.leases.let_go(project)
        self._database.execute(sa.delete(_POLLS).where(_ROW.project == project))

    def begin_again(self, project: int) -> None:
        """Forget up to when the changes of a project are kept, and let it be due."""
        again = sa.update(_POLLS).where(_ROW.project == project).values(since=0.0, due=self.now)
        self._database.execute(again)

    def wake(self, projects: Collection[int], in_s: float) -> None:
        """Let those of some projects that are here be due in `in_s` seconds at the latest."""
        due = self.now + in_s
        later = sa.update(_POLLS).where(_ROW.project.in_(projects), _ROW.due > due)
        self._database.execute(later.values(due=due))

    def list_polls(self) -> list[Poll]:
        """Return all polls, by ascending project."""
        return [*map(_poll, self._database.rows(sa.select(*_OF_POLL).order_by(_ROW.project)))]

    def lease(self, interval_s: float = LONGEST_RETRY_S) -> Poll | None:
        """Lease the project that is due the longest, of those polled in that interval, if any."""
        its = is_due(_ROW.due, self.now, max(interval_s, SETTLED_AFTER_S))
        rows = self.leases.take(sa.select(*_OF_POLL).where(its).order_by(_ROW.due).limit(1))
        return _poll(rows[0]) if rows else None

    def finish(self, poll: Poll, in_s: float) -> None:
        """Keep how far a project was polled, end its lease and poll it again in `in_s` seconds.

        Nothing is kept where another backend has taken the lease over: it finds the same changes.
        """
        kept = ("since", "noted", "walked", "tasks", "tasks_left")
        values = {name: getattr(poll, name) for name in kept}
        values["unserved"] = msgspec.json.encode(poll.unserved).decode()
        self._end(poll.project, in_s, polled=self.now, trouble="", **values, **FINISHED)

    def fail(self, project: int, trouble: str, in_s: float) -> None:
        """Keep why a project could not be polled, and end its lease; the mark stays."""
        self._end(project, in_s, trouble=trouble)

    def _end(self, project: int, in_s: float, **values: Any) -> None:
        self.leases.let_go(project)
        with self._database.write() as connection:
            values = {**RELEASED, **values, "due": self.now + in_s}
            self.leases.change(connection, project, **values)


@dataclass
class ChangePoller:
    """Polls the projects of one Label Studio; without a client, none.

    Requests tell of projects; one background thread polls. A project without changes costs one
    request for one task. Changed tasks with annotations cost one more for some of them together.
    """

    settings: Settings
    polls: PollStore
    annotations: AnnotationStore
    jobs: JobStore
    scope: TaskScope
    client: LabelStudioClient | None
    is_stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic  # in seconds
    _added: set[int] = field(default_factory=set)  # projects that are in the table
    _woken: set[int] = field(default_factory=set)
    _searches: dict[int, _Search] = field(default_factory=dict)
    _counted: dict[int, float] = field(default_factory=dict)  # project -> when, see `_count_left`
    #: Projects that are being polled, in the order of their turns, and the rest of their pages.
    _walks: deque[tuple[int, Iterator[bool]]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of `_woken`

    def note_setup(self, project: int | None) -> None:
        """Keep that Label Studio has asked for the setup of a project: it is to be polled."""
        if project in self._added or not self._may_be_polled(project, self._added):
            return
        try:
            self.polls.add(project, SETTLED_AFTER_S)
            self._added.add(project)
        except SQLAlchemyError as error:  # the next setup tells it again
            log.warning("Project %d is not polled for changes yet: %s", project, error)

    def wake(self, project: int | None) -> None:
        """Have a project polled soon, if it is polled at all; waits for nothing."""
        with self._lock:
            if self._may_be_polled(project, self._woken):
                self._woken.add(project)

    def look_through(self, client: LabelStudioClient, project: int) -> None:
        """Mark the annotations of a project that are not as they were read; somebody waits."""
        polls = {each.project: each.since for each in self.polls.list_polls()}
        since = polls.get(project)
        listed = client.changed_tasks(project, since - OVERLAP_S) if since else None
        for rows in listed or client.annotated_tasks(project):
            self._mark(client, project, rows, {})
        if not self.is_stopping():
            self._mark_gone(client, project)

    def read_again(self, project: int) -> None:
        """Have all annotations of a project read once more, the newest first."""
        self.annotations.mark_all(project)
        self.polls.begin_again(project)

    def _may_be_polled(self, project: int | None, others: Collection[int]) -> TypeGuard[int]:
        """Return whether a project that anybody may have named may be remembered beside others."""
        is_one = project is not None and 0 < project <= _LARGEST_PROJECT
        return self.client is not None and is_one and len(others) < _MOST_PROJECTS

    def poll(self) -> bool:
        """Read a page of what has changed in one of the projects that are due, which take turns."""
        client = self.client
        if client is None:
            return False

        walking = {project for project, _ in self._walks}  # these are polled again after it
        with self._lock:
            woken, self._woken = self._woken - walking, self._woken & walking
        if woken:
            self.polls.wake(woken, _WAKE_AFTER_S)

        poll = self.polls.lease(self.settings.poll_interval_s)
        if poll is not None:
            self._walks.append((poll.project, self._walk(client, poll)))
        if not self._walks:
            return False

        self._go_on(*self._walks.popleft())
        return True

    def _go_on(self, project: int, walk: Iterator[bool]) -> None:
        """Read the next page of a walk; another comes after those of the other projects."""
        try:
            if next(walk, False):
                self._walks.append((project, walk))
        except StudioRefused as error:
            if error.status == 404:
                self._forget(project)
            else:
                self.polls.fail(project, str(error), self.settings.poll_interval_s)
                log.warning("Project %d cannot be polled for changes: %s", project, error)
        except BackendError as error:
            self.polls.fail(project, str(error), self.settings.poll_interval_s)
            raise
        except BaseException:
            self.polls.leases.let_go(project)
            raise

    # ---- one project -------------------------------------------------------------------------

    def _walk(self, client: LabelStudioClient, poll: Poll) -> Iterator[bool]:
        """Walk through what has changed, a page a yield, and move the mark once all is kept."""
        project, began = poll.project, self.polls.now
        newest, tasks, predictions = client.newest_change(project)
        created, done, unserved = set[int](), poll, dict(poll.unserved)

        self._ask_again(client, project, unserved)
        if not poll.has_all(newest):
            since = self._begin(client, poll)
            if since is None:
                self._forget(project)
                return
            for rows in self._changed_pages(client, poll, since):
                self._mark(client, project, rows, unserved)
                self._prelabel(client, project, since - OVERLAP_S, rows)
                created |= _created_between(rows, since, newest)
                if self.is_stopping():  # the next backend finds the rest
                    self.polls.leases.let_go(project)
                    return
                yield True

            done = replace(poll, since=since, walked=began)
            if newest > since:
                done = replace(done, since=newest, noted=began)

        if not poll.since or tasks < poll.tasks + len(created):
            self._mark_gone(client, project)
        yield from self._remove_doubles(client, project, (newest, predictions))
        self.scope.end_experiment(client, project)

        is_as_before = done is poll and tasks == poll.tasks
        left = self._count_left(client, poll, is_as_before)
        done = replace(done, tasks=tasks, tasks_left=left, unserved=unserved)
        self.polls.finish(done, self.settings.poll_interval_s)

    def _count_left(self, client: LabelStudioClient, poll: Poll, is_as_before: bool) -> int:
        """Count the tasks left, or return the last count where no task has changed since."""
        now = self.clock()
        stands = now < self._counted.get(poll.project, -inf) + _RECOUNT_AFTER_S
        if poll.tasks_left is not None and is_as_before and stands:
            return poll.tasks_left
        left = self.scope.count_left(client, poll.project)
        self._counted[poll.project] = now
        return left

    def _forget(self, project: int) -> None:
        self.polls.remove(project)
        self._added.discard(project)
        self._counted.pop(project, None)

    def _begin(self, client: LabelStudioClient, poll: Poll) -> float | None:
        """Return from when on changes count; None where the project is not connected any more."""
        connected = [each.created for each in client.backends(poll.project)]
        return (poll.since or min(connected)) if connected else None

    def _changed_pages(
        self, client: LabelStudioClient, poll: Poll, since: float
    ) -> Iterator[Sequence[TaskRow]]:
        """Yield pages of changed tasks; at first also those that were annotated before."""
        if not poll.since:
            yield from client.annotated_tasks(poll.project)
        yield from client.changed_tasks(poll.project, since - OVERLAP_S)

    def _mark(
        self,
        client: LabelStudioClient,
        project: int,
        rows: Iterable[TaskRow],
        unserved: dict[int, UnservedTask],
    ) -> None:
        """Mark the annotations of tasks that are not as they were read; note what is not served."""
        rows = [row for row in rows if not self._rests(row, unserved.get(row.id))]
        annotated = [row.id for row in rows if row.annotations]
        tasks = TasksTogether(client, project, annotated, TaskContents)

        found, failed = dict[int, dict[int, float]](), 0
        for row in rows:
            if self.is_stopping():
                return
            try:
                found[row.id] = _annotation_times(tasks, row)
                unserved.pop(row.id, None)
            except BadRequest as error:
                log.warning("Project %d: task %d is left out: %s", project, row.id, error)
                unserved[row.id] = self._put_off(row, unserved.get(row.id), str(error))
                failed += 1
                if failed > _MOST_UNSERVED:  # it is not the tasks
                    raise
                found[row.id] = client.annotation_times(project, row.id)

        marked = self.annotations.mark_different(project, found)
        if marked:
            log.info("Project %d: %d annotations have changed", project, marked)

    def _put_off(self, row: TaskRow, before: UnservedTask | None, reason: str) -> UnservedTask:
        """Return when a task that is not served is asked for again: later each time."""
        tries = 1 if before is None else before.tries + 1
        due = self.polls.now + min(retry_delay_s(tries), LONGEST_RETRY_S)
        return UnservedTask(reason, tries, due, float(row.updated))

    def _rests(self, row: TaskRow, before: UnservedTask | None) -> bool:
        return bool(before and before.updated == row.updated and not self._is_due(before))

    def _is_due(self, unserved: UnservedTask) -> bool:
        return is_due(unserved.due, self.polls.now, LONGEST_RETRY_S)

    def _ask_again(
        self, client: LabelStudioClient, project: int, unserved: dict[int, UnservedTask]
    ) -> None:
        """Mark the annotations of tasks that could not be served and are due again."""
        due = tuple(task for task, each in unserved.items() if self._is_due(each))
        if due:
            rows = {row.id: row for row in client.rows(project, due)}
            for gone in set(due) - set(rows):
                del unserved[gone]
            self._mark(client, project, rows.values(), unserved)

    def _prelabel(
        self, client: LabelStudioClient, project: int, since: float, rows: Sequence[TaskRow]
    ) -> None:
        """Queue a job for new tasks without a prediction, where their project is prelabeled."""
        new = {row.id for row in rows if row.created > since and not row.total_predictions}
        if not new or not self._is_prelabeled(client, project):
            return
        new -= self.scope.withhold(project, new)
        if new := new - self.jobs.new_task_ids(project):
            self.jobs.start_job(project, kind="new", tasks=new)

    def _is_prelabeled(self, client: LabelStudioClient, project: int) -> bool:
        if prelabels(self.settings, project):
            return True
        with suppress(LabelConfigError):  # a config without labels to draw switches nothing on
            return client.config(project).prelabel
        return False

    def _remove_doubles(
        self, client: LabelStudioClient, project: int, state: tuple[float, int]
    ) -> Iterator[bool]:
        """Delete second predictions of one version, where any may have come since the last search.

        Yields True after each page of tasks.
        """
        last, began = self._searches.get(project, _Search()), self.clock()
        if began < last.rests_until or (state == last.state and not last.doubles):
            return
        waiting: dict[int, float] = {}
        for tasks in client.possible_doubles(project):
            for task in tasks:
                found = last.doubles.get(task, began)
                if began - found < DOUBLE_FOR_S:
                    waiting[task] = found
                else:
                    _delete_second(client, task)
            if self.is_stopping():
                return
            yield True
        now = self.clock()
        rests_until = now + _REST_FACTOR * (now - began)
        self._searches[project] = _Search(state, rests_until, waiting)

    def _mark_gone(self, client: LabelStudioClient, project: int) -> None:
        """Mark the annotations of tasks that are deleted, or have none any more."""
        tasks = self.annotations.project_tasks(project)
        there = {row.id for row in client.rows(project, tuple(tasks)) if row.annotations}
        self.annotations.mark_tasks(project, set(tasks) - there)


def _poll(row: sa.Row[Any]) -> Poll:
    unserved = msgspec.json.decode(row.unserved, type=dict[int, UnservedTask])
    return Poll(**row._asdict() | {"unserved": unserved})


def _annotation_times(tasks: TasksTogether[TaskContents], row: TaskRow) -> dict[int, float]:
    """Return annotation of a task -> time of its last change, in seconds since the epoch."""
    task = tasks.take(row.id) if row.annotations else None
    return {} if task is None else {each.id: each.updated for each in task.annotations}


def _created_between(rows: Iterable[TaskRow], since: float, newest: float) -> set[int]:
    return {row.id for row in rows if since < row.created <= newest}


def _delete_second(client: LabelStudioClient, task: int) -> None:
    """Leave a task one prediction of each version of ours, and those that annotations began with.

    Label Studio does not tell who stored a prediction; predictions of other backends are left.
    """
    found = client.contents(task)
    if found is None:
        return
    parents = {each.prediction for each in found.annotations}
    kept: dict[str, int] = {}
    for each in sorted(found.predictions, key=lambda each: (each.id not in parents, each.id)):
        is_second = kept.setdefault(each.version, each.id) != each.id
        if is_second and each.id not in parents and is_ours(each.version):
            log.info("Task %d had a second prediction, which is deleted", task)
            client.delete(each.id)
