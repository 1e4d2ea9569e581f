"""The parts of a backend, and its status report."""

from __future__ import annotations

import json
from typing import Any

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.inference.engine import Engine
from backend.jobs.change_poller import ChangePoller, PollStore
from backend.jobs.connection_watch import ProjectTitles, TokenWatch
from backend.jobs.job_store import JobStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.download import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.learning.versions import VersionStore
from backend.prediction.batches import TaskRunner
from backend.prediction.failures import FailureStore
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.pages.projects import DeletedProjects
from backend.web.pages.status import ConnectionStatus, StatusReport
from tests.backend.fakes.colour_segmenter import colour_engine

KEY = "0123456789abcdef0123456789abcdef01234567"


class Scene:
    """The parts of a backend, and their status report."""

    def __init__(self, engine: Engine | None = None, store: JobStore | None = None) -> None:
        self.engine = engine or colour_engine()
        self.tracker, self.store = (
            TaskTracker(),
            store or JobStore(Database.from_settings(Settings())),
        )
        self.files = LabelStudioFiles("http://label-studio:8080", KEY)
        settings = Settings(
            model="demo", label_studio_url="http://label-studio:8080", label_studio_api_key=KEY
        )
        self.task_runner = TaskRunner(FailureStore(self.store.database), self.store, 80)
        self.reader = ImageReader(self.files, settings)
        self.status = StatusReport(
            settings,
            self.engine,
            self.tracker,
            self.store,
            self.task_runner,
            self.files,
            self.reader,
            VersionStore(self.store.database, "who looks", lambda: "model"),
            ConnectionStatus(TokenWatch(None), self._poller(settings), self.files),
            DeletedProjects(ProjectTitles(None)),
        )

    def _poller(self, settings: Settings) -> ChangePoller:
        database = self.store.database
        self.polls = PollStore(database, "us")
        client = LabelStudioClient("http://label-studio:8080", KEY)
        annotations = AnnotationStore(database, "us")
        return ChangePoller(settings, self.polls, annotations, self.store, client)

    def read(self) -> dict[str, Any]:
        """What a client would get."""
        now: dict[str, Any] = json.loads(json.dumps(self.status.read()))
        return now
