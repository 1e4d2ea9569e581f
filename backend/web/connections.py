"""Read requests and write answers without a thread, within limits of time and number.

One loop of waitress reads and writes all connections. A thread gets a request only when all of it
has arrived, and is free again when its answer is made. So nobody takes a thread by sending half a
request or by not reading an answer. What is half done is closed after ``REQUEST_TIMEOUT_S``, and
earlier where there are too many connections.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

from backend.network.client_address import client_network
from backend.settings import Settings
from backend.web.dispatcher import Dispatcher
from backend.web.middleware.body import REFUSED, Refusal
from backend.web.middleware.headers import SECURITY_HEADERS
from backend.web.request_parser import MAX_HEAD, RequestParser

#: Most connections: in all, and of one client, which may be a reverse proxy.
MAX_CONNECTIONS: Final = 1024
MAX_CONNECTIONS_OF_CLIENT: Final = 512

#: Time between two looks at what takes too long or too much, in seconds.
_CHECK_INTERVAL_S: Final = 0.5

#: Bodies of the largest size that may be on disk at once.
_MAX_BODIES: Final = 8

#: Bytes of a body or of an answer that are kept in memory.
_IN_MEMORY: Final = 1 << 20
#: Bytes of an answer that a client has to read in a second, or else its time runs out.
_LEAST_BYTES_PER_S: Final = 1 << 16
#: Bytes that are read at a time. More would take the loop long where they are tiny chunks.
_READ_BYTES: Final = 1 << 14
#: Bytes of an answer that wait to be read, in a file where they are many; a thread never waits.
_MAX_UNREAD: Final = 1 << 40

#: The most that the system may hold of a connection and that nobody has read, in bytes; it is 6 MiB
#: on Linux.
_MOST_UNREAD_BYTES: Final = 1 << 23


class _TooSlowError(Error):  # type: ignore[misc]
    code = 408
    reason = "Request Timeout"


def adjustments(settings: Settings) -> Adjustments:
    """Return the options of waitress."""
    return Adjustments(
        ident="",
        server_name=settings.host,
        recv_bytes=_READ_BYTES,
        inbuf_overflow=_IN_MEMORY,
        outbuf_overflow=_IN_MEMORY,
        outbuf_high_watermark=_MAX_UNREAD,
        connection_limit=2 * MAX_CONNECTIONS,  # `Server` closes connections before
        log_socket_errors=False,
        max_request_header_size=MAX_HEAD,
        max_request_body_size=(settings.max_body_mb << 20) + 1,
        clear_untrusted_proxy_headers=False,
    )


class Connection(HTTPChannel):  # type: ignore[misc]
    """A connection: it reads a request, waits for its answer, and writes that.

    Attributes:
        client: address of the client, or its network.
        since: when the connection began to read or to write what it does, by `time.monotonic`.
        request: what arrives; None between two requests.
        requests: what has arrived and is answered.
        is_refused: whether a request was refused before all of it had arrived.
    """

    parser_class = RequestParser
    request: Any
    requests: list[Any]
    close_when_flushed: bool

    def __init__(self, server: Server, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        self.client = client_network(addr[0])
        self.since = time.monotonic()
        self.is_refused = False
        self._is_draining = False
        self._answer_bytes = 0
        self._counted_bytes = 0
        super().__init__(server, sock, addr, adj, map)

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived and its answer is not made."""
        return bool(self.requests)

    @property
    def body_bytes(self) -> int:
        """Bytes of the body that is arriving."""
        request = self.request
        return 0 if request is None else int(request.body_bytes_received)

    def check_client_disconnected(self) -> bool:
        """Tell whether the client has ended the connection; a thread that answers may ask.

        Nothing is read meanwhile: what a client sends behind its request may come before its end.
        """
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:  # it has sent nothing more
            return False
        except (AttributeError, OSError):  # the loop has closed it
            return True

    def handle_read(self) -> None:
        """Read what has arrived."""
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if not data:
            self._end_reading()
            return
        if self._is_draining:
            return
        if self.request is None:
            self.since = time.monotonic()
        self.received(data)

    def readable(self) -> bool:
        """Tell whether the loop is to call `handle_read`."""
        return self._is_draining or bool(super().readable())

    def handle_write(self) -> None:
        """Write what is possible of an answer.

        Where a request was refused, the rest of it is read first and thrown away: a connection
        that is closed with something unread takes the answer with it. waitress would close it at
        once, also where the thread that answers ends while this writes.
        """
        if self.socket is None:  # the same turn of the loop has read that it has ended
            return
        if not self.is_refused:
            super().handle_write()
            return
        self._flush_exception(self._flush_some_if_lockable)
        if self.will_close:
            self.handle_close()
        elif self.close_when_flushed and not self.total_outbufs_len:
            self.close_when_flushed, self._is_draining = False, True
            with suppress(OSError):  # it has ended already
                self.socket.shutdown(socket.SHUT_WR)

    def handle_close(self) -> None:
        """Close the connection; throw away first what is left of a request that was refused.

        The loop calls this as soon as both sides have ended, while some of it is still unread.
        """
        is_draining, self._is_draining = self._is_draining, False  # it may be called twice
        if is_draining and self.socket is not None:
            with suppress(OSError):  # there is no more, or the connection is gone
                for _ in range(_MOST_UNREAD_BYTES // self.adj.recv_bytes):
                    if not self.socket.recv(self.adj.recv_bytes):
                        break
        super().handle_close()

    def handle_error(self) -> None:
        """Log an error of this connection, and close only this one: the loop has the others."""
        self._is_draining = False
        super().handle_error()

    def write_soon(self, data: Any) -> int:
        """Take a part of an answer, in a thread; the loop writes it."""
        self.since = time.monotonic()
        if not self.total_outbufs_len:
            self._answer_bytes = self._counted_bytes = 0
        self._answer_bytes += len(data)
        return int(super().write_soon(data))

    def check_time(self, limit_s: float) -> None:
        """Refuse a request, or close the connection, that takes longer than the limit.

        A file of many gigabytes takes longer: its time begins anew while it is read.
        """
        if self.is_answering or time.monotonic() < self.since + limit_s:
            return
        if self._is_read(limit_s):
            self.since = time.monotonic()
            return
        if self._has_head and not self.total_outbufs_len:
            self._refuse(_TooSlowError("The request did not arrive in time."))
        else:
            self.handle_close()

    def _is_read(self, limit_s: float) -> bool:
        """Return whether enough of an answer was read since the limit was looked at last."""
        read_bytes = self._answer_bytes - self.total_outbufs_len
        newly_read, self._counted_bytes = read_bytes - self._counted_bytes, read_bytes
        return bool(self.total_outbufs_len) and newly_read >= int(limit_s * _LEAST_BYTES_PER_S)

    @property
    def _has_head(self) -> bool:
        return self.request is not None and self.request.headers_finished

    def _end_reading(self) -> None:
        """Answer a body that ends early; close where nothing has arrived, or no whole head."""
        if self._has_head:
            self._refuse(BadRequest("The body ends early."))
        else:
            self.handle_close()

    def _refuse(self, error: Error) -> None:
        """Have the part of a request that has arrived answered by an error."""
        with self.requests_lock:
            request, self.request = self.request, None
            request.error, request.completed = error, True
            self.requests.append(request)
        self.server.add_task(self)


class _RefusedTask(WSGITask):  # type: ignore[misc]
    """Answer a request whose body was refused, by the application, which logs and counts it."""

    def execute(self) -> None:
        request = self.request
        self.set_close_on_finish()
        self.channel.is_refused = True
        if request.body_rcv is None:  # its head is broken: the application cannot have it
            self.complete = True  # there is no `start_response`
            self.response_headers.extend(SECURITY_HEADERS.items())
            ErrorTask.execute(self)
            return
        self.get_environment()[REFUSED] = _refusal(request.error)
        super().execute()


def _refusal(error: Error) -> Refusal:
    if isinstance(error, RequestEntityTooLarge):
        return Refusal.TOO_LARGE
    return Refusal.TOO_SLOW if isinstance(error, _TooSlowError) else Refusal.BROKEN


Connection.error_task_class = _RefusedTask


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Accept connections, and close those that take too long or are too many.

    Args:
        app: the WSGI application.
        settings: the limits.
        sock: listens already.
        sockets: what the loop watches, by file descriptor.
        dispatcher: has the threads.

    Attributes:
        has_acceptor: whether another process accepts connections; this one accepts none meanwhile.
    """

    channel_class = Connection

    def __init__(
        self,
        app: Any,
        settings: Settings,
        sock: Any,
        sockets: dict[int, Any],
        dispatcher: Dispatcher,
    ) -> None:
        self.has_acceptor = False
        self._next_check = 0.0
        self._limit_s = settings.request_timeout_s
        self._max_body_bytes = _MAX_BODIES * (settings.max_body_mb << 20)
        address = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            app,
            sockets,
            _sock=sock,
            dispatcher=dispatcher,
            adj=adjustments(settings),
            sockinfo=address,
            bind_socket=False,
        )

    @property
    def is_busy(self) -> bool:
        """Whether a request has no answer yet, or an answer is not written yet."""
        return any(
            one.is_answering or one.total_outbufs_len for one in self.active_channels.values()
        )

    def readable(self) -> bool:
        """Tell whether the loop is to accept connections."""
        return bool(super().readable()) and not self.has_acceptor

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that another process has accepted."""
        try:
            if len(self._map) < self.adj.connection_limit:
                self.set_socket_options(connection)
                client = connection.getpeername()
                self.channel_class(self, connection, client, self.adj, map=self._map)
                return
        except OSError:  # it has ended already
            pass
        connection.close()

    def stop_accepting(self) -> None:
        """Accept no more connections; the others go on."""
        self.accepting = False
        self.del_channel()
        self.socket.close()

    def maintenance(self, now: float) -> None:
        """Do nothing: waitress calls it while it looks what to wait for.

        The number of a file that is closed then may be a new connection's when its turn comes.
        """

    def keep_limits(self) -> None:
        """Close what takes too long or too much; called between two turns of the loop."""
        if len(self.active_channels) > MAX_CONNECTIONS_OF_CLIENT:
            self._bound_connections()
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_INTERVAL_S
        for connection in list(self.active_channels.values()):
            connection.check_time(self._limit_s)
        while sum(one.body_bytes for one in self.active_channels.values()) > self._max_body_bytes:
            next(self._oldest()).handle_close()

    def _bound_connections(self) -> None:
        counts = Counter(one.client for one in self.active_channels.values())
        while counts:
            client, count = counts.most_common(1)[0]
            if count <= MAX_CONNECTIONS_OF_CLIENT and counts.total() <= MAX_CONNECTIONS:
                return
            # The client with the most connections loses one. Where all are being answered, which
            # threads limit, it is the newest that waits.
            oldest = next((one for one in self._oldest() if one.client == client), None)
            if oldest is None:
                return
            oldest.handle_close()
            counts[client] -= 1

    def _oldest(self) -> Iterator[Connection]:
        """Iterate over the connections that no thread works for, from the oldest on."""
        waiting = [one for one in self.active_channels.values() if not one.is_answering]
        return iter(sorted(waiting, key=lambda one: one.since))
