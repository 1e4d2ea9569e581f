"""The routes that Label Studio calls; no logic."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from contextlib import ExitStack
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import ClientDisconnected, HTTPException

from backend.database.database import new_owner
from backend.errors import (
    BackendError,
    Busy,
    ModelUnavailable,
    PayloadTooLarge,
    RequestTooSlow,
    Unauthorized,
)
from backend.feedback.annotation_store import Annotations
from backend.feedback.learning.example_store import Lessons
from backend.feedback.learning.learner import Learner, model_key
from backend.inference.engine import Engine
from backend.jobs.job_store import Store
from backend.jobs.worker import Worker, auto_prelabel, note_change
from backend.label_studio.files import Studio
from backend.label_studio.image_loader import ImageReader
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import TasksCreated, parse_predict, parse_setup, parse_webhook
from backend.network.http import Clock, TimeLimit
from backend.prediction.deadline import Pending
from backend.prediction.outbox import Results
from backend.prediction.predictor import Pipeline
from backend.settings import Settings
from backend.telemetry.task_tracker import Journal
from backend.telemetry.tracing import about
from backend.web.metrics import Metrics
from backend.web.middleware.auth import Lock
from backend.web.ml_backend.admission import LABEL_STUDIO_AGENT, Admission
from backend.web.openapi import description
from backend.web.pages.dashboard import make_console
from backend.web.pages.learning import describe, make_tutor
from backend.web.pages.report import make_report
from backend.web.pages.status import Overview

log = logging.getLogger(__name__)

#: Label Studio keeps nothing of an error but its reason phrase; more than this is cut off.
_REASON_LENGTH = 300

#: What to do about a request of Label Studio that is refused as a whole.
_FEWER_AT_ONCE = (
    "It is Label Studio's: select fewer tasks for Retrieve, raise that setting, or prelabel the "
    "project from this backend, which asks for its tasks page by page."
)

#: What a request may be called by whoever sends it.
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

#: Routes that are asked again and again by who watches: said in the log only where they fail.
_WATCHED = {"/", "/health", "/ready", "/status", "/metrics", "/jobs"}


def create_app(settings: Settings, engine: Engine | None = None) -> Flask:
    """Make the WSGI application.

    Call it in the process that serves: CUDA does not survive a fork.

    Args:
        settings: what to serve and how.
        engine: the owner of the model; by default one is made from the settings and begins to
            load in the background. One that is given is left as it is, and so is the worker that
            does what needs no request, ``app.extensions["worker"]``; else that is started too.

    Raises:
        ValueError: settings name a model that does not exist.
    """
    given = engine
    engine = given or Engine.from_settings(settings)
    studio = Studio.from_settings(settings)
    reader = ImageReader(studio, settings)
    store, owner = Store.from_settings(settings), new_owner()
    lessons = Lessons(store, owner, lambda: model_key(settings, engine.model_id))
    metrics = Metrics(engine.snapshot, lambda: reader.kept, lessons.summary)
    journal = Journal((metrics.task,))
    results = Results(store, owner, max_mb=settings.waiting_mb)
    pending = Pending(store, results, settings.predict_deadline_s)
    pipeline = Pipeline(engine, reader.read, settings, reader.recall, pending, journal, lessons)
    annotations = Annotations(store, owner)
    learner = Learner(settings, engine, reader.read, lessons)
    worker = Worker.from_settings(
        settings, store, results, owner, pipeline, pending, annotations, learner
    )
    overview = Overview(settings, engine, journal, store, results, pending, studio, reader, lessons)
    app = Flask("backend", static_folder=None, template_folder="web/pages/templates")
    app.extensions["worker"] = worker
    _add_observation(app, metrics)
    _add_auth(app, settings)
    clock = Clock()
    _add_routes(app, settings, engine, studio, pipeline, store, annotations, journal, clock)
    app.register_blueprint(
        make_console(settings, engine, store, metrics, overview, lambda: _body(settings, clock))
    )
    app.register_blueprint(
        make_report(
            settings, annotations, studio, lambda number: describe(settings, learner, number)
        )
    )
    app.register_blueprint(make_tutor(settings, learner, studio, lambda: _body(settings, clock)))
    _add_errors(app)
    if given is None:
        engine.start()
        worker.start()
    return app


def _add_routes(
    app: Flask,
    settings: Settings,
    engine: Engine,
    studio: Studio,
    pipeline: Pipeline,
    store: Store,
    annotations: Annotations,
    journal: Journal,
    clock: Clock,
) -> None:
    is_protected = settings.basic_auth_user is not None
    # Predictions wait for each other; a part of the threads is kept for health and setup.
    at_once = settings.threads - max(2, settings.threads // 4)
    admission = Admission(pipeline.predict, at_once, settings.max_tasks)

    @app.route("/health", methods=["GET"])
    def health() -> Response:
        return _json({"status": "UP", "model": settings.model, "state": engine.status.state})

    @app.route("/setup", methods=["POST"])
    def setup() -> Response:
        asked = parse_setup(_body(settings, clock))
        studio.learn(asked.hostname, asked.access_token, vouched=is_protected)
        status = engine.status
        if status.state == "failed":
            raise ModelUnavailable(status.reason)
        config = parse_label_config(asked.label_config)
        version = pipeline.version(config, asked.project_id)
        pipeline.prime(config)
        return _json({"model_version": version})

    @app.route("/predict", methods=["POST"])
    def predict() -> Response:
        by_studio = str(request.user_agent).startswith(LABEL_STUDIO_AGENT)
        try:
            entries = admission.predict(lambda: parse_predict(_body(settings, clock)), by_studio)
        except (PayloadTooLarge, RequestTooSlow) as error:
            if by_studio:  # which shows nobody why
                journal.refused(error, _FEWER_AT_ONCE)
            raise
        return _json({"results": entries})

    @app.route("/webhook", methods=["POST"])
    def webhook() -> Response:
        happened = parse_webhook(_body(settings, clock))  # Label Studio waits: the work comes later
        if isinstance(happened, TasksCreated):
            job = auto_prelabel(store, settings, happened)
            if job is not None:
                return _json({"status": "queued", "job": job.id})
        elif happened is not None and note_change(annotations, settings, happened):
            return _json({"status": "noted"})
        return _json({"status": "ignored"})

    @app.route("/versions", methods=["GET", "POST"])
    def versions() -> Response:
        return _json({"versions": [f"{settings.model} {settings.method}"]})

    @app.route("/openapi.json", methods=["GET"])
    def openapi() -> Response:
        return _json(description(locked=is_protected))


def _add_observation(app: Flask, metrics: Metrics) -> None:
    """A line in the log and a count for each request; its id goes along to all that it causes."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(6)
        g.start, g.error, g.trace = time.perf_counter(), None, ExitStack()
        g.trace.enter_context(about(request=g.id))

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.start
        route = str(request.url_rule) if request.url_rule else "other"
        metrics.request(route, request.method, response.status_code, seconds)
        _write(route, response.status_code, seconds)
        response.headers["X-Request-ID"] = g.id
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        g.trace.close()


