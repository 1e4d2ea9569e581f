"""Put the parts of the backend together: the one place where they are wired.

Parts that need the model are imported when they are first asked for: torch takes seconds.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import Database
from backend.database.leases import end_all, new_owner
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.experiment import ExperimentStore
from backend.jobs.change_poller import ChangePoller, PollStore
from backend.jobs.connection_watch import ConnectionWatch
from backend.jobs.job_store import JobStore
from backend.jobs.kept_pictures import KeptPictures
from backend.jobs.worker import JobRunner, Round, Withdrawer, Worker
from backend.label_studio.access import StudioAccess
from backend.label_studio.client import LabelStudioClient, required_client
from backend.projects.scores import ScoreStore
from backend.projects.task_scope import TaskScope
from backend.review.score_walk import read_scores
from backend.review.verdicts import ReviewStore
from backend.review.writing import write_due
from backend.runs.run_store import RunParts, RunStore
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker

if TYPE_CHECKING:
    from backend.inference.engine import Engine
    from backend.jobs.prelabeler import Prelabeler
    from backend.jobs.ray_prelabeler import ClusterPrelabeler
    from backend.jobs.set_up import SetUps
    from backend.learning.learner import Learner
    from backend.learning.next_pictures import NextPictureStore
    from backend.prediction.batches import TaskRunner
    from backend.prediction.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Services(StudioAccess):
    """The parts that one process shares, made when they are first asked for, each of them once.

    To make a part loads no model, opens no database and starts no thread. Ask from one thread.

    >>> services = Services(Settings(model="demo"))
    >>> services.store is services.store
    True
    """

    given_engine: Engine | None = None  # in place of one made from the settings
    owner: str = field(default_factory=new_owner, kw_only=True)  # of this process's leases
    answers_clicks: bool = field(default=False, kw_only=True)  # the process loads CLICK_MODEL too

    # ---- shared parts --------------------------------------------------------------------------

    @cached_property
    def engine(self) -> Engine:
        """The inference engine, which is not started."""
        from backend.inference.engine import Engine

        return self.given_engine or Engine.from_settings(self.settings, self.answers_clicks)

    @cached_property
    def database(self) -> Database:
        """The database that all stores share."""
        return Database.from_settings(self.settings)

    @cached_property
    def store(self) -> JobStore:
        return JobStore(self.database)

    @cached_property
    def task_runner(self) -> TaskRunner:
        """The task runner of requests and jobs; with a token, it leaves late tasks to a job."""
        from backend.prediction.batches import TaskRunner

        late = None if self.client is None else self.store
        failures, deadline_s = self.task_scope.failures, self.settings.predict_deadline_s
        return TaskRunner(failures, late, deadline_s, scores=self.scores)

    @cached_property
    def annotations(self) -> AnnotationStore:
        """The annotations that were read and that are still to be read."""
        return AnnotationStore(self.database, self.owner)

    @cached_property
    def task_scope(self) -> TaskScope:
        """What says which tasks of a project are meant."""
        return TaskScope.of(self.database)

    @property
    def experiments(self) -> ExperimentStore:
        """The experiments that measure what prelabels save."""
        return self.task_scope.experiments

    @cached_property
    def reviews(self) -> ReviewStore:
        """What people have said on review pages."""
        return ReviewStore(self.database, self.owner)

    @cached_property
    def scores(self) -> ScoreStore:
        """The scores of predictions."""
        return ScoreStore(self.database)

    @cached_property
    def learner(self) -> Learner:
        """The learner; its examples and versions belong to the model of the settings."""
        from backend.learning.examples import ExampleStore
        from backend.learning.learner import Learner
        from backend.learning.versions import VersionStore

        examples = ExampleStore(self.database, self._model_key)
        versions = VersionStore(
            self.database, self.owner, self._model_key, keeps_pictures=self._keeps_pictures
        )
        mark = self.annotations.mark
        read_image = self.images.read
        return Learner(self.settings, self.engine, read_image, examples, versions, mark=mark)

    @cached_property
    def next_pictures(self) -> NextPictureStore:
        """The pictures whose masks the newest corrections would change most."""
        from backend.learning.next_pictures import NextPictureStore

        return NextPictureStore(self.database, self._model_key, keeps_pictures=self._keeps_pictures)

    def _model_key(self) -> str:
        """Return the key of the model of the settings; asked each time, as weights may come."""
        from backend.learning.versions import model_key

        return model_key(self.settings, self.engine.model_id)

    @cached_property
    def connection_watch(self) -> ConnectionWatch:
        """The watch of Label Studio's token and of its projects' titles."""
        return ConnectionWatch(self.page_client)

    @cached_property
    def change_poller(self) -> ChangePoller:
        """The poller of what has changed in connected projects."""
        polls = PollStore(self.database, self.owner)
        return ChangePoller(
            self.settings,
            polls,
            self.annotations,
            self.store,
            self.task_scope,
            self.client,
            self.stopping.is_set,
        )

    @cached_property
    def runs(self) -> RunStore:
        """The runs over projects that pages and commands have asked for."""
        return RunStore(self.database, self.owner, keeps_pictures=self._keeps_pictures)

    @property
    def _keeps_pictures(self) -> bool:
        """Whether reports are kept with their pictures."""
        return self.settings.picture_days > 0

    @cached_property
    def set_ups(self) -> SetUps:
        """What sets projects up."""
        from backend.jobs.set_up import SetUps

        return SetUps(self.settings, self.database, self.owner, self.runs, self.store)

    # ---- parts that differ between the server and the commands ----------------------------------

    def predictor(
        self, tracker: TaskTracker | None = None, *, uses_database: bool = True
    ) -> Predictor:
        """Make a predictor, which keeps the deadline and follows what projects have learned.

        On the server a tracker records each task. Without a database, as in label-studio-ml's
        process, it answers when all tasks are done, since nothing would write a late prediction,
        and knows only what the caller of `Predictor.spec` says that a project has learned.
        """
        from backend.prediction.predictor import Predictor

        predictor = partial(
            Predictor,
            self.engine,
            settings=self.settings,
            recall_image=self.images.read_cached,
        )
        if not uses_database:
            return predictor(read_image=self.images.read)
        return predictor(
            read_image=self.images.read_to_predict,
            task_runner=self.task_runner,
            tracker=tracker,
            learned=self.learner.versions,
            scope=self.task_scope,
        )

    def prelabeler(self, client: LabelStudioClient, predictor: Predictor) -> Prelabeler:
        """Make the prelabeler, which runs jobs in this process."""
        from backend.jobs.prelabeler import Prelabeler

        return Prelabeler(
            store=self.store,
            task_runner=self.task_runner,
            predictor=predictor,
            client=client,
            owner=self.owner,
            scope=self.task_scope,
        )

    def run_parts(self, client: LabelStudioClient) -> RunParts:
        """Put together what the reports of runs are made with."""
        return RunParts(
            client=client,
            images=self.images,
            engine=self.engine,
            settings=self.settings,
            examples=self.learner.examples,
            versions=self.learner.versions,
            database=self.database,
        )

    def ray_prelabeler(
        self, client: LabelStudioClient, address: str, actors: int | None
    ) -> ClusterPrelabeler:
        """Make the prelabeler that runs jobs on a Ray cluster; the engine here need not start."""
        from backend.jobs.ray_prelabeler import ClusterPrelabeler

        make_parts = partial(make_actor_parts, self.settings)
        return ClusterPrelabeler(
            make_parts,
            address,
            actors,
            store=self.store,
            task_runner=self.task_runner,
            predictor=self.predictor(),
            client=client,
            owner=self.owner,
            scope=self.task_scope,
        )

    def worker(self, predictor: Predictor) -> Worker:
        """Make the background threads of a server, which are not started; none without a token.

        It takes the predictor that answers requests, so that both tell the same tracker.
        """
        from backend.learning.next_picture_search import NextPictureSearch
        from backend.runs.runner import KINDS, Runner

        client = self.client
        if client is None:
            return Worker({}, [], self.stopping)
        prelabeler = self.prelabeler(client, predictor)
        withdrawer = Withdrawer(self.store, client, self.owner)
        jobs = JobRunner(
            store=self.store,
            prelabeler=prelabeler,
            withdrawer=withdrawer,
            owner=self.owner,
            stopping=self.stopping,
            held=self.learner.made_again,
        )
        reader = AnnotationReader(self.annotations, client, self.learner)
        runner = Runner(KINDS, self.runs, self.run_parts(client), self.stopping)
        kept = KeptPictures(
            self.images.copies,
            [self.runs, self.learner.versions, self.next_pictures],
            self.settings.picture_days,
            self.database.clock,
        )
        search = NextPictureSearch(self.learner, self.next_pictures, self.scores, self._is_busy)
        rounds: dict[str, Round] = {
            "runs": runner.run_next,
            "jobs": jobs.run_next,
            "late": partial(jobs.run_next, late=True),
            "annotations": lambda: reader.read_some(pause=self.stopping.is_set) > 0,
            # annotations that are due, or being read, make one version together
            "steps": lambda: (
                not self.annotations.has_due()
                and (self.learner.take_due_step(client) or search.search_one(client))
            ),
            "reviews": partial(write_due, self.reviews, self.brief_client or client),
            "scores": partial(read_scores, self.scores, client),
            "changes": self.change_poller.poll,
            "connection": self.connection_watch.check,
            "pictures": kept.forget_old,
        }
        leased = self.annotations, self.change_poller.polls, self.runs, self.reviews
        leases = [each.leases for each in leased]
        return Worker(rounds, leases, self.stopping, self._end_leases)

    def _is_busy(self) -> bool:
        """Tell whether something that people wait for is to be done, or the process ends."""
        jobs = self.store.count_states()
        return bool(
            self.stopping.is_set()
            or jobs["queued"]
            or jobs["running"]
            or self.runs.at_work()
            or self.annotations.has_due()
        )

    def _end_leases(self) -> None:
        """End all leases, so that the end of this process is no death; else they end later."""
        with suppress(SQLAlchemyError):
            end_all(self.database, self.owner)


def make_actor_parts(settings: Settings) -> tuple[LabelStudioClient, Predictor]:
    """Make the client and the predictor of a Ray actor, on its node, and start the engine there.

    The node needs no database: the driver keeps the job, and tells what the project has learned.
    """
    services = Services(settings)
    client = required_client(services.client, "Predictions are written to Label Studio")
    services.engine.start()
    return client, services.predictor(uses_database=False)
