"""Check basic auth.

Label Studio sends it with everything but webhooks. ``/webhook`` asks for none, as it only makes a
poll come sooner.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final

from flask import Flask, request

from backend.errors import Unauthorized
from backend.settings import Settings
from backend.web.middleware.guess_limit import GuessLimit

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
