"""Take the connections that the acceptor's process hands over."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from waitress import wasyncore

from backend.settings import Settings
from backend.web.acceptor import CONNECTION, Acceptor
from backend.web.connections import Server
from backend.web.middleware.host_names import HostNames
from backend.web.ml_backend.health import MODEL_STATES

log = logging.getLogger(__name__)

#: How often the backend reports itself to the acceptor at most, in seconds.
_REPORT_INTERVAL_S: Final = 0.2
#: Messages of the acceptor that are taken in one turn of the loop.
_AT_ONCE: Final = 64
#: How long the acceptor has to hand over what it holds when it is ended, in seconds.
_LAST_WORDS_S: Final = 1.0


def start_acceptor(
    listening: Sequence[socket.socket], settings: Settings
) -> tuple[socket.socket, int]:
    """Fork the process of an `Acceptor`. It ends with this process.

    Call it before this process has a second thread.

    Args:
        listening: the sockets that clients connect to.
        settings: say which names of the host anybody may ask under.

    Returns:
        The end of the link to it for this process, and its process id.
    """
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid:
        its.close()
        ours.setblocking(False)
        return ours, pid
    status = 1
    try:
        ours.close()
        gc.freeze()  # a collection would copy the memory that it shares with this process
        for each in signal.Signals.SIGTERM, signal.Signals.SIGINT, signal.Signals.SIGQUIT:
            signal.signal(each, signal.SIG_IGN)  # the end of the link ends it
        for each in signal.Signals.SIGHUP, signal.Signals.SIGUSR1, signal.Signals.SIGUSR2:
            signal.signal(each, signal.SIG_IGN)
        Acceptor(listening, its, settings.model, HostNames(settings)).run()
        status = 0
    except Exception:
        log.exception("The process that accepts connections has failed")
    finally:
        os._exit(status)


class Handover(wasyncore.dispatcher):  # type: ignore[misc]
    """The backend's end of the link to the acceptor, in the loop of a server.

    Where the acceptor ends, the server accepts connections itself.

    Args:
        link: as from `start_acceptor`.
        pid: of the acceptor's process.
        servers: their clients connect to the acceptor; the first gets all connections.
        sockets: what the loop watches, by file descriptor.
        state: tells the state of the model.
        count: called for each ``/health`` that the acceptor has answered.
    """

    def __init__(
        self,
        link: socket.socket,
        pid: int,
        servers: Sequence[Server],
        sockets: dict[int, Any],
        state: Callable[[], str],
        count: Callable[[], None],
    ) -> None:
        self._pid = pid
        self._servers = servers
        self._state = state
        self._count = count
        self._next_report = 0.0
        super().__init__(link, sockets)
        for server in servers:
            server.has_acceptor = True

    def report(self) -> None:
        """Report to the acceptor that the loop runs; called in each turn of it."""
        now = time.monotonic()
        if now < self._next_report or self.socket is None:
            return
        self._next_report = now + _REPORT_INTERVAL_S
        with suppress(OSError):  # it is not listening now, or not any more
            self.socket.send(bytes([MODEL_STATES.index(self._state())]))

    def readable(self) -> bool:
        """Tell that the loop is to call `handle_read`."""
        return True

    def writable(self) -> bool:
        """Tell that the loop is not to wait until the link takes more."""
        return False

    def handle_read(self) -> None:
        """Take connections, and what else the acceptor tells."""
        for _ in range(_AT_ONCE):
            try:
                if not self._take():
                    self.handle_close()
                    return
            except BlockingIOError:
                return

    def handle_close(self) -> None:
        """Let the servers accept connections themselves: the acceptor has ended."""
        if self.socket is None:  # the loop tells it twice
            return
        log.error("The process that accepts connections has ended: this one accepts them now.")
        self.end()
        for server in self._servers:
            server.has_acceptor = False

    def end(self) -> None:
        """End the acceptor, and take the connections that it has accepted already."""
        if self.socket is None:  # its process id may be another process's by now
            return
        with suppress(OSError):  # it has ended already, or it does not answer
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(_LAST_WORDS_S)
            while self._take():
                pass
        self.close()
        with suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _take(self) -> bool:
        """Take a message of the acceptor; return False where it has ended.

        Raises:
            OSError: there is none now.
        """
        try:
            told, files, _, _ = socket.recv_fds(self.socket, 1, 1)
        except ConnectionError:
            return False
        if files:
            os.set_inheritable(files[0], False)
            self._servers[0].adopt(socket.socket(fileno=files[0]))
        elif told and told != CONNECTION:  # one without a file is lost: there are too many
            self._count()
        return bool(told)
