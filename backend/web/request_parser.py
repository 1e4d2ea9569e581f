"""Read requests as waitress does, but refuse heads of two meanings, and bound bodies in chunks."""

from __future__ import annotations

from typing import Any, Final

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.rfc7230 import HEADER_FIELD_RE
from waitress.utilities import BadRequest, RequestEntityTooLarge

#: Bytes of a request's head, of the line before a chunk, and of the trailer after the last one.
MAX_HEAD: Final = 1 << 16

#: Bytes that chunks may need beside those of the body: so many, and one for each of the body's.
_MAX_OVERHEAD: Final = 1 << 20


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """Collect a request that arrives in parts."""

    error: Any

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head of a request.

        Two lengths or two hosts are refused: a proxy before this server may believe the other one
        (RFC 9112, sections 3.2 and 6.1).

        Raises:
            ParsingError: the head is broken.
        """
        super().parse_header(header_plus)
        headers = self.headers
        # Of HTTP/1.1, waitress takes Transfer-Encoding away; of HTTP/1.0, it does not read it.
        if "TRANSFER_ENCODING" in headers or (self.chunked and "CONTENT_LENGTH" in headers):
            raise ParsingError("The length of the body has two meanings.")
        if "," in headers.get("HOST", ""):  # waitress joins headers of one name
            raise ParsingError("There is more than one host.")

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
            elif len(self.body_rcv) + self.body_rcv.chunk_remainder > self._max_body:
                self.error, self.completed = RequestEntityTooLarge("The body is too large."), True
        return consumed

    @property
    def _max_body(self) -> int:
        return int(self.adj.max_request_body_size)

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
