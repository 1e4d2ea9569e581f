"""Read a request's body within its limits."""

from __future__ import annotations

from flask import request

from backend.errors import PayloadTooLarge
from backend.settings import Settings


class BodyReader:
    """Read bodies of at most ``MAX_BODY_MB``; the server has them already, on disk if large."""

    def __init__(self, settings: Settings) -> None:
        self._max_mb = settings.max_body_mb

    def read(self, max_bytes: int | None = None) -> bytes:
        """Read the body of the current request.

        Args:
            max_bytes: for a route that expects little; None for ``MAX_BODY_MB``.

        Raises:
            PayloadTooLarge: the body is larger than a limit.
        """
        if max_bytes is None:
            return _read(
                self._max_mb << 20, f"The request is larger than MAX_BODY_MB ({self._max_mb})."
            )
        return _read(max_bytes, f"Expected at most {max_bytes} bytes, but got more.")


def _read(limit: int, refusal: str) -> bytes:
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(refusal)
    body: bytes = request.stream.read(limit + 1)
    if len(body) > limit:
        raise PayloadTooLarge(refusal)
    return body
