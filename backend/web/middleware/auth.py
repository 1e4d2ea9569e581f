"""Who may ask the backend: whoever has its user name and password, and for the webhook its token.

Label Studio sends basic auth with everything but webhooks, which it calls without any. So there is
a token for the webhook alone, made from the password: it opens nothing else, tells nothing of the
password, and is the same in every process that has the same one. It comes with the webhook's own
headers (``Authorization: Bearer ...``), which ``clearclip-backend doctor --fix`` sets in Label
Studio, or in its address (``/webhook?token=...``).
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


@dataclass(frozen=True)
class BasicAuth:
    """A user name and a password.

    Raises:
        ValueError: either is empty.

    >>> lock = BasicAuth("ann", "secret")
    >>> lock.opens("Basic YW5uOnNlY3JldA=="), lock.opens("Basic YW5uOndyb25n"), lock.opens("")
    (True, False, False)
    >>> lock.opens_webhook(lock.webhook_token), lock.opens_webhook("secret")
    (True, False)
    """

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or not self.password:
            raise ValueError("Expected arguments `user` and `password` to hold something.")

    @classmethod
    def from_settings(cls, settings: Settings) -> BasicAuth | None:
        """The lock that settings describe; None where everybody may ask."""
        user, password = settings.basic_auth_user, settings.basic_auth_pass
        if user is None or password is None:
            return None
        return cls(user, password.get_secret_value())

    @property
    def webhook_token(self) -> str:
        """64 hex digits: HMAC-SHA256 of a fixed text and the user's name under the password."""
        text = f"clearclip webhook {self.user}".encode()
        return hmac.new(self.password.encode(), text, hashlib.sha256).hexdigest()

    @property
    def header(self) -> str:
        """The value of ``Authorization`` that opens everything."""
        return "Basic " + base64.b64encode(self._pairs[0]).decode()

    def opens(self, authorization: str) -> bool:
        """Whether this value of ``Authorization`` opens everything; in constant time."""
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        fits = [hmac.compare_digest(given, pair) for pair in self._pairs]
        return any(fits) and scheme.lower() == "basic"

    def opens_webhook(self, token: str) -> bool:
        """Whether this token opens the webhook; in constant time."""
        return hmac.compare_digest(token.encode(), self.webhook_token.encode())

    @property
    def _pairs(self) -> list[bytes]:
        """As browsers write it, and as Label Studio does."""
        pair = f"{self.user}:{self.password}"
        return [pair.encode(), pair.encode("latin-1", "xmlcharrefreplace")]


def add_auth(app: Flask, settings: Settings) -> None:
    lock = BasicAuth.from_settings(settings)
    if lock is None:
        return

    @app.before_request
    def authorize() -> None:
        if request.path == "/health":
            return
        authorization = request.headers.get("Authorization", "")
        if lock.opens(authorization):
            return
        if request.path == "/webhook" and (
            lock.opens_webhook(request.args.get("token", ""))
            or lock.opens_webhook(authorization.removeprefix("Bearer "))
        ):
            return
        raise Unauthorized("Expected basic auth with BASIC_AUTH_USER and BASIC_AUTH_PASS.")
