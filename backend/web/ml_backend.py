"""Serve the routes that Label Studio calls: its ML backend protocol and its webhook."""

import logging
import time
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Final

from flask import Blueprint, Response, g, request

from backend.errors import ModelUnavailable, PayloadTooLarge
from backend.inference.queue import Priority
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import PredictRequest, parse_predict, parse_setup, parse_webhook
from backend.prediction.batches import Entry
from backend.prediction.predictor import Predictor, priority
from backend.services import Services
from backend.telemetry.task_tracker import TaskTracker
from backend.web.middleware.auth import LARGEST_WEBHOOK, Gate
from backend.web.middleware.errors import describe_health, json_response
from backend.web.middleware.guards import BodyReader, RequestSlots
from backend.web.pages.learning import ask_for_version

log = logging.getLogger(__name__)

#: The start of ``User-Agent`` in the requests that Label Studio sends to ML backends.
_LABEL_STUDIO_AGENT = "heartex/"

#: Most tasks of one request that are read. Label Studio is answered nothing for those above, and
#: asks for them again with the next Retrieve.
MAX_TASKS: Final = 10_000

#: Advice about a request of Label Studio that is refused as a whole.
_FEWER_AT_ONCE = (
    "It is Label Studio's: select fewer tasks for Retrieve, raise that setting, or prelabel the "
    "project from this backend, which asks for its tasks page by page."
)


@dataclass(frozen=True, eq=False)
class MlBackendRoutes:
    """Answer the requests of Label Studio."""

    services: Services
    predictor: Predictor
    slots: RequestSlots
    tracker: TaskTracker
    body: BodyReader
    gate: Gate
    clicks: Executor  # as many threads as annotators have slots

    def blueprint(self) -> Blueprint:
        routes = Blueprint("ml_backend", __name__)
        routes.add_url_rule("/health", "health", self.health, methods=["GET"])
        routes.add_url_rule("/setup", "setup", self.setup, methods=["POST"])
        routes.add_url_rule("/predict", "predict", self.predict, methods=["POST"])
        routes.add_url_rule("/webhook", "webhook", self.webhook, methods=["POST"])
        routes.add_url_rule("/versions", "versions", self.versions, methods=["GET", "POST"])
        return routes

    def health(self) -> Response:
        """Answer that the process is up, and how far the model is."""
        return json_response(
            describe_health(self.services.settings.model, self.services.engine.status.state)
        )

    def setup(self) -> Response:
        """Learn a project's address, and answer with the version of its predictions."""
        asked = parse_setup(self.body.read())
        has_password = self.services.settings.basic_auth_user is not None
        self.services.files.use_setup(asked.hostname, asked.access_token, trusted=has_password)
        status = self.services.engine.status
        if status.state == "failed":
            raise ModelUnavailable(status.reason)
        config = parse_label_config(asked.label_config, self.services.settings)
        self.services.change_poller.note_setup(asked.project_id)
        version = self.predictor.versions.current(config, asked.project_id)
        self.predictor.warm_up(config)
        return json_response({"model_version": version})

    def predict(self) -> Response:
        """Answer with the predictions of tasks, in their order."""
        came = time.monotonic()
        asked = self._read_predict()
        urgency = priority(asked)
        g.urgency, is_batch = urgency.word, urgency is Priority.BATCH
        slots = self.slots.batches if is_batch else self.slots.annotators
        deadline_s = self.services.settings.predict_deadline_s
        with slots.hold(max(0.0, came + deadline_s - time.monotonic())):
            asked = replace(asked, waited_s=time.monotonic() - came)
            entries = self._answer(asked, is_batch)
        if asked.tasks_left_out:
            log.warning("%d tasks above %d are left for later", asked.tasks_left_out, MAX_TASKS)
        return json_response({"results": entries + [[]] * asked.tasks_left_out})

    def _answer(self, asked: PredictRequest, is_batch: bool) -> list[Entry]:
        """Predict the tasks of a request that holds a slot.

        Clicks are computed in few threads: each thread that has ever computed keeps memory for it.
        A batch computes in those of the task runner.
        """
        if is_batch:
            return self.predictor.predict(asked)
        return self.clicks.submit(copy_context().run, self.predictor.predict, asked).result()

    def webhook(self) -> Response:
        """Wake the poller, which asks Label Studio what has happened in the project.

        *Start Training* has a version made of all corrections; it comes with the password.
        """
        if (request.content_length or 0) > LARGEST_WEBHOOK:
            return json_response({})
        project, action = parse_webhook(self.body.read(LARGEST_WEBHOOK))
        self.services.change_poller.wake(project)
        if project is not None and action == "START_TRAINING":
            self.gate.check_password(request.environ)
            ask_for_version(self.services, project)
        return json_response({})

    def versions(self) -> Response:
        return json_response(
            {"versions": [f"{self.services.settings.model} {self.services.settings.method}"]}
        )

    def _read_predict(self) -> PredictRequest:
        try:
            with self.slots.bodies.hold(self.services.settings.predict_deadline_s):
                return parse_predict(self.body.read(), self.services.settings, MAX_TASKS)
        except PayloadTooLarge as error:
            agent = str(request.user_agent)
            if agent.startswith(_LABEL_STUDIO_AGENT):  # it shows nobody the reason
                self.tracker.refused(f"{error} {_FEWER_AT_ONCE}")
            raise
