"""Which hosts files may be fetched from, held where connections are made.

A task may name any address, and a server may redirect to any. So that nobody reaches through this
backend what only this backend can reach, a connection is made to public addresses only, unless the
administrator vouches for the host: by ``LABEL_STUDIO_URL``, or in ``ALLOWED_HOSTS``. What counts is
the address that is connected to, not the name: a name is looked up once, and the connection goes to
the very address that was checked, in each step of a redirect anew.
"""

from __future__ import annotations

import heapq
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from backend.errors import HostRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Origin = tuple[str, str, int]  # scheme, host, port
Dial = Callable[[str, int], socket.socket]

#: Global by the registry, but a cloud's own: Azure's WireServer; and those that older releases of
#: Python take for global.
_NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "100.64.0.0/10"))
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAME = re.compile(r"(\*\.)?([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)


@dataclass(frozen=True)
class HostRules:
    """Hosts that the administrator vouches for, beside Label Studio and public addresses.

    Attributes:
        names: host, or suffix that begins with a dot; and the port, None for all.
        networks: addresses that any host may have.
    """

    names: tuple[tuple[str, int | None], ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> HostRules:
        """Read ``ALLOWED_HOSTS``: names, ``*.`` before a name, addresses and networks, by comma.

        Raises:
            ValueError: an entry is none of these.

        >>> rules = HostRules.parse("minio:9000, *.pictures.org, 10.1.0.0/16")
        >>> rules.vouch_for("http://minio:9000/a.png"), rules.vouch_for("http://minio/a.png")
        (True, False)
        >>> rules.permit("10.1.2.3"), rules.permit("10.2.0.1"), rules.permit("9.9.9.9")
        (True, False, True)
        """
        names: list[tuple[str, int | None]] = []
        networks: list[Network] = []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry))
                continue
            except ValueError:
                match = _NAME.fullmatch(entry)
            if match is None or (match[3] and not 0 < int(match[3]) < 65536):
                raise ValueError(
                    "expected names, addresses and networks such as "
                    f"minio:9000, *.pictures.org, 10.1.0.0/16, but got {entry!r}"
                )
            host = ("." if match[1] else "") + match[2].lower()
            names.append((host, int(match[3]) if match[3] else None))
        return cls(tuple(names), tuple(networks))

    def vouch_for(self, url: str) -> bool:
        """Whether a URL's host is named, so that it may have any address."""
        found = origin(url)
        if found is None:
            return False
        _, host, port = found
        return any(
            (host.endswith(name) if name.startswith(".") else host == name)
            and only_port in (None, port)
            for name, only_port in self.names
        )

    def permit(self, address: str) -> bool:
        """Whether an address may be connected to, whatever its name."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        inner = _inner(ip)
        if any(each in network for network in self.networks for each in (ip, inner)):
            return True
        return _is_public(inner)


class Clock:
    """Calls functions when their time has come, in one thread for all.

    A timer for each request would be a thread for each request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        """Call a function at a time of the monotonic clock; it must be quick, and raise nothing."""
        with self._changed:
            if not self._count:
                threading.Thread(target=self._run, name="clock", daemon=True).start()
            self._count += 1
            heapq.heappush(self._due, (when, self._count, function))
            if self._due[0][1] == self._count:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                _, _, function = heapq.heappop(self._due)
            function()


class TimeLimit:
    """Ends the connections that were made under it once its time is up; a context manager.

    A timeout of a single read is no such limit: a server that sends a byte now and then, of a
    header or of a handshake, keeps within it for ever. Only the lookup of a name is outside of it,
    which the system's resolver ends on its own.

    Args:
        seconds: how long all may take.
        clock: tells when it is over.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._end = time.monotonic() + seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    def __enter__(self) -> TimeLimit:
        self._clock.call_at(self._end, self._cut)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lift()

    def lift(self) -> None:
        """Let connections be from now on."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @property
    def left_s(self) -> float:
        """Seconds that are left; never quite 0, which sockets take for no limit at all."""
        return max(0.001, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def hold(self, connection: socket.socket) -> None:
        """Let a connection end with the time; through a handle that TLS cannot take away."""
        with self._lock:
            self._connections.append(connection.dup())
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # it has ended already
                    connection.shutdown(socket.SHUT_RDWR)


def request(
    method: str,
    url: str,
    *,
    rules: HostRules,
    trusted: bool,
    limit: TimeLimit,
    **options: Any,
) -> requests.Response:
    """One HTTP request, no redirect followed, to a host that may be asked.

    Args:
        method: GET or POST.
        url: what to ask for.
        rules: which addresses may be connected to.
        trusted: whether the administrator vouches for the host. Only then a proxy of the
            environment (``HTTP_PROXY``, ``NO_PROXY``) is used: of what a proxy connects to, nobody
            here can tell the address.
        limit: ends it.
        options: see `requests.request`.

    Raises:
        HostRefused: all addresses of the host are ones that may not be connected to.
        requests.RequestException: it cannot be reached.
    """
    dial = partial(_dial, permit=None if trusted else rules.permit, limit=limit)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(dial, proxied=trusted))
        return session.request(method, url, timeout=limit.left_s, allow_redirects=False, **options)


def origin(url: str) -> Origin | None:
    """Scheme, host and port of an http(s) URL, as the HTTP client reads it; else None.

    >>> origin("HTTP://Studio/data"), origin("https://studio:8443"), origin("file:///etc/passwd")
    (('http', 'studio', 80), ('https', 'studio', 8443), None)
    """
    try:
        parsed = parse_url(url)
    except HTTPError:
        return None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return None
    return parsed.scheme, parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80)


class _Adapter(HTTPAdapter):
    """Connects by a function of ours; through a proxy only where that is wanted."""

    def __init__(self, dial: Dial, proxied: bool) -> None:
        self._dial = dial
        self._proxied = proxied
        super().__init__()

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, *, proxies: Any = None, **options: Any
    ) -> requests.Response:
        given = proxies if self._proxied else None
        return super().send(request, proxies=given, **options)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: Any = None,
    ) -> Any:
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies, cert)
        if (select_proxy(str(request.url), proxies) or "").lower().startswith("socks"):
            return pool  # connects in its own way; `send` has seen to it that it may
        kind = _HttpsConnection if pool.scheme == "https" else _HttpConnection
        pool.ConnectionCls = partial(kind, dial=self._dial)
        return pool


class _HttpConnection(HTTPConnection):
    def __init__(self, *args: Any, dial: Dial, **options: Any) -> None:
        self._dial = dial
        super().__init__(*args, **options)

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


class _HttpsConnection(HTTPSConnection):
    def __init__(self, *args: Any, dial: Dial, **options: Any) -> None:
        self._dial = dial
        super().__init__(*args, **options)

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


def _dial(
    host: str, port: int, permit: Callable[[str], bool] | None, limit: TimeLimit
) -> socket.socket:
    """Connect to the first address of a host that may be, and can be, connected to."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    permitted = [each for each in found if permit is None or permit(str(each[4][0]))]
    if not permitted:
        raise HostRefused(
            f"{host} has no public address: set LABEL_STUDIO_URL if it is Label Studio, or name "
            "it in ALLOWED_HOSTS if pictures may come from there."
        )
    failure = OSError("no address")
    for family, kind, protocol, _, address in permitted:
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


def _inner(ip: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    return ip.ipv4_mapped or ip.sixtofour or teredo or ip


def _is_public(ip: Address) -> bool:
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    special = (
        ip.is_private
        or ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_reserved
        or ip.is_unspecified
        or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    )
    return ip.is_global and not special
