"""Accept connections in a process of its own, which answers ``/health`` itself.

All threads of the backend take turns with one interpreter. With hundreds of clients, or while one
step goes over hundreds of megabytes, a turn comes later than after the second that Label Studio
waits for ``/health``. The acceptor has an interpreter to itself. It looks at the first bytes of a
connection without taking them, and answers where they are a plain request for ``/health``. Every
other connection, and every one in doubt, goes to the backend as it came.

It speaks for the backend only while the backend's loop reports itself, so that one that hangs does
not seem well.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from email.utils import formatdate
from typing import Final

from backend.web.middleware.headers import SECURITY_HEADERS
from backend.web.middleware.host_names import HostNames
from backend.web.ml_backend.health import MODEL_STATES, describe_health

#: What the acceptor tells the backend: here is a connection, or ``/health`` was answered.
CONNECTION, ANSWERED = b"c", b"h"

#: How long the acceptor speaks for a backend that does not report itself, in seconds.
TRUSTED_FOR_S: Final = 10.0

#: Most connections that have sent nothing, and most that wait until the backend takes them.
_MAX_WAITING: Final = 1024
#: How long a connection may send nothing before the backend gets it, in seconds.
_SILENT_FOR_S: Final = 1.0
#: The longest time after which silent connections are looked at, in seconds.
_LOOP_S: Final = 0.5
#: Connections that are accepted between two looks at the others.
_AT_ONCE: Final = 64

#: Bytes of the longest head that is looked at.
_MAX_HEAD: Final = 4096
_ASKED: Final = re.compile(rb"GET /health HTTP/1\.[01]\r\n((?:[A-Za-z-]+:[^\r\n]*\r\n)+)\r\n")
#: Headers that do not change the answer. What else a request has, the backend must see.
_IGNORED: Final = frozenset(
    {
        *(b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control"),
        *(b"connection", b"content-type", b"pragma", b"user-agent"),
    }
)


class Acceptor:
    """Accepts connections, answers requests for ``/health``, and hands the others over.

    Args:
        listening: the sockets that clients connect to.
        link: a stream socket to the backend. It sends the index of a model state in `MODEL_STATES`
            as a byte, again and again.
        model: name of the model, for the answers.
        names: of the hosts under which it answers. Whether the backend answers under another one
            depends on more than the acceptor looks at.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        link: socket.socket,
        model: str,
        names: HostNames,
    ) -> None:
        self._link = link
        self._model = model
        self._names = names
        self._state = ""
        self._told_at = float("-inf")
        self._silent: dict[socket.socket, float] = {}  # since when; the oldest first
        self._waiting: deque[socket.socket] = deque()  # for the backend to take them
        self._answered = 0  # and not told to the backend
        self._is_linked = True
        self._selector = selectors.DefaultSelector()
        for each in (*listening, link):
            each.setblocking(False)
        for each in listening:
            self._selector.register(each, selectors.EVENT_READ, self._accept)
        self._selector.register(link, selectors.EVENT_READ, self._hear)

    def run(self) -> None:
        """Serve until the backend closes the link."""
        while self._is_linked:
            for key, _ in self._selector.select(_LOOP_S):
                key.data(key.fileobj)
            self._hand_over_silent()
            self._tell()
        self._selector.close()
        self._link.settimeout(_LOOP_S)
        with suppress(OSError):  # the backend is gone
            for each in (*self._waiting, *self._silent):
                socket.send_fds(self._link, [CONNECTION], [each.fileno()])

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the client is gone, or there are too many open files
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    time.sleep(_LOOP_S)
                return
            connection.setblocking(False)
            self._silent[connection] = time.monotonic()
            self._selector.register(connection, selectors.EVENT_READ, self._look)

    def _hear(self, _: socket.socket) -> None:
        try:
            told = self._link.recv(_MAX_HEAD)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if not told:
            self._is_linked = False
        else:
            self._state, self._told_at = MODEL_STATES[told[-1]], time.monotonic()

    def _look(self, connection: socket.socket) -> None:
        """Answer a connection that has sent something, or hand it over."""
        self._selector.unregister(connection)
        del self._silent[connection]
        try:
            head = connection.recv(_MAX_HEAD, socket.MSG_PEEK)
        except OSError:
            head = b""
        if not head:
            connection.close()
            return
        host = plain_host(head)
        is_trusted = time.monotonic() < self._told_at + TRUSTED_FOR_S
        if host is None or not is_trusted or not self._names.is_private(host):
            self._hand_over(connection)
            return
        with connection, suppress(OSError):  # the client is gone
            connection.recv(len(head))
            connection.send(answer(self._model, self._state))
            self._answered += 1
            connection.shutdown(socket.SHUT_WR)

    def _hand_over_silent(self) -> None:
        limit = time.monotonic() - _SILENT_FOR_S
        for oldest, since in list(self._silent.items()):
            if since >= limit and len(self._silent) <= _MAX_WAITING:
                break
            self._selector.unregister(oldest)
            del self._silent[oldest]
            self._hand_over(oldest)

    def _hand_over(self, connection: socket.socket) -> None:
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(connection)
        else:
            connection.close()

    def _tell(self) -> None:
        """Tell the backend as much as it takes now."""
        events = selectors.EVENT_READ
        try:
            while self._waiting:
                socket.send_fds(self._link, [CONNECTION], [self._waiting[0].fileno()])
                self._waiting.popleft().close()
            while self._answered:
                self._answered -= self._link.send(ANSWERED * min(self._answered, _AT_ONCE))
        except BlockingIOError:
            events |= selectors.EVENT_WRITE  # it takes no more now
        except OSError as error:
            # As many connections as the system allows are on their way, or the backend is gone.
            self._is_linked = error.errno == errno.ETOOMANYREFS
        self._selector.modify(self._link, events, self._hear)


def plain_host(head: bytes) -> str | None:
    """Return the host that a plain request for ``/health`` names.

    Args:
        head: the first bytes of a connection.

    Returns:
        The value of its header ``Host``; None for all that is not one plain request.

    >>> plain_host(b"GET /health HTTP/1.1\\r\\nHost: backend:9090\\r\\nAccept: */*\\r\\n\\r\\n")
    'backend:9090'
    """
    asked = _ASKED.fullmatch(head)
    if asked is None:
        return None
    hosts = []
    for line in asked[1].splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            hosts.append(value.strip().decode("latin-1"))
        elif name.lower() == b"content-length":
            if value.strip() != b"0":
                return None
        elif name.lower() not in _IGNORED:
            return None
    return hosts[0] if len(hosts) == 1 else None


def answer(model: str, state: str) -> bytes:
    """Return the answer to a request for ``/health``, as the application would make it."""
    body = json.dumps(describe_health(model, state), separators=(",", ":"))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **SECURITY_HEADERS,
        "X-Request-ID": secrets.token_hex(6),
        "Date": formatdate(usegmt=True),
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n{body}".encode()
