"""The routes that Label Studio calls; no logic."""

from __future__ import annotations

from flask import Flask

from backend.inference.engine import Engine
from backend.network.time_limit import Clock
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.task_tracker import TaskTracker
from backend.web.metrics import Metrics
from backend.web.middleware.auth import add_auth
from backend.web.middleware.body import read_body
from backend.web.middleware.errors import add_errors
from backend.web.middleware.request_log import add_observation
from backend.web.ml_backend.routes import add_routes
from backend.web.pages.dashboard import make_console
from backend.web.pages.learning import describe, make_tutor
from backend.web.pages.report import make_report
from backend.web.pages.status import StatusReport


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
    services = Services(settings, given)
    engine, files, reader = services.engine, services.files, services.images
    store, annotations, learner = services.store, services.annotations, services.learner
    metrics = Metrics(engine.snapshot, lambda: reader.cache_stats, services.registry.summary)
    tracker = TaskTracker((metrics.task,))
    predictor = services.predictor(tracker)
    worker = services.worker(predictor)
    overview = StatusReport(
        settings,
        engine,
        tracker,
        store,
        services.outbox,
        services.deadline,
        files,
        reader,
        services.registry,
    )
    app = Flask("backend", static_folder=None, template_folder="web/pages/templates")
    app.extensions["worker"] = worker
    add_observation(app, metrics)
    add_auth(app, settings)
    clock = Clock()
    add_routes(app, settings, engine, files, predictor, store, annotations, tracker, clock)
    app.register_blueprint(
        make_console(settings, engine, store, metrics, overview, lambda: read_body(settings, clock))
    )
    app.register_blueprint(
        make_report(
            settings, annotations, files, lambda number: describe(settings, learner, number)
        )
    )
    app.register_blueprint(make_tutor(settings, learner, files, lambda: read_body(settings, clock)))
    add_errors(app)
    if given is None:
        engine.start()
        worker.start()
    return app
