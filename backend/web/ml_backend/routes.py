"""Serve the routes that Label Studio calls: its ML backend protocol and its webhook."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, request

from backend.errors import ModelUnavailable, PayloadTooLarge, RequestTooSlow
from backend.inference.engine import Engine
from backend.jobs.change_poller import ChangePoller
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import (
    PredictRequest,
    parse_predict,
    parse_setup,
    parse_webhook,
)
from backend.network.client_address import client_network
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.middleware.body import BodyReader
from backend.web.middleware.responses import json_response
from backend.web.ml_backend.admission import LABEL_STUDIO_AGENT, Admission, Asker
from backend.web.ml_backend.health import describe_health
from backend.web.openapi import description

#: Key of the WSGI environment under which the server tells whether the client has gone.
_IS_GONE = "waitress.client_disconnected"

#: Most bytes of a webhook that are read, as anybody may send one; the poll finds what a larger one
#: tells, too.
_LARGEST_WEBHOOK = 16 << 20

#: Advice about a request of Label Studio that is refused as a whole.
_FEWER_AT_ONCE = (
    "It is Label Studio's: select fewer tasks for Retrieve, raise that setting, or prelabel the "
    "project from this backend, which asks for its tasks page by page."
)


@dataclass(frozen=True, eq=False)
class MlBackendRoutes:
    """Answer the requests of Label Studio.

    Args:
        settings: what is served.
        engine: the inference engine.
        files: learns the address and token of the Label Studio that asks.
        predictor: tells model versions.
        admission: lets requests for predictions through to the predictor.
        change_poller: polls connected projects for changes.
        tracker: shows refused requests on the dashboard.
        body: reads the bodies of requests.
    """

    settings: Settings
    engine: Engine
    files: LabelStudioFiles
    predictor: Predictor
    admission: Admission
    change_poller: ChangePoller
    tracker: TaskTracker
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("ml_backend", __name__)
        routes.add_url_rule("/health", "health", self.health, methods=["GET"])
        routes.add_url_rule("/setup", "setup", self.setup, methods=["POST"])
        routes.add_url_rule("/predict", "predict", self.predict, methods=["POST"])
        routes.add_url_rule("/webhook", "webhook", self.webhook, methods=["POST"])
        routes.add_url_rule("/versions", "versions", self.versions, methods=["GET", "POST"])
        routes.add_url_rule("/openapi.json", "openapi", self.openapi, methods=["GET"])
        return routes

    def health(self) -> Response:
        """Answer that the process is up, and how far the model is."""
        return json_response(describe_health(self.settings.model, self.engine.status.state))

    def setup(self) -> Response:
        """Learn a project's address, and answer with the version of its predictions."""
        with self.body.open() as body:
            asked = parse_setup(body.read())
        self.files.use_setup(asked.hostname, asked.access_token, trusted=self._has_password)
        status = self.engine.status
        if status.state == "failed":
            raise ModelUnavailable(status.reason)
        config = parse_label_config(asked.label_config)
        self.change_poller.note_setup(asked.project_id)
        version = self.predictor.versions.current(config, asked.project_id)
        self.predictor.warm_up(config)
        return json_response({"model_version": version})

    def predict(self) -> Response:
        """Answer with the predictions of tasks, in their order."""
        asker = _asker()
        try:
            entries = self.admission.predict(self._read_predict, asker)
        except (PayloadTooLarge, RequestTooSlow) as error:
            if asker.is_label_studio:  # Label Studio shows nobody the reason
                self.tracker.refused(error, _FEWER_AT_ONCE)
            raise
        return json_response({"results": entries})

    def webhook(self) -> Response:
        """Wake the poller, which asks Label Studio what has happened in the project."""
        if (request.content_length or 0) <= _LARGEST_WEBHOOK:
            self.change_poller.wake(parse_webhook(self.body.read(_LARGEST_WEBHOOK)))
        return json_response({})

    def versions(self) -> Response:
        """Answer with the model and the method."""
        return json_response({"versions": [f"{self.settings.model} {self.settings.method}"]})

    def openapi(self) -> Response:
        """Answer with the description of all routes."""
        return json_response(description(has_password=self._has_password))

    def _read_predict(self) -> PredictRequest:
        with self.body.open() as body:
            return parse_predict(body.read(), self.settings.max_tasks)

    @property
    def _has_password(self) -> bool:
        return self.settings.basic_auth_user is not None


def _asker() -> Asker:
    """Return who has sent the current request."""
    return Asker(
        client_network(request.remote_addr or ""),
        str(request.user_agent).startswith(LABEL_STUDIO_AGENT),
        request.content_length or 0,
        request.environ.get(_IS_GONE, lambda: False),
    )
