"""Check basic auth, and the webhook's own token.

Label Studio sends basic auth with everything but webhooks, which it calls without any. The webhook
therefore accepts a token of its own, derived from the password. The token opens no other route,
does not reveal the password, and is equal in all processes with the same user and password. It
comes in a header of the webhook (``Authorization: Bearer ...``), which
``clearclip-backend doctor --fix`` sets in Label Studio, or in its address (``/webhook?token=...``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from flask import Flask, request

from backend.errors import Unauthorized
from backend.settings import Settings
from backend.web.middleware.guess_limit import GuessLimit


@dataclass(frozen=True)
class BasicAuth:
    """Compare credentials of requests with a user name and a password.

    Raises:
        ValueError: the user name or the password is empty.

    >>> auth = BasicAuth("ann", "secret")
    >>> auth.accepts("Basic YW5uOnNlY3JldA=="), auth.accepts("Basic YW5uOndyb25n")
    (True, False)
    >>> auth.accepts_webhook(auth.webhook_token), auth.accepts_webhook("secret")
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
    def webhook_token(self) -> str:
        """64 hex digits: HMAC-SHA256 of a fixed text and the user name, keyed by the password."""
        text = f"clearclip webhook {self.user}".encode()
        return hmac.new(self.password.encode(), text, hashlib.sha256).hexdigest()

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

    def accepts_webhook(self, token: str) -> bool:
        """Tell whether a token is right for the webhook; in constant time."""
        return hmac.compare_digest(token.encode(), self.webhook_token.encode())

    @property
    def _pairs(self) -> list[bytes]:
        """``user:password`` in UTF-8, as browsers send it, and in Latin-1, as `requests` does."""
        pair = f"{self.user}:{self.password}"
        return [pair.encode(), pair.encode("latin-1", "xmlcharrefreplace")]


def add_auth(app: Flask, settings: Settings) -> None:
    """Ask for the password on every route but ``/health``, if the settings hold one.

    Wrong ones are counted. A request without any, as browsers send first, is no guess.
    """
    auth = BasicAuth.from_settings(settings)
    if auth is None:
        return
    guesses = GuessLimit()

    @app.before_request
    def authorize() -> None:
        if request.path == "/health":
            return
        is_right = _is_authorized(auth)
        if credentials := _credentials():
            guesses.count(request.remote_addr or "", credentials, is_right=is_right)
        if not is_right:
            raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")


def _credentials() -> str:
    """Return what the current request has in place of a password; empty where it has nothing."""
    authorization = request.headers.get("Authorization", "")
    token = request.args.get("token", "") if request.path == "/webhook" else ""
    return f"{authorization}\n{token}" if authorization or token else ""


def _is_authorized(auth: BasicAuth) -> bool:
    authorization = request.headers.get("Authorization", "")
    if auth.accepts(authorization):
        return True
    return request.path == "/webhook" and (
        auth.accepts_webhook(request.args.get("token", ""))
        or auth.accepts_webhook(authorization.removeprefix("Bearer "))
    )
