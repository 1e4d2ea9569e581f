"""The parts of a backend, and its status report."""

from __future__ import annotations

import json
from typing import Any

from backend.database.database import Database
from backend.inference.engine import Engine
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.pages.status import StatusReport
from tests.backend.fakes.colour_segmenter import colour_engine

KEY = "0123456789abcdef0123456789abcdef01234567"


class Scene:
    """The parts of a backend, and their status report."""

    def __init__(self, engine: Engine | None = None, database: Database | None = None) -> None:
        settings = Settings(
            model="demo", label_studio_url="http://label-studio:8080", label_studio_api_key=KEY
        )
        services = Services(settings, engine or colour_engine())
        if database is not None:
            vars(services)["database"] = database  # in place of the cached one
        self.tracker = TaskTracker()
        self.engine, self.store, self.files = services.engine, services.store, services.files
        self.task_runner, self.polls = services.task_runner, services.change_poller.polls
        self.status = StatusReport(services, self.tracker)

    def read(self) -> dict[str, Any]:
        """What a client would get."""
        now: dict[str, Any] = json.loads(json.dumps(self.status.read()))
        return now
