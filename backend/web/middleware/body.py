"""Read a request's body within its limits."""

from __future__ import annotations

from flask import request
from werkzeug.exceptions import ClientDisconnected

from backend.errors import PayloadTooLarge, RequestTooSlow
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings


def read_body(settings: Settings, clock: Clock) -> bytes:
    """The request's body; refused before it is read where its length says that it is too large."""
    limit = settings.max_body_mb << 20
    if (request.content_length or 0) <= limit:
        with TimeLimit(settings.request_timeout_s, clock) as time_limit:
            if connection := request.environ.get("gunicorn.socket"):
                time_limit.hold(connection)
            try:
                body: bytes = request.stream.read(limit + 1)  # a chunked request has no length
            except ClientDisconnected:
                body = b""
        if time_limit.is_over:
            raise RequestTooSlow(
                f"The request took longer than REQUEST_TIMEOUT_S ({settings.request_timeout_s:g})."
            )
        if len(body) <= limit:
            return body
    raise PayloadTooLarge(f"The request is larger than MAX_BODY_MB ({settings.max_body_mb}).")
