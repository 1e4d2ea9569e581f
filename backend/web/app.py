"""Make the WSGI application; log each request."""

import logging
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from flask import Blueprint, Flask, Response, g, request

from backend.errors import BackendError
from backend.inference.engine import Engine
from backend.label_studio.connection import begin_page, end_page, page_notice
from backend.prediction.predictor import Predictor
from backend.runs.agreement import AGREEMENT
from backend.runs.checks import CHECKS
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.models import MODELS
from backend.runs.words import WORDS
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.logs import about
from backend.telemetry.task_tracker import TaskTracker
from backend.web.metrics import Metrics
from backend.web.middleware.auth import Gate, add_auth
from backend.web.middleware.errors import add_error_handlers
from backend.web.middleware.guards import (
    BodyReader,
    RequestSlots,
    add_csrf_check,
    add_host_check,
    add_proxy_headers,
    add_security_headers,
)
from backend.web.ml_backend import MlBackendRoutes
from backend.web.pages.assets import asset_url, assets_blueprint
from backend.web.pages.dashboard import DashboardRoutes, JobRoutes
from backend.web.pages.forms import ProjectCheck
from backend.web.pages.html import add_filters, error_response
from backend.web.pages.learning import LearningRoutes
from backend.web.pages.project import ProjectRoutes
from backend.web.pages.report import ReportRoutes
from backend.web.pages.review import ReviewRoutes
from backend.web.pages.runs import DatasetRoutes, LabelErrorRoutes, RunRoutes, WordsRoutes
from backend.web.pages.status import StatusReport
from backend.web.pages.task import TaskRoutes

log = logging.getLogger(__name__)


#: Request ids that are taken over from ``X-Request-ID``.
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

#: Routes that monitoring asks again and again: only their failures are logged above DEBUG.
_POLLED_ROUTES = {"/", "/health", "/ready", "/status", "/metrics", "/jobs"}


def add_request_log(app: Flask, metrics: Metrics) -> None:
    """Log and count each request, and tag all log lines that it causes with its id."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(6)
        g.start, g.error, g.trace = time.perf_counter(), None, ExitStack()
        g.urgency = ""  # of a request for predictions: who waits for it
        g.trace.enter_context(about(request=g.id))

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.start
        route = str(request.url_rule) if request.url_rule else "other"
        metrics.request(route, request.method, response.status_code, seconds, g.urgency)
        _log_request(route, response.status_code, seconds)
        response.headers["X-Request-ID"] = g.id
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        g.trace.close()


def _log_request(route: str, status: int, seconds: float) -> None:
    """Log a request that has been answered, without its query, which may hold a token."""
    extra = {"facts": {"ms": round(1000 * seconds)}}
    line = f"{request.method} {request.path}: {status}"
    if isinstance(g.error, BackendError):
        log.warning("%s, %s", line, g.error, extra=extra)
    elif g.error is not None:
        log.error("%s", line, exc_info=g.error, extra=extra)
    elif status < 400 and route in _POLLED_ROUTES and request.method == "GET":
        log.debug("%s", line, extra=extra)
    else:
        log.info("%s", line, extra=extra)


def create_app(settings: Settings, engine: Engine | None = None, gate: Gate | None = None) -> Flask:
    """Make the WSGI application.

    Call it in the process that serves: CUDA does not survive a fork. An engine
    that is given is started by the caller, and so is the worker (``app.extensions["worker"]``);
    else both are made and started here. A gate is given where the server asks it, too.

    Raises:
        ValueError: settings name a model that does not exist.
    """
    services = Services(settings, engine)
    metrics = Metrics(services)
    tracker = TaskTracker(metrics.task)
    predictor = services.predictor(tracker)
    worker = services.worker(predictor)
    app = Flask("backend", static_folder=None, template_folder="web/pages/templates")
    app.before_request(begin_page)
    app.teardown_request(end_page)
    app.jinja_env.globals["label_studio_notice"] = page_notice
    app.extensions["worker"] = worker
    app.extensions["metrics"] = metrics
    app.extensions["engine"] = services.engine
    gate = gate or Gate(settings)
    _add_middleware(app, settings, metrics, gate)
    projects = ProjectCheck(services.page_client)

    @app.before_request
    def refuse_missing_project() -> None:
        """Ask Label Studio for a project only where its list of projects lacks it."""
        project = (request.view_args or {}).get("project")
        if project is not None and services.connection_watch.is_gone(project):
            projects.check(project)

    add_filters(app)
    app.jinja_env.globals["asset_url"] = asset_url
    app.jinja_env.globals["project_title"] = services.connection_watch.project_name
    app.jinja_env.globals["task_url"] = services.files.task_url
    for blueprint in _blueprints(
        services, predictor, tracker=tracker, metrics=metrics, projects=projects, gate=gate
    ):
        app.register_blueprint(blueprint)
    if engine is None:
        services.engine.start()
        worker.start()
    return app


def _add_middleware(app: Flask, settings: Settings, metrics: Metrics, gate: Gate) -> None:
    add_proxy_headers(app, settings)
    add_request_log(app, metrics)  # the first, as it names the request for the others
    add_security_headers(app)
    add_host_check(app, settings)
    add_auth(app, gate)
    add_csrf_check(app)
    add_error_handlers(app, error_response)


def _blueprints(
    services: Services,
    predictor: Predictor,
    *,
    tracker: TaskTracker,
    metrics: Metrics,
    projects: ProjectCheck,
    gate: Gate,
) -> Iterator[Blueprint]:
    body, slots = BodyReader(services.settings), RequestSlots(services.settings.threads)
    status = StatusReport(services, tracker)
    dashboard = DashboardRoutes(services, metrics, status)

    clicks = ThreadPoolExecutor(services.settings.threads, thread_name_prefix="click")
    yield MlBackendRoutes(
        services=services,
        predictor=predictor,
        slots=slots,
        tracker=tracker,
        body=body,
        gate=gate,
        clicks=clicks,
    ).blueprint()

    yield assets_blueprint()
    yield dashboard.blueprint()
    yield ProjectRoutes(services, predictor.versions, status.serializer).blueprint()
    yield JobRoutes(services, status.serializer, projects, body, dashboard.render).blueprint()
    yield ReportRoutes(services).blueprint()
    review = ReviewRoutes(services, predictor, body)
    yield TaskRoutes(services, review.picture).blueprint()
    for routes, kind in (
        (LabelErrorRoutes, LABEL_ERRORS),
        (RunRoutes, AGREEMENT),
        (RunRoutes, CHECKS),
        (RunRoutes, MODELS),
        (DatasetRoutes, DATASETS),
        (WordsRoutes, WORDS),
    ):
        yield routes(kind, services, projects, body).blueprint()
    yield LearningRoutes(services, body).blueprint()
    yield review.blueprint()
