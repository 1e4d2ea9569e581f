"""Check basic auth.

Label Studio sends it with everything but webhooks. ``/webhook`` asks for none, as it only makes a
poll come sooner.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachetools import TTLCache
from flask import Flask, request

from backend.errors import TooManyGuesses, Unauthorized
from backend.settings import Settings


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


#: Wrong passwords of an address, after which it waits for so many seconds.
_TRIES: Final = 10
_WAIT_S: Final = 100

#: The most addresses that are remembered.
_MAX_CLIENTS: Final = 4096

#: Routes without a password.
OPEN_ROUTES: Final = ("/health", "/webhook")


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


def add_auth(app: Flask, settings: Settings) -> None:
    """Ask for the password on every route but those of `OPEN_ROUTES`, if the settings hold one.

    Wrong ones are counted. A request without any, as browsers send first, is no guess.
    """
    auth = BasicAuth.from_settings(settings)
    if auth is None:
        return
    guesses = GuessLimit()

    @app.before_request
    def authorize() -> None:
        if request.path in OPEN_ROUTES:
            return
        given = request.headers.get("Authorization", "")
        is_right = auth.accepts(given)
        if given:
            guesses.check(request.remote_addr or "", given, is_right=is_right)
        if not is_right:
            raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")


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
