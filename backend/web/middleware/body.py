"""Read a request's body within its limits."""

from __future__ import annotations

import logging
import tempfile
from typing import BinaryIO, Final, cast

from flask import request
from werkzeug.exceptions import ClientDisconnected

from backend.errors import BadRequest, PayloadTooLarge, RequestTooSlow
from backend.network.time_limit import Clock, TimeLimit
from backend.settings import Settings

log = logging.getLogger(__name__)

#: Bytes of a body that are kept in memory; the rest is in a file without a name.
_IN_MEMORY: Final = 1 << 20
#: Bytes that are read at a time.
_CHUNK: Final = 1 << 16


class BodyReader:
    """Read bodies of at most ``MAX_BODY_MB`` within ``REQUEST_TIMEOUT_S``."""

    def __init__(self, settings: Settings) -> None:
        self._max_mb = settings.max_body_mb
        self._timeout_s = settings.request_timeout_s
        self._clock = Clock()

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
        if (request.content_length or 0) > self._max_mb << 20:
            raise self._too_large()
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
        try:
            self._read_in_time(file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _read_in_time(self, file: BinaryIO) -> None:
        is_whole = False
        with TimeLimit(self._timeout_s, self._clock) as time_limit:
            if connection := request.environ.get("gunicorn.socket"):
                time_limit.hold(connection)
            try:
                self._copy(file)
                is_whole = True
            except PayloadTooLarge:
                raise
            except ClientDisconnected:
                is_whole = True  # what has arrived is parsed, and found to be no JSON
            except Exception:  # the server's own, such as gunicorn's for the size of a chunk
                log.debug("The body cannot be read", exc_info=True)
        if time_limit.is_over:
            raise RequestTooSlow(
                f"The request took longer than REQUEST_TIMEOUT_S ({self._timeout_s:g})."
            )
        if not is_whole:
            raise BadRequest("The body cannot be read: its chunks are broken, or it ends early.")

    def _copy(self, file: BinaryIO) -> None:
        # A chunked request declares no length: its bytes are counted.
        while chunk := request.stream.read(_CHUNK):
            file.write(chunk)
            if file.tell() > self._max_mb << 20:
                raise self._too_large()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request is larger than MAX_BODY_MB ({self._max_mb}).")
