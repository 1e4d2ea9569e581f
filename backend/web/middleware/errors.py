"""Responses that several routes share, and those of errors: no traceback leaves the process."""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from flask import Flask, Response, g, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from backend.database.database import advise, error_message
from backend.errors import (
    BackendError,
    Busy,
    DatabaseAway,
    StudioBusy,
    TooManyGuesses,
    Unauthorized,
)
from backend.label_studio.connection import page_notice

log = logging.getLogger(__name__)


def describe_health(model: str, state: str) -> dict[str, Any]:
    """Return the answer to ``/health``."""
    return {"status": "UP", "model": model, "state": state}


#: Longest reason phrase. Label Studio keeps nothing of an error but this phrase.
_REASON_LENGTH = 300


#: When to ask again where something is busy, in seconds.
_RETRY_AFTER_S = "5"

#: Makes the response of an error from its sentence and its HTTP status.
Respond = Callable[[str, int], Response]


def add_error_handlers(app: Flask, respond: Respond) -> None:
    """Answer each error with its HTTP status and one sentence."""
    app.register_error_handler(BackendError, partial(_answer_backend_error, respond))
    app.register_error_handler(OperationalError, partial(_answer_database_error, respond))
    app.register_error_handler(HTTPException, partial(_answer_http_error, respond))
    app.register_error_handler(Exception, partial(_answer_unexpected_error, respond))
    app.after_request(_mark_partial_answer)


def _answer_backend_error(respond: Respond, error: BackendError) -> Response:
    g.error = error
    response = respond(str(error), error.http_status)
    response.status = f"{error.http_status} {reason_phrase(error)}"
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Basic realm="clearclip"'
    if isinstance(error, Busy | DatabaseAway | StudioBusy):
        response.headers["Retry-After"] = _RETRY_AFTER_S
    if isinstance(error, TooManyGuesses):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _mark_partial_answer(response: Response) -> Response:
    """Give an answer to a program HTTP 503 where it lacks what Label Studio has not told in time.

    A page says so itself, and asks again.
    """
    is_read = request.method == "GET" and response.status_code == 200 and response.is_json
    if is_read and page_notice():
        response.status_code = 503
        response.headers["Retry-After"] = _RETRY_AFTER_S
    return response


def _answer_database_error(respond: Respond, error: OperationalError) -> Response:
    """Answer why the database could not be used, so that nobody has to look in a traceback."""
    log.warning("The database could not be used: %s", error_message(error))
    away = DatabaseAway(advise(error, "try again"))
    return _answer_backend_error(respond, away)


def _answer_http_error(respond: Respond, error: HTTPException) -> Response:
    """Answer an error of the router, such as a path that no route has."""
    sentence = f"{error.name}: {request.method} {request.path}"
    response = respond(sentence, error.code or 500)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _answer_unexpected_error(respond: Respond, error: Exception) -> Response:
    g.error = error
    return respond(f"Unexpected {type(error).__name__}: see the backend's log.", 500)


def reason_phrase(error: BackendError | str) -> str:
    """Return an error's message as an HTTP reason phrase: one line of printable ASCII."""
    line = re.sub(r"\s+", " ", str(error)).encode("ascii", "replace").decode()
    return re.sub(r"[^ -~]", "?", line)[:_REASON_LENGTH]


def json_response(value: Any, status: int = 200, location: str | None = None) -> Response:
    """Make a response of JSON without white space; `location` is the address of what was made.

    msgspec takes a fortieth of the time of ``flask.jsonify`` on hundreds of thousands of numbers.
    """
    response = Response(msgspec.json.encode(value), status=status, mimetype="application/json")
    if location is not None:
        response.headers["Location"] = location
    return response


def see_other(url: str) -> Response:
    """Send a browser that has posted a form to a page, which it asks for with GET (303)."""
    return Response(status=303, headers={"Location": url})
