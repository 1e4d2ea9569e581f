"""The routes for those who watch and steer: the page, its JSON, metrics, and jobs."""

from __future__ import annotations

import ipaddress
import json
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, render_template, request, url_for

from backend.errors import BackendError, BadRequest, CrossSite, PayloadTooLarge
from backend.inference.engine import Engine
from backend.jobs.job_store import Job, Store
from backend.label_studio.requests import parse_job, parse_project
from backend.settings import Settings
from backend.web.metrics import CONTENT_TYPE, Metrics
from backend.web.pages.status import Overview

#: A page posts some numbers.
_MAX_BODY = 1 << 16

FORM = "application/x-www-form-urlencoded"

#: A job's number in a route, as far as a database counts.
_JOB = "<int(max=2147483647):job>"

#: Failures of a job that ``/jobs/<id>`` names.
_FAILURES = 100

#: Nothing but what the page brings along, and what it asks of this server.
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


NO_KEY = (
    "To prelabel a project this backend writes to Label Studio: set LABEL_STUDIO_URL and "
    "LABEL_STUDIO_API_KEY."
)


def make_console(
    settings: Settings,
    engine: Engine,
    store: Store,
    metrics: Metrics,
    overview: Overview,
    read_body: Callable[[], bytes],
) -> Blueprint:
    """The routes as a blueprint; `read_body` is how a request's body is read, within its limits.

    None of them waits for the model. What changes something, here and on all other routes, is
    refused where a browser says that another site's page has sent it: with basic auth, a browser
    adds the password by itself; without, it may reach what that site cannot.
    """
    console = Blueprint("console", __name__)
    is_locked = settings.basic_auth_user is not None
    is_local = _is_number_or_localhost(settings.host, loopback=True)
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
        failures = store.failures(job, _FAILURES)
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


def check_same_site(any_name: bool) -> None:
    """Refuse a request that a browser has sent for a page of another site.

    Browsers say where a request comes from, and pages cannot make them lie: ``Sec-Fetch-Site``
    where the connection is trusted (https, localhost), ``Origin`` with every POST. The first is
    right behind a reverse proxy too, which may rename the host. Other programs send neither, and
    no password by themselves.

    Args:
        any_name: whether this backend may have any name. Where it listens on its own machine only
            and has no password, a site could point a name of its own at that machine, and its
            page would be of the same site; over https it could not, for want of a certificate.

    Raises:
        CrossSite: it is one.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        same = site in ("same-origin", "none")
    else:
        same = origin is None or origin in (f"http://{request.host}", f"https://{request.host}")
    if not same:
        raise CrossSite(
            "A page of another site has sent this request. Open this backend's own page; behind a "
            "reverse proxy, let it pass the Host header on."
        )
    if any_name or site is not None or origin is None or origin.startswith("https:"):
        return
    if not _is_number_or_localhost(urlsplit(origin).hostname or ""):
        raise CrossSite(
            f"This backend has no password, and {request.host} may be a name that another site has "
            "pointed at it. Open its page as http://localhost with its port, or set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS."
        )


def _is_number_or_localhost(host: str, loopback: bool = False) -> bool:
    """Whether nobody elsewhere says what a host is; that it is this machine, with `loopback`.

    >>> [_is_number_or_localhost(host) for host in ("localhost", "10.0.0.7", "::1", "a.example")]
    [True, True, True, False]
    >>> _is_number_or_localhost("0.0.0.0", loopback=True)
    False
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or not loopback


def duration(seconds: float | None) -> str:
    """Seconds for people.

    >>> duration(0.04), duration(7.6), duration(100), duration(7300), duration(200000)
    ('40 ms', '8 s', '2 min', '2 h', '2 d')
    >>> duration(None)
    '–'
    """
    if seconds is None:
        return "–"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def ago(at: float) -> str:
    """A time, seen from now."""
    return f"{duration(max(0.0, time.time() - at))} ago"


def count(number: float) -> str:
    """A number of things, with thin spaces between the thousands.

    >>> count(1234567).split("\N{NARROW NO-BREAK SPACE}"), count(12)
    (['1', '234', '567'], '12')
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(count: float) -> str:
    """Bytes for people.

    >>> size(0), size(3 << 20), size(80 << 30)
    ('0 MB', '3 MB', '80.0 GB')
    """
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MB"


def _short(body: bytes) -> bytes:
    if len(body) > _MAX_BODY:
        raise PayloadTooLarge(f"Expected at most {_MAX_BODY} bytes, but got more.")
    return body


def is_for_people() -> bool:
    """Whether a browser asks; Label Studio and other programs take any kind of answer."""
    return "text/html" in request.headers.get("Accept", "")


def html_page(template: str, **values: Any) -> Response:
    """A page of ours, with nothing on it that comes from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    response = Response(render_template(template, nonce=nonce, **values), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def json_answer(value: Any) -> Response:
    """A value as JSON, as short as it can be."""
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")
