"""Which hosts files may be fetched from, held where connections are made.

A task may name any address, and a server may redirect to any. So that nobody reaches through this
backend what only this backend can reach, a connection is made to public addresses only, unless the
administrator vouches for the host: by ``LABEL_STUDIO_URL``, or in ``ALLOWED_HOSTS``. What counts is
the address that is connected to, not the name: a name is looked up once, and the connection goes to
the very address that was checked, in each step of a redirect anew.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection

from backend.errors import HostRefused
from backend.network.host_rules import HostRules
from backend.network.time_limit import TimeLimit

Dial = Callable[[str, int], socket.socket]


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
