"""Put the parts of the backend together: the one place where they are wired.

What needs the model is imported when it is first asked for: torch takes seconds.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from backend.database.database import Database
from backend.database.leases import new_owner
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.change_poller import ChangePoller, PollStore
from backend.jobs.connection_watch import ProjectTitles, TokenWatch
from backend.jobs.job_store import JobStore
from backend.jobs.withdrawer import Withdrawer
from backend.label_studio.client import RETRY_FOR_S, LabelStudioClient
from backend.label_studio.connection import PAGE_WAIT_S
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader, ReadImage
from backend.prediction.failures import FailureStore
from backend.runs.run import RunParts
from backend.runs.run_store import RunStore
from backend.runs.runner import Runner
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker

if TYPE_CHECKING:
    from backend.inference.engine import Engine
    from backend.jobs.prelabeler import Prelabeler
    from backend.jobs.ray_prelabeler import ClusterPrelabeler
    from backend.jobs.worker import Round, Worker
    from backend.learning.examples import ExampleStore
    from backend.learning.learner import Learner
    from backend.learning.versions import VersionStore
    from backend.prediction.batches import TaskRunner
    from backend.prediction.predictor import Predictor
    from backend.runs.label_errors import ConfirmedAnnotations


def check_token(settings: Settings, use: str) -> None:
    """Refuse settings without a token for Label Studio, before anything is loaded.

    Args:
        use: the purpose, as it stands in the error: "annotations are read".

    Raises:
        ValueError: the settings hold no token.
    """
    if settings.label_studio_url is None or settings.label_studio_api_key is None:
        raise ValueError(
            f"Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: {use} through the API of Label Studio."
        )


@dataclass(frozen=True, eq=False)
class Services:
    """The parts that one process shares, made when they are first asked for, each of them once.

    To make a part loads no model, opens no database and starts no thread. Ask from one thread.

    Args:
        given_engine: the inference engine to use in place of one made from the settings.
        stopping: once it is set, no call of Label Studio's API is tried again.

    >>> services = Services(Settings(model="demo"))
    >>> services.store is services.store
    True
    """

    settings: Settings
    given_engine: Engine | None = None
    stopping: threading.Event = field(default_factory=threading.Event, kw_only=True)

    def check(self) -> None:
        """Refuse what can never work, before anything is started."""
        _ = self.engine
        self.database.check()

    # ---- Label Studio ----------------------------------------------------------------------------

    @cached_property
    def files(self) -> LabelStudioFiles:
        """Access to files of Label Studio and of other hosts."""
        return LabelStudioFiles.from_settings(self.settings)

    @cached_property
    def images(self) -> ImageReader:
        """The image loader, with its cache for images that annotators have open."""
        return ImageReader(self.files, self.settings)

    @cached_property
    def client(self) -> LabelStudioClient | None:
        """The client for work in the background; None without a token."""
        return LabelStudioClient.from_settings(
            self.settings, stopping=self.stopping, retry_for_s=RETRY_FOR_S
        )

    @cached_property
    def page_client(self) -> LabelStudioClient | None:
        """The client for whoever waits: it asks once, for `PAGE_WAIT_S`; None without a token."""
        return LabelStudioClient.from_settings(
            self.settings, stopping=self.stopping, retry_for_s=0.0, timeout_s=PAGE_WAIT_S
        )

    def required_client(self, use: str) -> LabelStudioClient:
        """Return the client for work in the background; see `check_token`."""
        check_token(self.settings, use)
        assert self.client is not None
        return self.client

    # ---- shared parts --------------------------------------------------------------------------

    @cached_property
    def engine(self) -> Engine:
        """The inference engine, which is not started."""
        from backend.inference.engine import Engine

        return self.given_engine or Engine.from_settings(self.settings)

    @cached_property
    def database(self) -> Database:
        """The database that all stores share."""
        return Database.from_settings(self.settings)

    @cached_property
    def store(self) -> JobStore:
        """The job store."""
        return JobStore(self.database)

    @cached_property
    def owner(self) -> str:
        """The name under which this process holds leases."""
        return new_owner()

    @cached_property
    def task_runner(self) -> TaskRunner:
        """The task runner of requests and jobs; with a token, it leaves late tasks to a job."""
        from backend.prediction.batches import TaskRunner

        late = None if self.client is None else self.store
        failures = FailureStore(self.database)
        return TaskRunner(failures, late, self.settings.predict_deadline_s)

    @cached_property
    def annotations(self) -> AnnotationStore:
        """The annotations that were read and that are still to be read."""
        return AnnotationStore(self.database, self.owner)

    def _model_key(self) -> str:
        from backend.learning.versions import model_key

        return model_key(self.settings, self.engine.model_id)

    @cached_property
    def examples(self) -> ExampleStore:
        """The training examples that belong to the model of the settings."""
        from backend.learning.examples import ExampleStore

        return ExampleStore(self.database, self._model_key)

    @cached_property
    def versions(self) -> VersionStore:
        """The learned versions that belong to the model of the settings."""
        from backend.learning.versions import VersionStore

        return VersionStore(self.database, self.owner, self._model_key)

    @cached_property
    def learner(self) -> Learner:
        """The learner, which makes versions of the training examples."""
        from backend.learning.learner import Learner

        return Learner(self.settings, self.engine, self.images.read, self.examples, self.versions)

    @cached_property
    def token_watch(self) -> TokenWatch:
        """The watch of the token for Label Studio."""
        return TokenWatch(self.page_client)

    @cached_property
    def change_poller(self) -> ChangePoller:
        """The poller of what has changed in connected projects."""
        return ChangePoller(
            self.settings,
            PollStore(self.database, self.owner),
            self.annotations,
            self.store,
            self.client,
            self.stopping.is_set,
        )

    @cached_property
    def project_titles(self) -> ProjectTitles:
        """The titles of Label Studio's projects."""
        return ProjectTitles(self.page_client)

    @cached_property
    def runs(self) -> RunStore:
        """The runs over projects that pages and commands have asked for."""
        return RunStore(self.database)

    @cached_property
    def confirmed(self) -> ConfirmedAnnotations:
        """The annotations that people have confirmed as right."""
        from backend.runs.label_errors import ConfirmedAnnotations

        return ConfirmedAnnotations(self.database)

    # ---- parts that differ between the server and the commands ----------------------------------

    def predictor(self, tracker: TaskTracker | None = None) -> Predictor:
        """Make the predictor of a server or a job, which uses the database.

        It keeps the deadline, and follows what projects have learned.

        Args:
            tracker: records each task for the pages of the server; a command has none.
        """
        from backend.prediction.predictor import Predictor

        images = self.images
        return Predictor(
            self.engine,
            images.read,
            self.settings,
            images.read_cached,
            self.task_runner,
            tracker,
            self.versions,
        )

    def database_free_predictor(self, read_image: ReadImage | None = None) -> Predictor:
        """Make a predictor for a process without a database, such as label-studio-ml's.

        It answers when all tasks are done. Nothing there would write a late prediction, and no
        project has learned anything unless the caller of `Predictor.spec` says so.
        """
        from backend.prediction.predictor import Predictor

        if read_image is not None:
            return Predictor(self.engine, read_image, self.settings)
        return Predictor(self.engine, self.images.read, self.settings, self.images.read_cached)

    def prelabeler(
        self, client: LabelStudioClient, predictor: Predictor | None = None
    ) -> Prelabeler:
        """Make the prelabeler, which runs jobs in this process.

        Args:
            predictor: the server's; None: one of its own, for a command.
        """
        from backend.jobs.prelabeler import Prelabeler

        parts = self.store, self.task_runner, predictor or self.predictor()
        return Prelabeler(*parts, client, self.owner)

    def run_parts(self, client: LabelStudioClient) -> RunParts:
        """Put together what the reports of runs are made with."""
        return RunParts(
            client, self.images, self.engine, self.settings, self.examples, self.confirmed
        )

    def ray_prelabeler(
        self, client: LabelStudioClient, address: str, actors: int | None
    ) -> ClusterPrelabeler:
        """Make the prelabeler that runs jobs on a Ray cluster; the engine here need not be started.

        Args:
            address: address of the cluster; empty for one that is made on this machine.
            actors: how many; None: one for each GPU, or one for each node where none has a GPU.
        """
        from backend.jobs.ray_prelabeler import ClusterPrelabeler

        return ClusterPrelabeler(
            partial(make_actor_parts, self.settings),
            address,
            actors,
            self.store,
            self.task_runner,
            self.predictor(),
            client,
            self.owner,
        )

    def worker(self, predictor: Predictor) -> Worker:
        """Make the background threads of a server, which are not started.

        Without a token for Label Studio, there are none.

        Args:
            predictor: the one that answers requests, so that both tell the same tracker.
        """
        from backend.jobs.worker import JobRunner, Worker
        from backend.runs.kinds import KINDS

        client = self.client
        if client is None:
            return Worker({}, [], self.stopping)
        prelabeler = self.prelabeler(client, predictor)
        withdrawer = Withdrawer(self.store, client, self.owner)
        jobs = JobRunner(self.store, prelabeler, withdrawer, self.owner, self.stopping)
        reader = AnnotationReader(self.annotations, client, self.learner)
        runner = Runner(self.runs, self.run_parts(client), self.owner, self.stopping)
        rounds: dict[str, Round] = {
            **{kind.name: partial(runner.run_next, kind) for kind in KINDS},
            "jobs": jobs.run_next,
            "late": partial(jobs.run_next, late=True),
            "annotations": lambda: reader.read_some(pause=self.stopping.is_set) > 0,
            # annotations that are due, or being read, make one version together
            "steps": lambda: not self.annotations.has_due() and self.learner.take_due_step(client),
            "changes": self.change_poller.poll,
            "token": self.token_watch.check,
            "titles": self.project_titles.check,
        }
        renewals = [self.annotations.renew, self.change_poller.polls.renew, runner.renew]
        return Worker(rounds, renewals, self.stopping)


def make_actor_parts(settings: Settings) -> tuple[LabelStudioClient, Predictor]:
    """Make the client and the predictor of a Ray actor, on its node, and start the engine there.

    The node needs no database: the driver keeps the job, and tells what the project has learned.
    """
    services = Services(settings)
    client = services.required_client("predictions are written")
    services.engine.start()
    return client, services.database_free_predictor()
