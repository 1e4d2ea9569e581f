"""The routes for those who watch and steer: the page, its JSON, metrics, and jobs."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError, BadRequest, PayloadTooLarge
from backend.inference.engine import Engine
from backend.jobs.job_store import Job, JobStore
from backend.prediction.failures import FailureStore
from backend.settings import Settings
from backend.web.metrics import CONTENT_TYPE, Metrics
from backend.web.middleware.csrf import check_same_site, is_number_or_localhost
from backend.web.middleware.responses import json_answer
from backend.web.pages.forms import parse_job, parse_project
from backend.web.pages.html import ago, count, duration, html_page, is_for_people, size
from backend.web.pages.status import StatusReport

#: A page posts some numbers.
_MAX_BODY = 1 << 16

FORM = "application/x-www-form-urlencoded"

#: A job's number in a route, as far as a database counts.
_JOB = "<int(max=2147483647):job>"

#: Failures of a job that ``/jobs/<id>`` names.
_FAILURES = 100


NO_KEY = (
    "To prelabel a project this backend writes to Label Studio: set LABEL_STUDIO_URL and "
    "LABEL_STUDIO_API_KEY."
)


def make_console(
    settings: Settings,
    engine: Engine,
    store: JobStore,
    metrics: Metrics,
    overview: StatusReport,
    read_body: Callable[[], bytes],
) -> Blueprint:
    """The routes as a blueprint; `read_body` is how a request's body is read, within its limits.

    None of them waits for the model. What changes something, here and on all other routes, is
    refused where a browser says that another site's page has sent it: with basic auth, a browser
    adds the password by itself; without, it may reach what that site cannot.
    """
    console, failures_of = Blueprint("console", __name__), FailureStore(store)
    is_locked = settings.basic_auth_user is not None
    is_local = is_number_or_localhost(settings.host, loopback=True)
    for text in (duration, ago, count, size):
        console.add_app_template_filter(text)
    turns: dict[str, Callable[[int], Job]] = {
        "pause": store.pause,
        "resume": store.resume,
        "cancel": store.cancel,
    }

    @console.before_app_request
    def refuse_other_sites() -> None:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            check_same_site(any_name=is_locked or not is_local)

    @console.route("/", methods=["GET"])
    def page() -> Response:
        if is_for_people():
            return _page()
        return json_answer({"status": "UP", "model": settings.model, "state": engine.status.state})

    @console.route("/ready", methods=["GET"])
    def ready() -> Response:
        status = engine.status
        response = json_answer({"state": status.state, "reason": status.reason})
        response.status_code = 200 if status.state == "ready" else 503
        return response

    @console.route("/status", methods=["GET"])
    def status() -> Response:
        return json_answer(overview.read())

    @console.route("/metrics", methods=["GET"])
    def scrape() -> Response:
        return Response(metrics.render(), content_type=CONTENT_TYPE)

    @console.route("/jobs", methods=["GET"])
    def jobs() -> Response:
        project = parse_project(request.args)
        return json_answer({"jobs": [overview.job(job) for job in store.list_jobs(project)]})

    @console.route("/jobs", methods=["POST"])
    def start() -> Response:
        try:
            asked = parse_job(_short(read_body()), request.mimetype == FORM)
            if settings.label_studio_api_key is None:
                raise BadRequest(NO_KEY)
            job = store.start_job(
                asked.project, only=asked.only, view=asked.view, limit=asked.limit
            )
        except BackendError as error:
            return _refused(error)
        response = _done(job, 201)
        if response.status_code == 201:
            response.headers["Location"] = url_for("console.show", job=job.id)
        return response

    @console.route(f"/jobs/{_JOB}", methods=["GET"])
    def show(job: int) -> Response:
        found = store.get_job(job)
        failures = failures_of.newest(job, _FAILURES)
        failed = [overview.failure(failure, found.project) for failure in failures]
        shown = {**overview.job(found), "failures": failed}
        return html_page("job.html", job=shown) if is_for_people() else json_answer(shown)

    @console.route(f"/jobs/{_JOB}", methods=["DELETE"])
    def delete(job: int) -> Response:
        return _done(store.cancel(job))

    @console.route(f"/jobs/{_JOB}/<any(pause, resume, cancel):turn>", methods=["POST"])
    def turn(job: int, turn: str) -> Response:
        try:
            return _done(turns[turn](job))
        except BackendError as error:
            return _refused(error)

    def _done(job: Job, status: int = 200) -> Response:
        """The job as JSON; a browser goes back to the page."""
        if request.mimetype == FORM:
            return Response(status=303, headers={"Location": url_for("console.page")})
        response = json_answer(overview.job(job))
        response.status_code = status
        return response

    def _refused(error: BackendError) -> Response:
        """A sentence on the page; to others than its forms, the error as JSON."""
        if request.mimetype != FORM:
            raise error
        response = _page(str(error))
        response.status_code = error.http_status
        return response

    def _page(refusal: str = "") -> Response:
        if "part" in request.args:
            return html_page("part.html", now=overview.read())
        return html_page(
            "page.html",
            now=overview.read(),
            can_prelabel=settings.label_studio_api_key is not None,
            no_key=NO_KEY,
            refusal=refusal,
        )

    return console


def _short(body: bytes) -> bytes:
    if len(body) > _MAX_BODY:
        raise PayloadTooLarge(f"Expected at most {_MAX_BODY} bytes, but got more.")
    return body
