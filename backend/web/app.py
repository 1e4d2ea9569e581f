"""Make the WSGI application."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Flask

from backend.inference.engine import Engine
from backend.label_studio.connection import begin_page, end_page, page_gave_up
from backend.prediction.predictor import Predictor
from backend.runs.agreement import AGREEMENT
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.next_tasks import NEXT_TASKS
from backend.runs.words import WORDS
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.logs import known_secrets
from backend.telemetry.task_tracker import TaskTracker
from backend.web.metrics import Metrics
from backend.web.middleware.auth import add_auth
from backend.web.middleware.errors import add_error_handlers
from backend.web.middleware.guards import (
    BodyReader,
    add_csrf_check,
    add_host_check,
    add_proxy_headers,
    add_security_headers,
)
from backend.web.middleware.request_log import add_request_log
from backend.web.ml_backend import MlBackendRoutes
from backend.web.pages.dashboard import DashboardRoutes
from backend.web.pages.html import add_filters, error_response
from backend.web.pages.jobs import JobRoutes
from backend.web.pages.learning import LearningRoutes
from backend.web.pages.project import ProjectRoutes
from backend.web.pages.projects import DeletedProjects, MissingProjects, ProjectCheck
from backend.web.pages.report import ReportRoutes
from backend.web.pages.runs import DatasetRoutes, LabelErrorRoutes, RunRoutes, WordsRoutes
from backend.web.pages.status import ConnectionStatus, StatusReport
from backend.web.request_slots import RequestSlots


def create_app(settings: Settings, engine: Engine | None = None) -> Flask:
    """Make the WSGI application.

    Call it in the process that serves: CUDA does not survive a fork.

    Raises:
        ValueError: settings name a model that does not exist.
    """
    services = Services(settings, engine)
    images = services.images
    metrics = Metrics(
        services.engine.snapshot,
        lambda: images.cache_stats,
        services.versions.summary,
    )
    tracker = TaskTracker((metrics.task,), secrets=tuple(known_secrets(settings)))
    predictor = services.predictor(tracker)
    worker = services.worker(predictor)
    app = Flask("backend", static_folder=None, template_folder="web/pages/templates")
    app.before_request(begin_page)
    app.teardown_request(end_page)
    app.jinja_env.globals["label_studio_was_silent"] = page_gave_up
    app.extensions["worker"] = worker
    app.extensions["metrics"] = metrics
    app.extensions["engine"] = services.engine
    _add_middleware(app, settings, metrics)
    projects = ProjectCheck(services.page_client)
    MissingProjects(services.project_titles, services.database, projects).add_to(app)
    add_filters(app)
    app.jinja_env.globals["project_title"] = services.project_titles.name
    app.jinja_env.globals["task_url"] = services.files.task_url
    body = BodyReader(settings)
    app.register_blueprint(_ml_backend(services, predictor, tracker, body))
    for pages in _pages(services, predictor, tracker, metrics, body):
        app.register_blueprint(pages)
    if engine is None:
        services.engine.start()
        worker.start()
    return app


def _add_middleware(app: Flask, settings: Settings, metrics: Metrics) -> None:
    add_proxy_headers(app, settings)
    add_request_log(app, metrics)  # the first, as it names the request for the others
    add_security_headers(app)
    add_host_check(app, settings)
    add_auth(app, settings)
    add_csrf_check(app, settings)
    add_error_handlers(app, error_response)


def _ml_backend(
    services: Services, predictor: Predictor, tracker: TaskTracker, body: BodyReader
) -> Blueprint:
    settings = services.settings
    return MlBackendRoutes(
        settings,
        services.engine,
        services.files,
        predictor,
        RequestSlots(settings.threads),
        services.change_poller,
        tracker,
        body,
    ).blueprint()


def _pages(
    services: Services,
    predictor: Predictor,
    tracker: TaskTracker,
    metrics: Metrics,
    body: BodyReader,
) -> Iterator[Blueprint]:
    settings, learner = services.settings, services.learner
    status = _status(services, tracker)
    dashboard = DashboardRoutes(settings, services.engine, metrics, status, services.project_titles)
    projects = ProjectCheck(services.page_client)
    yield dashboard.blueprint()
    yield ProjectRoutes(services, predictor.versions, status.serializer).blueprint()
    yield JobRoutes(
        settings,
        services.store,
        status.serializer,
        projects,
        body,
        dashboard.render,
    ).blueprint()
    client = services.page_client
    yield ReportRoutes(settings, services.annotations, client, services.change_poller).blueprint()
    shared = (services.runs, client, projects, body)
    yield LabelErrorRoutes(
        LABEL_ERRORS,
        *shared,
        services.confirmed,
        services.annotations.tasks,
    ).blueprint()
    yield RunRoutes(AGREEMENT, *shared).blueprint()
    yield RunRoutes(NEXT_TASKS, *shared).blueprint()
    yield DatasetRoutes(DATASETS, *shared, settings).blueprint()
    yield WordsRoutes(WORDS, *shared, settings.method).blueprint()
    yield LearningRoutes(learner, body, services.runs, services.confirmed).blueprint()


def _status(services: Services, tracker: TaskTracker) -> StatusReport:
    return StatusReport(
        services.settings,
        services.engine,
        tracker,
        services.store,
        services.task_runner,
        services.files,
        services.images,
        services.versions,
        ConnectionStatus(services.token_watch, services.change_poller, services.files),
        DeletedProjects(services.project_titles),
    )
