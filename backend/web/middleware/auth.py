"""Check basic auth.

Label Studio sends it with everything but webhooks. ``/webhook`` asks for none, as it only makes a
poll come sooner.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache
from flask import Flask, request

from backend.errors import TooManyGuesses, Unauthorized
from backend.settings import Settings


def client_network(address: str) -> str:
    """Return what counts as one address: of IPv6, the network that a site has to itself.

    >>> client_network("2001:db8:1:2:3:4:5:6"), client_network("::ffff:192.0.2.1")
    ('2001:db8:1:2::/64', '192.0.2.1')
    >>> client_network("192.0.2.1")
    '192.0.2.1'
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket of this machine has none
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


#: Tries of an address, and the time after which it gets one back, in seconds.
_TRIES: Final = 10
_TRY_EVERY_S: Final = 10.0

#: The most addresses that are remembered, and wrong passwords of each, as digests.
_MAX_CLIENTS: Final = 4096
_REMEMBERED: Final = 16

#: Routes without a password.
_OPEN: Final = ("/health", "/webhook")


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
    """Ask for the password on every route but those of `_OPEN`, if the settings hold one.

    Wrong ones are counted. A request without any, as browsers send first, is no guess.
    """
    auth = BasicAuth.from_settings(settings)
    if auth is None:
        return
    guesses = GuessLimit()

    @app.before_request
    def authorize() -> None:
        if request.path in _OPEN:
            return
        given = request.headers.get("Authorization", "")
        is_right = auth.accepts(given)
        if given:
            guesses.count(request.remote_addr or "", given, is_right=is_right)
        if not is_right:
            raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")


@dataclass
class _Client:
    """The tries that an address has left, and what it has sent."""

    at: float
    left: float = float(_TRIES)
    was_right: bool = False
    refused: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class GuessLimit:
    """Counts wrong passwords by address; any number of threads may share it.

    A wrong password costs a try; an address gets its tries back one by one. Where it has none
    left, the answer is HTTP 429 whether the password is right or not, or the answer would tell. An
    address at which the password was right once has it checked at any time. A wrong one that is
    repeated is no guess: Label Studio sends the one that it has stored.

    Args:
        clock: seconds on a clock that is never set back.

    >>> limit = GuessLimit()
    >>> limit.count("192.0.2.1", "Basic YTph", is_right=False)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._clients: LRUCache[str, _Client] = LRUCache(_MAX_CLIENTS)

    def count(self, address: str, credentials: str, *, is_right: bool) -> None:
        """Count the credentials of a request from the address of a client.

        Raises:
            TooManyGuesses: no try is left for that address; says nothing of the credentials.
        """
        digest = hashlib.blake2b(credentials.encode("utf-8", "replace"), key=self._key).digest()
        with self._lock:
            now = self._clock()
            client = self._clients.setdefault(client_network(address), _Client(now))
            if client.was_right if is_right else digest in client.refused:
                return
            client.left = min(float(_TRIES), client.left + (now - client.at) / _TRY_EVERY_S)
            client.at = now
            if client.left < 1:
                raise TooManyGuesses(math.ceil((1 - client.left) * _TRY_EVERY_S))
            if is_right:
                client.was_right = True
            else:
                client.left -= 1
                client.refused.append(digest)
