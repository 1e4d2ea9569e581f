"""Poll Label Studio for what has changed in connected projects, so that no webhook is needed.

Label Studio sends a webhook once. Where it makes none, or the backend or its database is away, only
a question finds the change. A poll finds the tasks that changed since the high-water mark, marks
the annotations of them that are in another state than the one that was read, and queues a job for
new tasks where their project is prelabeled by itself. What a webhook has told already is found to
be known.

The mark is a time on Label Studio's clock and is compared with no other clock. It moves once all
that was found is in the database. A change may become visible late, after a long transaction, or
come from a server of Label Studio whose clock is behind. So each walk begins `OVERLAP_S` before the
mark, and the last change is walked over until it is so old.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from backend.errors import BackendError, BadRequest, LabelConfigError, StudioRefused
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.connected_projects import MOST_PROJECTS, SETTLED_AFTER_S
from backend.jobs.job_store import JobStore
from backend.jobs.poll_store import Poll, PollStore
from backend.label_studio.changes import CHANGES_PAGE, ChangedTask
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings, prelabels

log = logging.getLogger(__name__)

#: How late a change may become visible, and how far clocks of Label Studio's servers may differ.
OVERLAP_S: Final = 60.0

#: How often a project is checked to be still connected, in seconds.
_CONNECTED_FOR_S: Final = 3600.0


@dataclass
class _Walk:
    """A walk through the tasks of a project that changed, page by page.

    Attributes:
        poll: the project's poll, as it was leased.
        newest: time of the newest change when the walk began, on Label Studio's clock.
        tasks: number of the project's tasks when the walk began.
        began: when the walk began, on the database's clock.
        cursor: all tasks with ids up to this one are dealt with.
        created: tasks that are newer than the mark, and not newer than the walk.
    """

    poll: Poll
    newest: float
    tasks: int
    began: float
    cursor: int = 0
    created: int = 0

    @property
    def since(self) -> float:
        """The time after which changes are asked for."""
        return self.poll.since - OVERLAP_S

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has changed since a walk that came too late to miss anything."""
        is_settled = self.poll.walked >= self.poll.noted + OVERLAP_S
        return self.newest <= self.poll.since and is_settled


