"""Set a project up, once for the page and the command: from its labels to its first job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal

import msgspec
import sqlalchemy as sa

from backend.database.database import METADATA, Database, insert_on_conflict
from backend.database.leases import FINISHED, Leases, lease_columns
from backend.errors import Busy
from backend.feedback.experiment import ENOUGH, ONE_IN
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.set_up import (
    Offer,
    connect,
    login,
    name_labels,
    offered_config,
    split_names,
)
from backend.projects.task_scope import TaskScope
from backend.runs.checks import CHECKS, AskedChecks
from backend.runs.run_store import RunStore
from backend.runs.words import WORDS, AskedWords
from backend.settings import Settings

#: One row a project that was ever set up, leased while somebody sets it up.
SET_UPS: Final = sa.Table(
    "set_ups",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    *lease_columns(),
)

#: Longest wait for others who set the same project up, in seconds: half of what a page may take.
_WAIT_S: Final = 5.0
_PAUSE_S: Final = 0.1


class SetUpRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a project to be set up; for the fields see `connect` and `name_labels`."""

    project: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
    url: Annotated[str, msgspec.Meta(pattern="^https?://[^/\\s]+", max_length=300)]
    uniform: bool = False
    measure: bool = False  # whether one task in ten gets no prediction for a while
    labels: str = ""
    #: What to do where no tool asks for masks: keep the labeling config, change it, or offer one
    #: and do nothing more; "" is "offer" in a form, and "keep" of a program.
    tools: Literal["", "keep", "change", "offer"] = ""


class SetUpDone(msgspec.Struct, frozen=True):
    """A project that was set up."""

    job: Job
    notices: str  # what people should know of it, in sentences; empty where all is well


class SetUps:
    """Sets projects up, one press at a time for each, also of several backends.

    Args:
        settings: those of this backend.
        owner: name of this process, for its leases.
    """

    def __init__(
        self, settings: Settings, database: Database, owner: str, runs: RunStore, jobs: JobStore
    ) -> None:
        self._settings = settings
        self._database = database
        self._leases = Leases(database, SET_UPS, owner)
        self._runs = runs
        self._jobs = jobs
        self._scope = TaskScope.of(database)

    def set_up(
        self, client: LabelStudioClient, asked: SetUpRequest, *, checks: bool
    ) -> SetUpDone | Offer:
        """Connect this backend to a project, have its words checked, and start a job.

        It may be repeated: what is there already stays, and an equal job goes on.

        Args:
            client: of the Label Studio that has the project.
            asked: what to do; an offer is returned only where its `tools` say so.
            checks: whether to have the set-up checked here; a command does that from where it is.

        Raises:
            Busy: somebody else sets the project up, for longer than a page waits.
            LabelConfigError: the project has no labels, and none were named; or nothing to draw.
            LabelConfigChanged: somebody has changed the labeling config meanwhile.
            StudioRefused: Label Studio may not call the backend, or it refuses another change.
        """
        with self._alone(asked.project):
            name_labels(client, asked.project, asked.labels)
            offer = offered_config(client, asked.project)
            if offer is not None and asked.tools == "offer":
                return offer
            if offer is not None and asked.tools == "change":
                conflict = (
                    f"Somebody has changed the labeling config of project {asked.project} while "
                    "it was being set up: set it up again."
                )
                client.replace_label_config(asked.project, offer.now, offer.then, conflict)

            config = client.config(asked.project)
            notices = [
                _left_labels(config, asked.labels),
                connect(
                    client,
                    asked.project,
                    asked.url.rstrip("/"),
                    uniform=asked.uniform,
                    **login(self._settings),
                ),
            ]
            if asked.measure:
                notices.append(self._measure(client, asked.project))
            said = " ".join(filter(None, notices))
            if checks:
                self._runs.request(CHECKS, asked.project, AskedChecks(said))
            self._runs.request(WORDS, asked.project, AskedWords())
            return SetUpDone(self._jobs.start_job(asked.project), said)

    def _measure(self, client: LabelStudioClient, project: int) -> str:
        """Begin to measure what predictions save; return why not, where that cannot be."""
        jobs = self._jobs.list_jobs(project)
        busy = next((job for job in jobs if not job.over and job.kind == "project"), None)
        if busy is not None:
            return f"What a prediction saves is not measured: job {busy.id} predicts the tasks now."
        unseen = self._scope.count_unseen(client, project)
        if unseen < ONE_IN * ENOUGH:
            return (
                f"What a prediction saves is not measured: that takes {ONE_IN * ENOUGH} tasks "
                f"without an annotation and a prediction, and the project has {unseen}."
            )
        self._scope.experiments.begin(project)
        return ""

    def lease(self, project: int) -> bool:
        """Lease a project to set it up; return whether nobody else had it."""
        with self._database.write() as connection:
            row = insert_on_conflict(connection, SET_UPS).values(project=project)
            connection.execute(row.on_conflict_do_nothing())
        return bool(self._leases.take(sa.select(SET_UPS).where(SET_UPS.c.project == project)))

    @contextmanager
    def _alone(self, project: int) -> Iterator[None]:
        """Let nobody else set a project up during the block; a process that dies loses its turn."""
        end = time.monotonic() + _WAIT_S
        while not self.lease(project):
            if time.monotonic() > end:
                raise Busy(
                    f"Somebody sets project {project} up at this moment. Look at its page in a few "
                    "seconds, and press again if anything is left to do."
                )
            time.sleep(_PAUSE_S)

        try:
            with self._leases.kept():
                yield
        finally:
            self._leases.let_go(project)
            with self._database.write() as connection:
                self._leases.change(connection, project, **FINISHED)


def _left_labels(config: LabelConfig, typed: str) -> str:
    """Say which typed labels a project did not get, since it has others; empty where none."""
    known = {text for control in config.controls for text in control.names()}
    left = [name for name in split_names(typed) if name not in known]
    if not left:
        return ""
    names = ", ".join(f"“{name}”" for name in left)
    return (
        f"The project has labels already, so {names} {'was' if len(left) == 1 else 'were'} not "
        "added: add what is missing in its settings, under Labeling Interface."
    )
