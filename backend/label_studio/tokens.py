"""Send Label Studio's tokens: legacy ones, and personal ones that are exchanged first."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any, Literal

import requests
from urllib3.exceptions import HTTPError

from backend.errors import ImageRefused
from backend.network.host_rules import HostRules, origin
from backend.network.http import TimeLimit, request

_RENEW_BEFORE_S = 30.0
_DEFAULT_LIFETIME_S = 300.0

#: Errors of a request to a host that cannot be reached, or that breaks off.
CANNOT_REACH = (requests.RequestException, HTTPError, OSError)


class Access:
    """A token and the one server that it is for.

    A legacy token is sent as it is. A personal access token is exchanged for one that lives some
    minutes, which is renewed before it ends, or sooner where the server says that it has.

    Args:
        token: a legacy token, or a personal one (a JWT).
        rules: which addresses may be connected to for it; None where the administrator vouches
            for the server.
    """

    def __init__(self, url: str, token: str, rules: HostRules | None = None) -> None:
        self._url = url
        self._token = token
        self._rules = rules
        self._kind = token_kind(token)
        self._lock = threading.Lock()
        self._header = ""
        self._renew_at = self._failed_at = 0.0  # on the monotonic clock

    def is_for(self, url: str) -> bool:
        """Return whether a URL has the scheme, host and port of this server."""
        return origin(url) == origin(self._url)

    def header(self, limit: TimeLimit, refused: str | None = None) -> str:
        """Return the value of ``Authorization`` for a request.

        Of threads that ask at the same time one exchanges the token; if it fails, it fails for all.

        Args:
            limit: longest time that an exchange may take.
            refused: a value that the server has refused: the token is exchanged again if this
                value is still the newest.
        """
        if self._kind == "legacy":
            return f"Token {self._token}"
        if self._kind == "access":
            return f"Bearer {self._token}"
        asked_at = time.monotonic()
        if not self._lock.acquire(timeout=limit.left_s):
            raise self._unreachable()
        try:
            if self._failed_at > asked_at:
                raise self._unreachable()
            if self._header in ("", refused) or time.monotonic() >= self._renew_at:
                self._renew(self._exchange(limit))
            return self._header
        finally:
            self._lock.release()

    def _renew(self, access: str) -> None:
        claims = _claims(access)
        try:
            lifetime_s = float(claims["exp"]) - float(claims["iat"])
        except (KeyError, TypeError, ValueError):
            lifetime_s = _DEFAULT_LIFETIME_S
        self._header = f"Bearer {access}"
        self._renew_at = time.monotonic() + lifetime_s - min(_RENEW_BEFORE_S, lifetime_s / 2)

    def _exchange(self, limit: TimeLimit) -> str:
        try:
            response = request(
                "POST",
                f"{self._url}/api/token/refresh/",
                rules=self._rules or HostRules(),
                trusted=self._rules is None,
                limit=limit,
                json={"refresh": self._token},
                auth=Header(None),
            )
            answer = response.json() if response.status_code == 200 else None
        except CANNOT_REACH:  # includes the error of requests for a body that is no JSON
            self._failed_at = time.monotonic()
            raise self._unreachable() from None
        access = answer.get("access") if isinstance(answer, dict) else None
        if not isinstance(access, str):
            raise ImageRefused(
                f"Label Studio at {self._url} refused the personal access token of this backend "
                f"(HTTP {response.status_code}): make a new one and set LABEL_STUDIO_API_KEY."
            )
        return access

    def _unreachable(self) -> ImageRefused:
        return ImageRefused(f"Label Studio at {self._url} cannot be reached.")


class Header(requests.auth.AuthBase):
    """Sends a value of ``Authorization`` or none, never one of a .netrc of this machine."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


def token_kind(token: str) -> Literal["legacy", "personal", "access"]:
    """Return the kind of a token; a personal token is exchanged for access tokens.

    >>> token_kind("c0ffee" * 6 + "beef")
    'legacy'
    """
    kind = _claims(token).get("token_type")
    if kind is None:
        return "legacy"
    return "personal" if kind == "refresh" else "access"


def _claims(token: str) -> dict[str, Any]:
    """Read the claims of a JWT without verifying it; none of a legacy token (40 hex digits)."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
