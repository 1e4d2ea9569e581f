"""Check basic auth.

Label Studio sends it with everything but webhooks. ``/webhook`` asks for none where it only makes a
poll come sooner.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cachetools import TTLCache
from flask import Flask, request

from backend.errors import TooManyGuesses, Unauthorized
from backend.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)


def client_network(address: str) -> str:
    """Return what counts as one address: of IPv6, the network that a site has to itself.

    >>> client_network("2001:db8:1:2:3:4:5:6"), client_network("::ffff:192.0.2.1")
    ('2001:db8:1:2::/64', '192.0.2.1')
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket of this machine has none
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


_TRIES: Final = 10  # wrong passwords of an address, and how long it waits after them, in seconds
_WAIT_S: Final = 100

_MAX_CLIENTS: Final = 4096  # the most addresses that are remembered
#: Routes without a password.
OPEN_ROUTES: Final = ("/health", "/ready", "/webhook", "/page.css", "/page.js")

#: Most bytes of a webhook that are taken, as anybody may send one; the poll finds what a larger one
#: tells, too.
LARGEST_WEBHOOK: Final = 4 << 20


@dataclass(frozen=True)
class BasicAuth:
    """Compare credentials of requests with a user name and a password.

    Raises:
        ValueError: the user name or the password is empty.

    >>> auth = BasicAuth("ann", "secret")
    >>> auth.accepts("Basic YW5uOnNlY3JldA=="), auth.accepts("Basic YW5uOndyb25n")
    (True, False)
    """

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or not self.password:
            raise ValueError("Expected arguments `user` and `password` to hold something.")

    @classmethod
    def from_settings(cls, settings: Settings) -> BasicAuth | None:
        """Make the check that settings ask for; None where they set no password."""
        user, password = settings.basic_auth_user, settings.basic_auth_pass
        if user is None or password is None:
            return None
        return cls(user, password.get_secret_value())

    @property
    def header(self) -> str:
        """The value of ``Authorization`` that every route accepts."""
        return "Basic " + base64.b64encode(self._pairs[0]).decode()

    def accepts(self, authorization: str) -> bool:
        """Tell whether a value of ``Authorization`` is right for every route; in constant time."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        matches = [hmac.compare_digest(given, pair) for pair in self._pairs]
        return any(matches) and scheme.lower() == "basic"

    @property
    def _pairs(self) -> list[bytes]:
        """``user:password`` in UTF-8, as browsers send it, and in Latin-1, as `requests` does."""
        pair = f"{self.user}:{self.password}"
        return [pair.encode(), pair.encode("latin-1", "xmlcharrefreplace")]


class GuessLimit:
    """Counts wrong passwords by address; any number of threads may share it.

    Where an address has sent ten, the answer is HTTP 429 until it sends none for a while, also if
    the next is right, or the answer would tell. One that is repeated counts once: Label Studio
    sends the one that it has stored.

    Args:
        clock: seconds on a clock that is never set back.

    >>> limit = GuessLimit()
    >>> limit.check("192.0.2.1", "Basic YTph", is_right=False)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._wrong: TTLCache[str, frozenset[int]] = TTLCache(_MAX_CLIENTS, _WAIT_S, clock)

    def is_full(self, address: str) -> bool:
        """Return whether an address has sent too many."""
        with self._lock:
            return len(self._wrong.get(client_network(address), ())) >= _TRIES

    def check(self, address: str, credentials: str, *, is_right: bool) -> None:
        """Let the credentials of a request from an address be told right or wrong.

        Raises:
            TooManyGuesses: the address has sent too many; says nothing of these.
        """
        network = client_network(address)
        with self._lock:
            wrong = self._wrong.get(network, frozenset())
            if len(wrong) >= _TRIES:
                raise TooManyGuesses(_WAIT_S)
            if not is_right:
                self._wrong[network] = wrong | {hash(credentials)}


class Gate:
    """Decides who is answered, and whose bodies the server takes.

    Wrong passwords are counted. A request without any, as browsers send first, is no guess. The
    address of ``LABEL_STUDIO_URL`` is let in with the right password also while others' guesses
    from it, as from behind one router, are refused; what a proxy hands on is none of its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._auth = BasicAuth.from_settings(settings)
        self._guesses = GuessLimit()
        self._trusts_nobody = not settings.trusted_proxies
        self._largest_body = settings.max_body_mb << 20
        self._studio_host = urlsplit(settings.label_studio_url or "").hostname
        self._studio: frozenset[str] = frozenset()

    def check(self, environ: WSGIEnvironment) -> None:
        """Let a request in: those of `OPEN_ROUTES`, and others as `check_password` does."""
        if environ["PATH_INFO"] not in OPEN_ROUTES:
            self.check_password(environ)

    def _warn_of_proxy(self, environ: WSGIEnvironment, address: str) -> None:
        """Say why many people have to wait for the wrong passwords of one."""
        if self._guesses.is_full(address) and self._trusts_nobody and _is_forwarded(environ):
            log.warning("A proxy's clients share its address: set TRUSTED_PROXIES=1.")

    def check_password(self, environ: WSGIEnvironment) -> None:
        """Let a request in that has the password, where there is one.

        Raises:
            Unauthorized: it has no password, or a wrong one.
            TooManyGuesses: its address has sent too many wrong ones.
        """
        if self._auth is None:
            return

        given, address = _credentials(environ)
        is_right = self._auth.accepts(given)
        if given and not (is_right and self._is_label_studio(environ)):
            self._warn_of_proxy(environ, address)
            self._guesses.check(address, given, is_right=is_right)
        if is_right:
            return

        if given:
            self._look_up_label_studio()
        raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")

    def body_limit(self, environ: WSGIEnvironment) -> int:
        """Return how many bytes of a request's body are taken, before any is; waits for nothing.

        While an address is refused it is the same with a right password, or it would tell.
        """
        if self._auth is None:
            return self._largest_body
        given, address = _credentials(environ)
        is_refused = self._guesses.is_full(address) and not self._is_label_studio(environ)
        if self._auth.accepts(given) and not is_refused:
            return self._largest_body
        return LARGEST_WEBHOOK if environ["PATH_INFO"] == "/webhook" else 0

    def _is_label_studio(self, environ: WSGIEnvironment) -> bool:
        address = environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
        return address in self._studio and not _is_forwarded(environ)

    def _look_up_label_studio(self) -> None:
        """Find its addresses at each wrong guess: they are known once there are too many."""
        if self._studio_host is not None:
            with suppress(OSError):  # its name is not known now
                found = socket.getaddrinfo(self._studio_host, None)
                self._studio = frozenset(str(address[0]) for *_, address in found)


def _credentials(environ: WSGIEnvironment) -> tuple[str, str]:
    return environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", "")


def _is_forwarded(environ: WSGIEnvironment) -> bool:
    return "HTTP_X_FORWARDED_FOR" in environ


def add_auth(app: Flask, gate: Gate) -> None:
    """Let no request but those of `OPEN_ROUTES` in without the password, if there is one."""

    @app.before_request
    def authorize() -> None:
        gate.check(request.environ)
