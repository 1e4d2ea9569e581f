"""The routes that Label Studio calls; no logic."""

from __future__ import annotations

from flask import Flask

from backend.database.database import new_owner
from backend.feedback.annotation_store import Annotations
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.learner import Learner, model_key
from backend.inference.engine import Engine
from backend.jobs.job_store import JobStore
from backend.jobs.worker import Worker
from backend.label_studio.files import LabelStudioFiles
from backend.label_studio.image_loader import ImageReader
from backend.network.time_limit import Clock
from backend.prediction.deadline import DeadlineRunner
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox
from backend.prediction.predictor import Predictor
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
    engine = given or Engine.from_settings(settings)
    studio = LabelStudioFiles.from_settings(settings)
    reader = ImageReader(studio, settings)
    store, owner = JobStore.from_settings(settings), new_owner()
    lessons = ExampleStore(store, owner, lambda: model_key(settings, engine.model_id))
    metrics = Metrics(engine.snapshot, lambda: reader.kept, lessons.summary)
    tracker = TaskTracker((metrics.task,))
    results = PredictionOutbox(store, owner, max_mb=settings.waiting_mb)
    pending = DeadlineRunner(FailureStore(store), results, settings.predict_deadline_s)
    predictor = Predictor(engine, reader.read, settings, reader.recall, pending, tracker, lessons)
    annotations = Annotations(store, owner)
    learner = Learner(settings, engine, reader.read, lessons)
    worker = Worker.from_settings(
        settings, store, results, owner, predictor, pending, annotations, learner
    )
    overview = StatusReport(
        settings, engine, tracker, store, results, pending, studio, reader, lessons
    )
    app = Flask("backend", static_folder=None, template_folder="web/pages/templates")
    app.extensions["worker"] = worker
    add_observation(app, metrics)
    add_auth(app, settings)
    clock = Clock()
    add_routes(app, settings, engine, studio, predictor, store, annotations, tracker, clock)
    app.register_blueprint(
        make_console(settings, engine, store, metrics, overview, lambda: read_body(settings, clock))
    )
    app.register_blueprint(
        make_report(
            settings, annotations, studio, lambda number: describe(settings, learner, number)
        )
    )
    app.register_blueprint(
        make_tutor(settings, learner, studio, lambda: read_body(settings, clock))
    )
    add_errors(app)
    if given is None:
        engine.start()
        worker.start()
    return app
