"""Log and measure each request once, under its request id."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import ExitStack

from flask import Flask, Response, g, request

from backend.errors import BackendError
from backend.telemetry.tracing import about
from backend.web.metrics import Metrics

log = logging.getLogger(__name__)


#: What a request may be called by whoever sends it.
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


#: Routes that are asked again and again by who watches: said in the log only where they fail.
_WATCHED = {"/", "/health", "/ready", "/status", "/metrics", "/jobs"}


def add_observation(app: Flask, metrics: Metrics) -> None:
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
