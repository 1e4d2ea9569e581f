"""The routes that Label Studio calls."""

from __future__ import annotations

from flask import Flask, Response, request

from backend.errors import ModelUnavailable, PayloadTooLarge, RequestTooSlow
from backend.feedback.annotation_store import Annotations
from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import TasksCreated, parse_predict, parse_setup, parse_webhook
from backend.network.time_limit import Clock
from backend.prediction.predictor import Predictor
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.middleware.body import read_body
from backend.web.middleware.responses import json_response
from backend.web.ml_backend.admission import LABEL_STUDIO_AGENT, Admission
from backend.web.ml_backend.webhooks import auto_prelabel, note_change
from backend.web.openapi import description

#: What to do about a request of Label Studio that is refused as a whole.
_FEWER_AT_ONCE = (
    "It is Label Studio's: select fewer tasks for Retrieve, raise that setting, or prelabel the "
    "project from this backend, which asks for its tasks page by page."
)


def add_routes(
    app: Flask,
    settings: Settings,
    engine: Engine,
    files: LabelStudioFiles,
    predictor: Predictor,
    store: JobStore,
    annotations: Annotations,
    tracker: TaskTracker,
    clock: Clock,
) -> None:
    is_protected = settings.basic_auth_user is not None
    # Predictions wait for each other; a part of the threads is kept for health and setup.
    at_once = settings.threads - max(2, settings.threads // 4)
    admission = Admission(predictor.predict, at_once, settings.max_tasks)

    @app.route("/health", methods=["GET"])
    def health() -> Response:
        return json_response(
            {"status": "UP", "model": settings.model, "state": engine.status.state}
        )

    @app.route("/setup", methods=["POST"])
    def setup() -> Response:
        asked = parse_setup(read_body(settings, clock))
        files.learn(asked.hostname, asked.access_token, vouched=is_protected)
        status = engine.status
        if status.state == "failed":
            raise ModelUnavailable(status.reason)
        config = parse_label_config(asked.label_config)
        version = predictor.version(config, asked.project_id)
        predictor.warm_up(config)
        return json_response({"model_version": version})

    @app.route("/predict", methods=["POST"])
    def predict() -> Response:
        by_studio = str(request.user_agent).startswith(LABEL_STUDIO_AGENT)
        try:
            entries = admission.predict(
                lambda: parse_predict(read_body(settings, clock)), by_studio
            )
        except (PayloadTooLarge, RequestTooSlow) as error:
            if by_studio:  # which shows nobody why
                tracker.refused(error, _FEWER_AT_ONCE)
            raise
        return json_response({"results": entries})

    @app.route("/webhook", methods=["POST"])
    def webhook() -> Response:
        happened = parse_webhook(
            read_body(settings, clock)
        )  # Label Studio waits: the work comes later
        if isinstance(happened, TasksCreated):
            job = auto_prelabel(store, settings, happened)
            if job is not None:
                return json_response({"status": "queued", "job": job.id})
        elif happened is not None and note_change(annotations, settings, happened):
            return json_response({"status": "noted"})
        return json_response({"status": "ignored"})

    @app.route("/versions", methods=["GET", "POST"])
    def versions() -> Response:
        return json_response({"versions": [f"{settings.model} {settings.method}"]})

    @app.route("/openapi.json", methods=["GET"])
    def openapi() -> Response:
        return json_response(description(locked=is_protected))
