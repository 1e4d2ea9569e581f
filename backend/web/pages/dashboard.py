"""Serve the dashboard, what monitoring asks for, and jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from flask import Blueprint, Response, request, url_for
from msgspec.structs import asdict

from backend.errors import BackendError
from backend.jobs.job_store import Job, JobStore
from backend.jobs.set_up import SetUpDone, SetUpRequest
from backend.label_studio.client import required_client
from backend.label_studio.requests import read_project_id
from backend.label_studio.set_up import Offer, own_address
from backend.projects.failures import FailureStore
from backend.services import Services
from backend.views.jobs import (
    JobDetail,
    JobFold,
    acted,
    first_step,
    served_projects,
)
from backend.web.metrics import CONTENT_TYPE, Metrics
from backend.web.middleware.errors import describe_health, json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import JobRequest, ProjectCheck, no_key, parse_fields
from backend.web.pages.html import answer_action, answer_form, html_page, is_for_people
from backend.web.pages.status import StatusReport, StatusSerializer

#: The start of the routes of one job; its number is one that a database can hold.
_JOB = "/jobs/<int(max=2147483647):job>"

_FAILURES_SHOWN = 100  # how many failures of a job are named

#: What a token is needed for, as `token_sentence` takes it.
USE: Final = "To prelabel a project this backend writes to Label Studio"


def describe_job(store: JobStore, serializer: StatusSerializer, job: Job) -> JobDetail:
    """Return a job with its newest failures, or with the tasks that a withdrawal keeps."""
    failures = FailureStore(store.database).of_job(job.id, _FAILURES_SHOWN)
    kept = tuple(store.task_ids(job.id) or ()) if job.kind == "withdrawal" else msgspec.UNSET
    return JobDetail(
        **asdict(serializer.job(job)),
        failures=tuple(serializer.failing_task(failure) for failure in failures),
        kept=kept,
    )


@dataclass(frozen=True)
class _Choice:
    """A form to set a project up, and the labeling config that it may choose."""

    asked: SetUpRequest
    offer: Offer


@dataclass(frozen=True, eq=False)
class JobRoutes:
    """Answer ``/jobs`` and the routes below it."""

    services: Services
    serializer: StatusSerializer
    projects: ProjectCheck
    body: BodyReader
    dashboard: Callable[[BackendError], Response]

    def blueprint(self) -> Blueprint:
        routes = Blueprint("jobs", __name__)
        routes.add_url_rule("/jobs", "list", self.list_jobs, methods=["GET"])
        routes.add_url_rule("/jobs", "start", self.start, methods=["POST"])
        routes.add_url_rule("/set-up", "set_up", self.set_up, methods=["POST"])
        routes.add_url_rule(_JOB, "show", self.show, methods=["GET"])
        # The text of a route is the label of a metric, and so the name `turn` stays.
        actions = "<any(pause, resume, cancel, withdraw):turn>"
        routes.add_url_rule(f"{_JOB}/{actions}", "act", self.act, methods=["POST"])
        return routes

    def list_jobs(self) -> Response:
        """Answer with the newest jobs, of one project or of all."""
        jobs = self.services.store.list_jobs(read_project_id(request.args.get("project")))
        return json_response({"jobs": [self.serializer.job(job) for job in jobs]})

    def start(self) -> Response:
        """Start a job; where the project has an equal one that is not over, answer with that."""
        return answer_form(
            self.body,
            self._start,
            self._show_start,
            self._describe_start,
            lambda error, _: self.dashboard(error),
        )

    def _show_start(self, job: Job) -> Response:
        return see_other(url_for("project.page", project=job.project, job=job.id))

    def _describe_start(self, job: Job) -> Response:
        return json_response(self.serializer.job(job), 201, url_for("jobs.show", job=job.id))

    def set_up(self) -> Response:
        """Connect this backend to a project, have its words checked, and start a job."""
        return answer_form(
            self.body,
            self._set_up,
            self._show_set_up,
            self._describe_set_up,
            lambda error, _: self.dashboard(error),
        )

    def show(self, job: int) -> Response:
        """Answer a program with a job and its newest failures; a browser goes to its project."""
        shown = describe_job(self.services.store, self.serializer, self.services.store.get_job(job))
        if is_for_people():
            return see_other(url_for("project.page", project=shown.project, job=job))
        return json_response(shown)

    def act(self, job: int, turn: str) -> Response:
        """Pause, resume, cancel or withdraw a job; `turn` says which."""
        actions = {
            "pause": self.services.store.pause,
            "resume": self._resume,
            "cancel": self.services.store.cancel,
            "withdraw": self._withdraw,
        }
        return answer_action(
            lambda _: actions[turn](job),
            lambda acted: see_other(url_for("dashboard.page", did=turn, job=acted.id)),
            lambda acted: json_response(self.serializer.job(acted)),
            self.dashboard,
        )

    def _resume(self, job: int) -> Job:
        """Let a job go on; in a project that is gone it would only fail again."""
        self.projects.check(self.services.store.get_job(job).project)
        return self.services.store.resume(job)

    def _start(self, body: bytes, is_form: bool) -> Job:
        asked = parse_fields(body, is_form, JobRequest)
        required_client(self.services.page_client, USE)
        self.projects.check(asked.project)
        return self.services.store.start_job(
            asked.project, only=asked.only, view=asked.view, limit=asked.limit
        )

    def _set_up(self, body: bytes, is_form: bool) -> SetUpDone | _Choice:
        """Set a project up; or return the labeling config that may be chosen."""
        asked = parse_fields(body, is_form, SetUpRequest)
        if is_form and not asked.tools:
            asked = msgspec.structs.replace(asked, tools="offer")
        client = required_client(self.services.page_client, USE)
        self.projects.check(asked.project)
        # A program checks the set-up itself, from where it is.
        done = self.services.set_ups.set_up(client, asked, checks=is_form)
        return _Choice(asked, done) if isinstance(done, Offer) else done

    def _show_set_up(self, done: SetUpDone | _Choice) -> Response:
        if isinstance(done, _Choice):
            return html_page("set_up.html", asked=done.asked, offer=done.offer)
        return see_other(url_for("project.page", project=done.job.project, job=done.job.id))

    def _describe_set_up(self, done: SetUpDone | _Choice) -> Response:
        if isinstance(done, _Choice):
            return json_response({"offer": done.offer.diff})
        shown = self.serializer.job(done.job)
        return json_response({**msgspec.to_builtins(shown), "said": done.notices}, 201)

    def _withdraw(self, job: int) -> Job:
        required_client(self.services.page_client, USE)
        self.projects.check(self.services.store.get_job(job).project)
        return self.services.store.start_withdrawal(job)


@dataclass(frozen=True, eq=False)
class DashboardRoutes:
    """Answer ``/``, ``/ready``, ``/status`` and ``/metrics``; none of them waits for the model."""

    services: Services
    metrics: Metrics
    status: StatusReport

    def blueprint(self) -> Blueprint:
        routes = Blueprint("dashboard", __name__)
        routes.add_url_rule("/", "page", self.page, methods=["GET"])
        routes.add_url_rule("/ready", "ready", self.ready, methods=["GET"])
        routes.add_url_rule("/status", "status", self.read_status, methods=["GET"])
        routes.add_url_rule("/metrics", "metrics", self.scrape, methods=["GET"])
        return routes

    def page(self) -> Response:
        """Answer a browser with the dashboard, and a program as ``/health`` does."""
        if is_for_people():
            return self.render()
        return json_response(
            describe_health(self.services.settings.model, self.services.engine.status.state)
        )

    def ready(self) -> Response:
        """Answer 200 once the model is loaded, and 503 otherwise; not why: strangers may ask."""
        state = self.services.engine.status.state
        return json_response({"state": state}, 200 if state == "ready" else 503)

    def read_status(self) -> Response:
        return json_response(self.status.read())

    def scrape(self) -> Response:
        """Answer with the metrics in Prometheus' text format."""
        return Response(self.metrics.render(), content_type=CONTENT_TYPE)

    def render(self, refusal: BackendError | None = None) -> Response:
        """Render the dashboard; `refusal` says why what a form asked for was not done."""
        now = self.status.read()
        served = {each.project for each in now.served}
        choices = self.services.connection_watch.project_choices()
        others = [each for each in choices if each[0] not in served]
        did, job = request.args.get("did", ""), request.args.get("job", "")

        return html_page(
            # The page asks for this part of itself every few seconds.
            template="part.html" if "part" in request.args else "page.html",
            now=now,
            acted=acted(did, job, url_for("jobs.list")),
            served=served_projects(now.served, now.jobs, self.services.scores.first_tasks(served)),
            jobs=JobFold.of(now.jobs),
            others=others,
            first_step=first_step(bool(others)),
            own_address=own_address(self.services.settings),
            no_key=no_key(self.services.page_client, USE),
            refusal=refusal,
        )
