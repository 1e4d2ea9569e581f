"""HTTP requests that connect to allowed addresses only (protection from SSRF).

A task may name any address, and a server may redirect to any. Nobody is to reach through this
backend what only this backend can reach. So connections are made to public addresses only, unless
the administrator allows the host by ``LABEL_STUDIO_URL`` or in ``ALLOWED_HOSTS``. The address is
checked, not the name: a name is looked up once, and the connection goes to the address that was
checked. Each redirect is checked again.
"""

import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import Retry

from backend.errors import HostRefused
from backend.network.host_rules import HostRules


class TimeLimit:
    """Closes the connections made under it when its time is over; a context manager.

    A timeout of a single read is no such limit: a server that sends a byte of a header or of a
    handshake now and then never exceeds it. The lookup of a name is not limited: the system's
    resolver ends it on its own.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self.has_connected = False  # whether a server was reached under it

    def __enter__(self) -> "TimeLimit":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @property
    def left_s(self) -> float:
        """Seconds that are left; at least 0.001, as sockets take 0 for no timeout."""
        return max(0.001, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def hold(self, connection: socket.socket) -> None:
        """Close a connection when the time is over; of its socket TLS takes over the original."""
        self.has_connected = True
        with self._lock:
            self._connections.append(connection.dup())
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # it has ended already
                    connection.shutdown(socket.SHUT_RDWR)


_CHUNK_BYTES = 1 << 16

#: The limit of the request that a thread sends, for connections that it makes or takes up again.
_limit: ContextVar[TimeLimit] = ContextVar("limit")

#: A server may close a kept connection just as a request is sent, which then reads nothing.
_ONCE_MORE = Retry(total=None, connect=0, read=1, redirect=0, status=0, other=0)


def open_session(rules: HostRules | None, retries: Retry | int = _ONCE_MORE) -> requests.Session:
    """Open a session, which keeps connections but no cookies; threads may share it.

    `rules` say where it may connect; None where the administrator allows the host. Only then a
    proxy of the environment (``HTTP_PROXY``, ``NO_PROXY``) is used: the address to which a proxy
    connects cannot be checked here.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(rules, retries))
    return session


def request(
    method: str, url: str, *, rules: HostRules | None, limit: TimeLimit, **options: Any
) -> requests.Response:
    """Send one HTTP request in a session of its own, see `open_session` and `send`."""
    with open_session(rules, retries=0) as session:
        return send(session, method, url, limit, **options)


def send(
    session: requests.Session, method: str, url: str, limit: TimeLimit, **options: Any
) -> requests.Response:
    """Send one HTTP request; follow no redirect."""
    before = _limit.set(limit)
    try:
        return session.request(method, url, timeout=limit.left_s, allow_redirects=False, **options)
    finally:
        _limit.reset(before)


class Header(requests.auth.AuthBase):
    """Sends a value of ``Authorization`` or none, never one of a .netrc of this machine."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


def read_body(answer: requests.Response, most_bytes: int) -> bytes | None:
    """Read the body of an answer; None where it is larger than a bound."""
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > most_bytes:
        return None
    content = bytearray()
    while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
        content += chunk
        if len(content) > most_bytes:
            return None
    return bytes(content)


class _Adapter(HTTPAdapter):
    def __init__(self, rules: HostRules | None, retries: Retry | int) -> None:
        self._rules = rules
        super().__init__(max_retries=retries)

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, *, proxies: Any = None, **options: Any
    ) -> requests.Response:
        given = proxies if self._rules is None else None
        return super().send(request, proxies=given, **options)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **options)
        assert isinstance(pool, HTTPConnectionPool), "requests makes no other"
        kind = _HttpsConnection if pool.scheme == "https" else _HttpConnection
        pool.ConnectionCls = partial(kind, rules=self._rules)  # type: ignore[assignment]
        return pool


class _HttpConnection(HTTPConnection):
    def __init__(self, *args: Any, rules: HostRules | None, **options: Any) -> None:
        self._rules = rules
        super().__init__(*args, **options)

    def _new_conn(self) -> socket.socket:
        return _dial(self._dns_host, self.port, self._rules, _limit.get())

    def putrequest(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # a kept one
            _limit.get().hold(self.sock)
        super().putrequest(*args, **options)


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    pass


def _dial(host: str, port: int, rules: HostRules | None, limit: TimeLimit) -> socket.socket:
    """Connect to the first address of a host that is allowed and can be reached."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    allowed = [each for each in found if rules is None or rules.is_allowed_address(str(each[4][0]))]

    if not allowed:
        raise HostRefused(
            f"{host}:{port} has no public address: set LABEL_STUDIO_URL if it is Label Studio, or "
            "name it in ALLOWED_HOSTS if pictures may come from there."
        )

    failure = OSError("no address")
    for family, kind, protocol, _, address in allowed:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(limit.left_s)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            limit.hold(connection)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection

    raise failure