@dataclass
class ChangePoller:
    """Polls the projects of one Label Studio.

    Requests note projects; one background thread polls. A project without changes costs one request
    for one task. Each changed task with annotations costs one more, once.

    Args:
        settings: say how often, and which projects are prelabeled by themselves.
        polls: how far each project was polled.
        annotations: where annotations are marked.
        jobs: where jobs for new tasks are queued.
        client: Label Studio; None: nothing is polled.
        is_stopping: whether the poll is to end soon.
    """

    settings: Settings
    polls: PollStore
    annotations: AnnotationStore
    jobs: JobStore
    client: LabelStudioClient | None
    is_stopping: Callable[[], bool] = lambda: False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _noted: dict[int, float] = field(default_factory=dict)  # project -> when it is added
    _checked_at: dict[int, float] = field(default_factory=dict)
    _walks: deque[_Walk] = field(default_factory=deque)
    #: Project -> task -> as it was dealt with last, of tasks that changed lately.
    _known: dict[int, dict[int, ChangedTask]] = field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        """Whether projects are polled at all."""
        return self.client is not None and self.settings.poll_interval_s > 0

    def note_setup(self, project: int | None) -> None:
        """Note that Label Studio has asked for the setup of a project: it is connected."""
        if not self.is_on or project is None:
            return
        with self._lock:
            is_known = project in self._checked_at or project in self._noted
            if not is_known and len(self._noted) < MOST_PROJECTS:
                self._noted[project] = self.polls.now + SETTLED_AFTER_S

    def poll(self) -> bool:
        """Poll one page of the changes of one project; return whether there was anything to poll.

        Raises:
            StudioUnreachable: Label Studio does not answer.
            SQLAlchemyError: the database is away; what was found is found again.
        """
        if self.client is None or not self.is_on:
            return False
        self._add_noted(self.client)
        leased = self.polls.lease()
        if leased is not None:
            self._guard(self.client, leased.project, lambda client: self._begin(client, leased))
        if not self._walks:
            return leased is not None
        walk = self._walks.popleft()
        self._guard(self.client, walk.poll.project, lambda client: self._step(client, walk))
        return True

    # ---- projects ----------------------------------------------------------------------------

    def _add_noted(self, client: LabelStudioClient) -> None:
        """Add projects that were noted, with the time at which they were connected."""
        with self._lock:
            due = [project for project, at in self._noted.items() if at <= self.polls.now]
        for project in due:
            self._check_connected(client, project)
            with self._lock:
                self._noted.pop(project)

    def _check_connected(self, client: LabelStudioClient, project: int) -> bool:
        """Return whether a project is still connected; forget one that is not."""
        now = self.polls.now
        if now < self._checked_at.get(project, -math.inf) + _CONNECTED_FOR_S:
            return True
        try:
            connected = [each.created for each in client.backends(project)]
        except StudioRefused as error:
            log.warning("Project %d is not polled for changes: %s", project, error)
            connected = []
        if not connected:
            self._forget(project)
            return False
        self.polls.add(project, min(connected))
        self._checked_at[project] = now
        return True

    def _forget(self, project: int) -> None:
        self.polls.remove(project)
        self._checked_at.pop(project, None)
        self._known.pop(project, None)

    def _guard(
        self, client: LabelStudioClient, project: int, work: Callable[[LabelStudioClient], None]
    ) -> None:
        """Work on a project; where that fails, keep why, and end its lease.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        try:
            work(client)
        except BackendError as error:
            if isinstance(error, StudioRefused) and error.status == 404:
                self._forget(project)
                return
            self.polls.fail(project, str(error), self.settings.poll_interval_s)
            if not isinstance(error, StudioRefused):
                raise
            log.warning("Project %d cannot be polled for changes: %s", project, error)
        except BaseException:
            self.polls.let_go(project)
            raise

    # ---- one poll ----------------------------------------------------------------------------

    def _begin(self, client: LabelStudioClient, poll: Poll) -> None:
        """Begin a walk where anything has changed."""
        # after a start the backend may not listen yet, and that check would find it away
        self._checked_at.setdefault(poll.project, self.polls.now)
        if not self._check_connected(client, poll.project):
            return
        began = self.polls.now
        newest, tasks = client.changes.newest(poll.project)
        walk = _Walk(poll, newest, tasks, began)
        if walk.is_quiet:
            self._finish(client, walk)
        else:
            self._walks.append(walk)

    def _step(self, client: LabelStudioClient, walk: _Walk) -> None:
        """Deal with the next page of a walk."""
        poll, known = walk.poll, self._known.setdefault(walk.poll.project, {})
        rows = client.changes.tasks(poll.project, walk.since, walk.cursor)
        fresh = [row for row in rows if known.get(row.id) != row]
        self._mark(client, poll.project, fresh)
        self._prelabel(client, poll.project, [row for row in fresh if row.created > walk.since])
        if self.is_stopping():
            self.polls.let_go(poll.project)
            return  # the next backend finds the page again
        known.update({row.id: row for row in fresh})
        walk.created += sum(poll.since < row.created <= walk.newest for row in rows)
        if len(rows) == CHANGES_PAGE:
            walk.cursor = rows[-1].id
            self._walks.append(walk)
        else:
            self._finish(client, walk)

    def _mark(self, client: LabelStudioClient, project: int, rows: Sequence[ChangedTask]) -> None:
        """Mark the annotations of tasks that are not as they were read."""
        found: dict[int, dict[int, float]] = {}
        for row in rows:
            if self.is_stopping():
                return
            try:
                found[row.id] = client.changes.annotations(row.id) if row.annotations else {}
            except BadRequest as error:
                log.warning("Project %d: task %d is not looked into: %s", project, row.id, error)
        marked = self.annotations.mark_different(project, found)
        if marked:
            log.info("Project %d: %d annotations have changed", project, marked)

    def _prelabel(
        self, client: LabelStudioClient, project: int, rows: Sequence[ChangedTask]
    ) -> None:
        """Queue a job for new tasks without a prediction, where their project is prelabeled."""
        new = {row.id for row in rows if not row.predictions}
        if not new or not self._is_prelabeled(client, project):
            return
        if new := new - self.jobs.new_task_ids(project):
            self.jobs.start_job(project, kind="new", tasks=new)

    def _is_prelabeled(self, client: LabelStudioClient, project: int) -> bool:
        if prelabels(self.settings, project):
            return True
        try:
            return parse_label_config(client.label_config(project)).prelabel
        except LabelConfigError:  # a config without labels to draw switches nothing on
            return False

    def _finish(self, client: LabelStudioClient, walk: _Walk) -> None:
        """Move the mark of a project, as all that the walk has found is kept."""
        poll = walk.poll
        if walk.tasks < poll.tasks + walk.created:
            self._mark_gone(client, poll.project)
        done = poll
        if not walk.is_quiet:
            done = replace(poll, walked=walk.began)
            if walk.newest > poll.since:
                done = replace(done, since=walk.newest, noted=walk.began)
        self.polls.finish(replace(done, tasks=walk.tasks), self.settings.poll_interval_s)
        known = self._known.get(poll.project, {})
        self._known[poll.project] = {
            id_: row for id_, row in known.items() if row.updated > done.since - OVERLAP_S
        }

    def _mark_gone(self, client: LabelStudioClient, project: int) -> None:
        """Mark the annotations of tasks that are deleted, of which Label Studio lists nothing."""
        tasks = self.annotations.project_tasks(project)
        there = set(client.ids(project, TaskFilter(), among=tasks)) if tasks else set()
        self.annotations.mark_tasks(project, set(tasks) - there)
