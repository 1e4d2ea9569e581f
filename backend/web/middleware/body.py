"""Read a request's body within its limits.

The limit of time is the server's, `backend.web.connections`: it hands a request on when all of it
has arrived, or says why it does not.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from enum import Enum
from typing import BinaryIO, Final, cast

from flask import request
from werkzeug.exceptions import ClientDisconnected

from backend.errors import BadRequest, PayloadTooLarge, RequestTooSlow
from backend.settings import Settings

#: Key of the WSGI environment under which the server says why a body has not arrived.
REFUSED: Final = "clearclip.refused"

#: Bytes of a body that are kept in memory; the rest is in a file without a name.
_IN_MEMORY: Final = 1 << 20
#: Bytes that are read at a time.
_CHUNK: Final = 1 << 16


class Refusal(Enum):
    """Say why a body has not arrived."""

    TOO_LARGE = 1
    TOO_SLOW = 2
    BROKEN = 3


class BodyReader:
    """Read bodies of at most ``MAX_BODY_MB``; the server waits ``REQUEST_TIMEOUT_S`` for them."""

    def __init__(self, settings: Settings) -> None:
        self._max_mb = settings.max_body_mb
        self._timeout_s = settings.request_timeout_s

    def read(self, max_bytes: int) -> bytes:
        """Read the body of the current request for a route that expects little.

        Raises:
            PayloadTooLarge: the body is larger than a limit.
            RequestTooSlow: the body did not arrive in time.
            BadRequest: its chunks are broken, or it ends too early.
        """
        with self.open() as file:
            body = file.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise PayloadTooLarge(f"Expected at most {max_bytes} bytes, but got more.")
        return body

    def open(self) -> BinaryIO:
        """Read the body of the current request into a file, on disk where it is large.

        A body whose declared length is too large is refused before it is read.

        Returns:
            A file at its beginning, which the caller closes.

        Raises:
            PayloadTooLarge: the body is larger than ``MAX_BODY_MB``.
            RequestTooSlow: the body did not arrive in time.
            BadRequest: its chunks are broken, or it ends too early.
        """
        self._check()
        if request.stream.seekable():  # the server's own file
            return cast(BinaryIO, request.stream)
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
        try:
            self._copy(file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self) -> None:
        refusal = request.environ.get(REFUSED)
        if refusal is Refusal.TOO_LARGE or (request.content_length or 0) > self._max_mb << 20:
            raise self._too_large()
        if refusal is Refusal.TOO_SLOW:
            raise RequestTooSlow(
                f"The request took longer than REQUEST_TIMEOUT_S ({self._timeout_s:g})."
            )
        if refusal is Refusal.BROKEN:
            raise BadRequest("The body cannot be read: its chunks are broken, or it ends early.")

    def _copy(self, file: BinaryIO) -> None:
        with suppress(ClientDisconnected):  # what has arrived is parsed, and found to be no JSON
            # A chunked request declares no length: its bytes are counted.
            while chunk := request.stream.read(_CHUNK):
                file.write(chunk)
                if file.tell() > self._max_mb << 20:
                    raise self._too_large()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request is larger than MAX_BODY_MB ({self._max_mb}).")
