"""Read a request's body within its limits."""

from __future__ import annotations

import logging

from flask import request
from werkzeug.exceptions import ClientDisconnected

from backend.errors import BadRequest, PayloadTooLarge, RequestTooSlow
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings

log = logging.getLogger(__name__)


class BodyReader:
    """Read bodies of at most ``MAX_BODY_MB`` within ``REQUEST_TIMEOUT_S``."""

    def __init__(self, settings: Settings) -> None:
        self._max_mb = settings.max_body_mb
        self._timeout_s = settings.request_timeout_s
        self._clock = Clock()

    def read(self, max_bytes: int | None = None) -> bytes:
        """Read the body of the current request.

        A body whose declared length is too large is refused before it is read.

        Args:
            max_bytes: a smaller limit for a route that expects little.

        Raises:
            PayloadTooLarge: the body is larger than a limit.
            RequestTooSlow: the body did not arrive in time.
            BadRequest: its chunks are broken, or it ends too early.
        """
        limit = self._max_mb << 20
        if (request.content_length or 0) > limit:
            raise self._too_large()
        # A chunked request declares no length: one byte more than allowed shows that it is longer.
        body = self._read_in_time(limit + 1)
        if len(body) > limit:
            raise self._too_large()
        if max_bytes is not None and len(body) > max_bytes:
            raise PayloadTooLarge(f"Expected at most {max_bytes} bytes, but got more.")
        return body

    def _read_in_time(self, size: int) -> bytes:
        body: bytes | None = None
        with TimeLimit(self._timeout_s, self._clock) as time_limit:
            if connection := request.environ.get("gunicorn.socket"):
                time_limit.hold(connection)
            try:
                body = request.stream.read(size)
            except ClientDisconnected:
                body = b""
            except Exception:  # the server's own, such as gunicorn's for the size of a chunk
                log.debug("The body cannot be read", exc_info=True)
        if time_limit.is_over:
            raise RequestTooSlow(
                f"The request took longer than REQUEST_TIMEOUT_S ({self._timeout_s:g})."
            )
        if body is None:
            raise BadRequest("The body cannot be read: its chunks are broken, or it ends early.")
        return body

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request is larger than MAX_BODY_MB ({self._max_mb}).")
