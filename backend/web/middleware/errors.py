"""Turn errors into HTTP answers; no traceback leaves the process."""

from __future__ import annotations

import re

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from backend.errors import BackendError, Busy, Unauthorized
from backend.web.middleware.responses import json_response

#: Label Studio keeps nothing of an error but its reason phrase; more than this is cut off.
_REASON_LENGTH = 300


def add_errors(app: Flask) -> None:
    @app.errorhandler(BackendError)
    def backend_error(error: BackendError) -> Response:
        g.error = error
        response = json_response({"error": str(error)})
        response.status = f"{error.http_status} {_reason(error)}"
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = 'Basic realm="clearclip"'
        if isinstance(error, Busy):
            response.headers["Retry-After"] = "5"
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = json_response({"error": f"{error.name}: {request.method} {request.path}"})
        response.status_code = error.code or 500
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        g.error = error
        response = json_response(
            {"error": f"Unexpected {type(error).__name__}: see the backend's log."}
        )
        response.status_code = 500
        return response


def _reason(error: BackendError) -> str:
    """A message as an HTTP reason phrase: one line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(error)).encode("ascii", "replace").decode()
    return re.sub(r"[^ -~]", "?", line)[:_REASON_LENGTH]
