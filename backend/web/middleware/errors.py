"""Turn errors into HTTP responses; no traceback leaves the process."""

from __future__ import annotations

import logging
import re

from flask import Flask, Response, g, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from backend.database.causes import cause_of
from backend.database.database import error_message
from backend.errors import BackendError, Busy, DatabaseAway, TooManyGuesses, Unauthorized
from backend.web.middleware.responses import json_response

log = logging.getLogger(__name__)

#: Longest reason phrase. Label Studio keeps nothing of an error but this phrase.
_REASON_LENGTH = 300


def add_error_handlers(app: Flask) -> None:
    """Answer each error with its HTTP status and ``{"error": sentence}``."""
    app.register_error_handler(BackendError, _answer_backend_error)
    app.register_error_handler(OperationalError, _answer_database_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_unexpected_error)


def _answer_backend_error(error: BackendError) -> Response:
    g.error = error
    response = json_response({"error": str(error)})
    response.status = f"{error.http_status} {reason_phrase(error)}"
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Basic realm="clearclip"'
    if isinstance(error, Busy | DatabaseAway):
        response.headers["Retry-After"] = "5"
    if isinstance(error, TooManyGuesses):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _answer_database_error(error: OperationalError) -> Response:
    """Answer why the database could not be used, so that nobody has to look in a traceback."""
    log.warning("The database could not be used: %s", error_message(error))
    return _answer_backend_error(DatabaseAway(f"{cause_of(error)}: try again once that is over."))


def _answer_http_error(error: HTTPException) -> Response:
    """Answer an error of the router, such as a path that no route has."""
    sentence = f"{error.name}: {request.method} {request.path}"
    response = json_response({"error": sentence}, error.code or 500)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _answer_unexpected_error(error: Exception) -> Response:
    g.error = error
    return json_response(
        {"error": f"Unexpected {type(error).__name__}: see the backend's log."}, 500
    )


def reason_phrase(error: BackendError | str) -> str:
    """Return an error's message as an HTTP reason phrase: one line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(error)).encode("ascii", "replace").decode()
    return re.sub(r"[^ -~]", "?", line)[:_REASON_LENGTH]
