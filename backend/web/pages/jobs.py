"""Serve jobs: start, list, show and steer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError
from backend.jobs.job_store import Job, JobStore
from backend.prediction.failures import FailureStore
from backend.settings import Settings
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import parse_job, parse_project
from backend.web.pages.html import answer_action, answer_form, is_for_people
from backend.web.pages.projects import ProjectCheck, require_token
from backend.web.pages.serializers import StatusSerializer

#: The start of the routes of one job; its number is one that a database can hold.
_JOB = "/jobs/<int(max=2147483647):job>"

#: How many failures of a job are named.
_FAILURES_SHOWN = 100

#: What a token is needed for, as `token_sentence` takes it.
USE: Final = "To prelabel a project this backend writes to Label Studio"


def describe_job(store: JobStore, serializer: StatusSerializer, job: Job) -> dict[str, Any]:
    """Return a job as JSON with its newest failures, or with the tasks that a withdrawal keeps."""
    failures = FailureStore(store.database).of_job(job.id, _FAILURES_SHOWN)
    failed = [serializer.failing_task(failure) for failure in failures]
    shown = {**serializer.job(job), "failures": failed}
    if job.kind == "withdrawal":
        shown["kept"] = [*(store.task_ids(job.id) or ())]
    return shown


@dataclass(frozen=True, eq=False)
class JobRoutes:
    """Answer ``/jobs`` and the routes below it."""

    settings: Settings
    store: JobStore
    serializer: StatusSerializer
    projects: ProjectCheck
    body: BodyReader
    dashboard: Callable[[BackendError], Response]

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("jobs", __name__)
        routes.add_url_rule("/jobs", "list", self.list_jobs, methods=["GET"])
        routes.add_url_rule("/jobs", "start", self.start, methods=["POST"])
        routes.add_url_rule(_JOB, "show", self.show, methods=["GET"])
        routes.add_url_rule(_JOB, "cancel", self.cancel, methods=["DELETE"])
        # The text of a route is the label of a metric, and so the name `turn` stays.
        actions = "<any(pause, resume, cancel, withdraw):turn>"
        routes.add_url_rule(f"{_JOB}/{actions}", "act", self.act, methods=["POST"])
        return routes

    def list_jobs(self) -> Response:
        """Answer with the newest jobs, of one project or of all."""
        jobs = self.store.list_jobs(parse_project(request.args))
        return json_response({"jobs": [self.serializer.job(job) for job in jobs]})

    def start(self) -> Response:
        """Start a job; where the project has an equal one that is not over, answer with that."""
        return answer_form(
            self.body,
            self._start,
            lambda job: see_other(url_for("project.page", project=job.project, job=job.id)),
            lambda job: json_response(
                self.serializer.job(job), 201, url_for("jobs.show", job=job.id)
            ),
            lambda error, _: self.dashboard(error),
        )

    def show(self, job: int) -> Response:
        """Answer a program with a job and its newest failures; a browser goes to its project."""
        shown = describe_job(self.store, self.serializer, self.store.get_job(job))
        if is_for_people():
            return see_other(url_for("project.page", project=shown["project"], job=job))
        return json_response(shown)

    def cancel(self, job: int) -> Response:
        """Cancel a job for a program."""
        return json_response(self.serializer.job(self.store.cancel(job)))

    def act(self, job: int, turn: str) -> Response:
        """Pause, resume, cancel or withdraw a job; `turn` says which."""
        actions = {
            "pause": self.store.pause,
            "resume": self.store.resume,
            "cancel": self.store.cancel,
            "withdraw": self._withdraw,
        }
        return answer_action(
            lambda _: actions[turn](job),
            lambda acted: see_other(url_for("dashboard.page", did=turn, job=acted.id)),
            lambda acted: json_response(self.serializer.job(acted)),
            self.dashboard,
        )

    def _start(self, body: bytes, is_form: bool) -> Job:
        asked = parse_job(body, is_form)
        require_token(self.settings, USE)
        self.projects.check(asked.project)
        return self.store.start_job(
            asked.project, only=asked.only, view=asked.view, limit=asked.limit
        )

    def _withdraw(self, job: int) -> Job:
        require_token(self.settings, USE)
        self.projects.check(self.store.withdrawable(job).project)
        return self.store.start_withdrawal(job)
