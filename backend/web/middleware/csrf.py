"""Refuse requests that another site's page makes in a person's name (CSRF)."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, request

from backend.errors import CrossSite
from backend.settings import Settings

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def add_csrf_check(app: Flask, settings: Settings) -> None:
    """Check each request that may change something, on all routes.

    With basic auth, a browser adds the password to such a request by itself. Without a password,
    the browser may reach a backend that the other site cannot reach.
    """
    has_password = settings.basic_auth_user is not None
    is_local = is_number_or_localhost(settings.host, loopback=True)
    allow_any_name = has_password or not is_local

    @app.before_request
    def refuse_other_sites() -> None:
        if request.method not in _SAFE_METHODS:
            check_same_site(allow_any_name)


def check_same_site(allow_any_name: bool) -> None:
    """Refuse the current request if a browser has sent it for a page of another site.

    Browsers say where a request comes from, and pages cannot change that: ``Sec-Fetch-Site``
    where the connection is trusted (https, localhost), ``Origin`` with every POST. The first is
    right behind a reverse proxy too, which may rename the host. Other programs send neither, and
    add no password by themselves.

    Args:
        allow_any_name: whether this backend may be reached under any host name. A backend that
            listens on its own machine only and has no password may not (DNS rebinding): another
            site could point a name of its own at that machine, and the site's page would count as
            the same site. Over https that fails, as the site has no certificate for this backend.

    Raises:
        CrossSite: a page of another site has sent the request.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_same = site in ("same-origin", "none")
    else:
        is_same = origin is None or origin in (f"http://{request.host}", f"https://{request.host}")
    if not is_same:
        raise CrossSite(
            "A page of another site has sent this request. Open this backend's own page; behind a "
            "reverse proxy, let it pass the Host header on."
        )
    if allow_any_name or site is not None or origin is None or origin.startswith("https:"):
        return
    if not is_number_or_localhost(urlsplit(origin).hostname or ""):
        raise CrossSite(
            f"This backend has no password, and {request.host} may be a name that another site has "
            "pointed at it. Open its page as http://localhost with its port, or set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS."
        )


def is_number_or_localhost(host: str, loopback: bool = False) -> bool:
    """Tell whether a host is an IP address or ``localhost``, which no DNS server decides.

    Args:
        host: name or address, without a port.
        loopback: whether the address must belong to this machine only.

    >>> [is_number_or_localhost(host) for host in ("localhost", "10.0.0.7", "::1", "a.example")]
    [True, True, True, False]
    >>> is_number_or_localhost("0.0.0.0", loopback=True)
    False
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or not loopback
