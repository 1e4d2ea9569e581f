"""Refuse requests that another site's page makes in a person's name (CSRF)."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import request

from backend.errors import CrossSite


def check_same_site(any_name: bool) -> None:
    """Refuse a request that a browser has sent for a page of another site.

    Browsers say where a request comes from, and pages cannot make them lie: ``Sec-Fetch-Site``
    where the connection is trusted (https, localhost), ``Origin`` with every POST. The first is
    right behind a reverse proxy too, which may rename the host. Other programs send neither, and
    no password by themselves.

    Args:
        any_name: whether this backend may have any name. Where it listens on its own machine only
            and has no password, a site could point a name of its own at that machine, and its
            page would be of the same site; over https it could not, for want of a certificate.

    Raises:
        CrossSite: it is one.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        same = site in ("same-origin", "none")
    else:
        same = origin is None or origin in (f"http://{request.host}", f"https://{request.host}")
    if not same:
        raise CrossSite(
            "A page of another site has sent this request. Open this backend's own page; behind a "
            "reverse proxy, let it pass the Host header on."
        )
    if any_name or site is not None or origin is None or origin.startswith("https:"):
        return
    if not is_number_or_localhost(urlsplit(origin).hostname or ""):
        raise CrossSite(
            f"This backend has no password, and {request.host} may be a name that another site has "
            "pointed at it. Open its page as http://localhost with its port, or set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS."
        )


def is_number_or_localhost(host: str, loopback: bool = False) -> bool:
    """Whether nobody elsewhere says what a host is; that it is this machine, with `loopback`.

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
