"""Guard every route: other sites, foreign names, large bodies, too many requests, headers."""

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Request

from backend.errors import Busy, CrossSite, PayloadTooLarge, UnknownName
from backend.network.host_rules import HostRules
from backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def add_csrf_check(app: Flask) -> None:
    """Check each request that may change something, on all routes.

    With basic auth, a browser adds the password to such a request by itself. Without a password,
    the browser may reach a backend that the other site cannot reach.
    """

    @app.before_request
    def refuse_other_sites() -> None:
        if request.method not in _SAFE_METHODS:
            check_same_site()


def check_same_site() -> None:
    """Refuse the current request if a browser has sent it for a page of another site.

    Browsers say where a request comes from, and pages cannot change that: ``Sec-Fetch-Site``
    where the connection is trusted (https, localhost), ``Origin`` with every POST. The first is
    right behind a reverse proxy too, which may rename the host. Other programs send neither, and
    add no password by themselves. A site that points a name of its own at this backend is refused
    by `HostNames`.

    Raises:
        CrossSite: a page of another site has sent the request.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_same = site in ("same-origin", "none")
    else:
        is_same = origin in (None, f"http://{request.host}", f"https://{request.host}")
    if not is_same:
        raise CrossSite(
            "A page of another site has sent this request. Open this backend's own page; behind a "
            "reverse proxy, let it pass the Host header on."
        )


#: Top-level domains that no public DNS server knows.
_PRIVATE_DOMAINS: Final = (".localhost", ".local", ".internal", ".home.arpa", ".lan")

#: What names and addresses consist of. A browser writes other letters, and other dots, in these.
_LETTERS: Final = re.compile(r"[a-z0-9._:%-]+")


class HostNames:
    """The names under which this backend answers.

    With a password and no names in the settings every name is allowed: a browser has the password
    for names only under which a person has typed it.
    """

    def __init__(self, settings: Settings) -> None:
        self._is_any_allowed = settings.basic_auth_user is not None and not settings.server_names
        self._rules = HostRules.parse(settings.server_names)

    def check(self, request: Request) -> None:
        """Raise `UnknownName` for a request under a name that is not allowed."""
        host = request.host
        if self._is_any_allowed or _is_private(host):
            return
        if _has_certificate(request) or _is_ours(host, self._rules):
            return
        raise UnknownName(
            f"This backend does not know the name {host[:100]}: name it in SERVER_NAMES, or "
            "use an address."
        )


def add_host_check(app: Flask, settings: Settings) -> None:
    names = HostNames(settings)

    @app.before_request
    def check_name() -> None:
        names.check(request)


def _is_private(host: str) -> bool:
    """Tell whether nobody elsewhere can point the name anywhere.

    >>> [_is_private(host) for host in ("backend:9090", "[::1]:9090", "a.internal", "a.example")]
    [True, True, True, False]
    """
    name = _name(host)
    if _LETTERS.fullmatch(name) is None:
        return False
    return "." not in name or name.endswith(_PRIVATE_DOMAINS) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _has_certificate(request: Request) -> bool:
    """Tell whether a browser has found a certificate for the name, or knows it for its own machine.

    Only then it sends this header, or an origin of https, and no page can set them.
    """
    origin = request.headers.get("Origin", "")
    return "Sec-Fetch-Site" in request.headers or origin == f"https://{request.host}"


def _is_ours(host: str, rules: HostRules) -> bool:
    return rules.is_allowed_host(f"http://{host}") or _name(host) in _own_names()


def _name(host: str) -> str:
    """Return the host without its port, in lower case and without the dot of a full name."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


@cache
def _own_names() -> frozenset[str]:
    """Return the names of this machine; looking them up may take a while, once."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))


class BodyReader:
    """Read bodies of at most ``MAX_BODY_MB``; the server has them already, on disk if large.

    Of a larger one the server has taken nothing: it tells the length alone.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_mb = settings.max_body_mb

    def read(self, max_bytes: int | None = None) -> bytes:
        """Read the body, at most `max_bytes` or ``MAX_BODY_MB``, or raise `PayloadTooLarge`."""
        limit = self._max_mb << 20 if max_bytes is None else max_bytes
        if (request.content_length or 0) > limit:  # the server knows it of bodies in chunks, too
            raise PayloadTooLarge(
                f"The request is larger than MAX_BODY_MB ({self._max_mb})."
                if max_bytes is None
                else f"Expected at most {max_bytes} bytes, but got more."
            )
        body: bytes = request.stream.read(limit)
        return body


#: The type that is declared is what a browser takes an answer for. No page of another site frames
#: an answer. No browser or proxy keeps one but the style sheet and script of the pages: all others
#: are private, those of errors too, which name tasks.
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def add_security_headers(app: Flask) -> None:
    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def add_proxy_headers(app: Flask, settings: Settings) -> None:
    """Read the headers of trusted proxies before all else of an application."""
    fixed = read_proxy_headers(app.wsgi_app, settings)
    app.wsgi_app = fixed  # type: ignore[method-assign,assignment]


def read_proxy_headers(app: "WSGIApplication", settings: Settings) -> "WSGIApplication":
    """Return an application that reads ``X-Forwarded-For``, ``-Host``, ``-Proto`` and ``-Prefix``.

    The prefix stands before all links, forms and redirects of the pages; the proxy has taken it
    away from the path of the request. Without trusted proxies the headers may come from anybody,
    and are not read. Reading them twice is as reading them once.
    """
    count = settings.trusted_proxies
    if not count:
        return app
    return ProxyFix(app, x_for=count, x_proto=count, x_host=count, x_port=0, x_prefix=count)


_BUSY: Final = "Too many requests for predictions: try again in a moment."


class Slots:
    """A semaphore that a bounded number of threads may wait for.

    >>> slots = Slots(1, waiting=0)
    >>> with slots.hold(0), slots.hold(0):
    ...     pass
    Traceback (most recent call last):
    backend.errors.Busy: Too many requests for predictions: try again in a moment.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self.places = at_once + waiting
        self._places = threading.BoundedSemaphore(self.places)
        self._slots = threading.BoundedSemaphore(at_once)

    @contextmanager
    def hold(self, timeout_s: float) -> Iterator[None]:
        """Hold a slot; raises `Busy` where no slot is free in time, or too many threads wait."""
        if not self._places.acquire(blocking=False):
            raise Busy(_BUSY)
        try:
            if not self._slots.acquire(timeout=timeout_s):
                raise Busy(_BUSY)
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()


class RequestSlots:
    """The slots of requests for predictions."""

    def __init__(self, threads: int) -> None:
        self.bodies = Slots(1, waiting=64)
        self.annotators = Slots(threads, waiting=64)
        self.batches = Slots(max(2, threads // 4), waiting=16)
        #: The most threads that hold a slot or wait for one; another request is refused at once.
        self.threads = self.bodies.places + self.annotators.places + self.batches.places + 1