def _write(route: str, status: int, seconds: float) -> None:
    """The line of a request that has been answered; without its query, which may hold a token."""
    facts = {"facts": {"ms": round(1000 * seconds)}}
    asked = (request.method, request.path, status)
    if isinstance(g.error, BackendError):
        log.warning("%s %s: %d, %s", *asked, g.error, extra=facts)
    elif g.error is not None:
        log.error("%s %s: %d", *asked, exc_info=g.error, extra=facts)
    elif status < 400 and route in _WATCHED and request.method == "GET":
        log.debug("%s %s: %d", *asked, extra=facts)
    else:
        log.info("%s %s: %d", *asked, extra=facts)


def _add_auth(app: Flask, settings: Settings) -> None:
    lock = Lock.from_settings(settings)
    if lock is None:
        return

    @app.before_request
    def authorize() -> None:
        if request.path == "/health":
            return
        authorization = request.headers.get("Authorization", "")
        if lock.opens(authorization):
            return
        if request.path == "/webhook" and (
            lock.opens_webhook(request.args.get("token", ""))
            or lock.opens_webhook(authorization.removeprefix("Bearer "))
        ):
            return
        raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")


def _add_errors(app: Flask) -> None:
    @app.errorhandler(BackendError)
    def backend_error(error: BackendError) -> Response:
        g.error = error
        response = _json({"error": str(error)})
        response.status = f"{error.http_status} {_reason(error)}"
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = 'Basic realm="clearclip"'
        if isinstance(error, Busy):
            response.headers["Retry-After"] = "5"
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = _json({"error": f"{error.name}: {request.method} {request.path}"})
        response.status_code = error.code or 500
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        g.error = error
        response = _json({"error": f"Unexpected {type(error).__name__}: see the backend's log."})
        response.status_code = 500
        return response


def _body(settings: Settings, clock: Clock) -> bytes:
    """The request's body; refused before it is read where its length says that it is too large."""
    limit = settings.max_body_mb << 20
    if (request.content_length or 0) <= limit:
        with TimeLimit(settings.request_timeout_s, clock) as time_limit:
            if connection := request.environ.get("gunicorn.socket"):
                time_limit.hold(connection)
            try:
                body: bytes = request.stream.read(limit + 1)  # a chunked request has no length
            except ClientDisconnected:
                body = b""
        if time_limit.is_over:
            raise RequestTooSlow(
                f"The request took longer than REQUEST_TIMEOUT_S ({settings.request_timeout_s:g})."
            )
        if len(body) <= limit:
            return body
    raise PayloadTooLarge(f"The request is larger than MAX_BODY_MB ({settings.max_body_mb}).")


def _json(value: Any) -> Response:
    # flask.jsonify sorts keys, which takes long on answers of hundreds of thousands of numbers.
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")


def _reason(error: BackendError) -> str:
    """A message as an HTTP reason phrase: one line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(error)).encode("ascii", "replace").decode()
    return re.sub(r"[^ -~]", "?", line)[:_REASON_LENGTH]
