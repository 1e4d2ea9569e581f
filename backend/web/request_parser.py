"""Read requests as waitress does, and bound what a body in chunks costs beside its bytes."""

from __future__ import annotations

from typing import Any, Final

from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.rfc7230 import HEADER_FIELD_RE
from waitress.utilities import BadRequest

#: Bytes of a request's head, of the line before a chunk, and of the trailer after the last one.
MAX_HEAD: Final = 1 << 16

#: Bytes that chunks may need beside those of the body: so many, and one for each of the body's.
_MAX_OVERHEAD: Final = 1 << 20


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """Collect a request that arrives in parts."""

    error: Any

    def received(self, data: bytes) -> int:
        """Take bytes of the connection.

        Returns:
            The number of bytes that belong to this request.
        """
        consumed = int(super().received(data))
        if isinstance(self.body_rcv, ChunkedReceiver) and self.error is None:
            problem = self._problem(self.body_rcv)
            if problem:
                self.error, self.completed = BadRequest(problem), True
        return consumed

    def _problem(self, receiver: ChunkedReceiver) -> str:
        """Tell what is wrong with the chunks; empty where nothing is."""
        trailer = receiver.trailer
        if len(receiver.control_line) > MAX_HEAD or len(trailer) > MAX_HEAD:
            return "The line before a chunk, or the trailer, is too long."
        body = len(receiver)
        if self.body_bytes_received - body > _MAX_OVERHEAD + body:
            return "The chunks are too small."
        lines = [line for line in trailer.split(b"\r\n") if line]
        if self.completed and not all(HEADER_FIELD_RE.match(line) for line in lines):
            return "The trailer is broken."
        return ""
