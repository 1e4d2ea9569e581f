"""Log and measure each request once, under its request id."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import ExitStack

from flask import Flask, Response, g, request

from backend.errors import BackendError
from backend.telemetry.logs import about
from backend.web.metrics import Metrics

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
        g.trace.enter_context(about(request=g.id))

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.perf_counter() - g.start
        route = str(request.url_rule) if request.url_rule else "other"
        metrics.request(route, request.method, response.status_code, seconds)
        _log_request(route, response.status_code, seconds)
        response.headers["X-Request-ID"] = g.id
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        g.trace.close()


def _log_request(route: str, status: int, seconds: float) -> None:
    """Log a request that has been answered, without its query, which may hold a token."""
    extra = {"facts": {"ms": round(1000 * seconds)}}
    line = (request.method, request.path, status)
    if isinstance(g.error, BackendError):
        log.warning("%s %s: %d, %s", *line, g.error, extra=extra)
    elif g.error is not None:
        log.error("%s %s: %d", *line, exc_info=g.error, extra=extra)
    elif status < 400 and route in _POLLED_ROUTES and request.method == "GET":
        log.debug("%s %s: %d", *line, extra=extra)
    else:
        log.info("%s %s: %d", *line, extra=extra)
