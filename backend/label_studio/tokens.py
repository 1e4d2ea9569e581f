"""Send Label Studio's tokens: legacy ones, and personal ones that are exchanged first."""

import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import msgspec
import requests
from urllib3.exceptions import HTTPError

from backend.network.host_rules import HostRules
from backend.network.http import Header, TimeLimit, read_body, request

#: Age at which an access token is exchanged again: Label Studio's live for 300 s.
_RENEW_AFTER_S = 150.0
_MOST_BYTES = 1 << 20

EXCHANGE_PATH = "/api/token/refresh/"

#: Errors of a request to a host that cannot be reached, or that breaks off.
CANNOT_REACH = (requests.RequestException, HTTPError, OSError)


class TokenRefusedError(Exception):
    """Label Studio, or what answers in its place, exchanges a personal token for none."""

    def __init__(self, answer: requests.Response, body: bytes) -> None:
        super().__init__(f"HTTP {answer.status_code}")
        self.answer = answer
        self.body = body


class AccessToken(msgspec.Struct):
    """What a personal token is exchanged for."""

    access: str


class Access:
    """A token and the one server that it is for.

    A legacy token is sent as it is. A personal access token, a JWT, is exchanged for one that lives
    some minutes, which is renewed before it ends, or where the server refuses it.
    """

    def __init__(self, url: str, token: str, rules: HostRules | None = None) -> None:
        self.url = url
        self._token = token
        self._rules = rules  # None where the administrator vouches for the server
        self._lock = threading.Lock()
        self._header = ""
        self._renew_at = 0.0  # on the monotonic clock

    def send(self, ask: Callable[..., requests.Response], limit: TimeLimit) -> requests.Response:
        """Send a request by `ask`, given ``auth``; with a new token where the server refuses one.

        Raises:
            TokenRefusedError: the answer to the exchange is no token.
            OSError, urllib3.exceptions.HTTPError: there is no answer; see `CANNOT_REACH`.
        """
        header = self._authorization(limit)
        answer = ask(auth=Header(header))
        if answer.status_code == 401:
            renewed = self._authorization(limit, refused=header)
            if renewed != header:
                answer.close()
                return ask(auth=Header(renewed))
        return answer

    def _authorization(self, limit: TimeLimit, refused: str | None = None) -> str:
        """Return the value of ``Authorization``; of threads that ask at once one exchanges a token.

        It is exchanged again if `refused`, a value that the server has refused, is still the
        newest.
        """
        if not is_personal(self._token):
            return f"Token {self._token}"
        if not self._lock.acquire(timeout=limit.left_s):
            raise TimeoutError
        try:
            if self._header in ("", refused) or time.monotonic() >= self._renew_at:
                self._header = f"Bearer {self._exchange(limit)}"
                self._renew_at = time.monotonic() + _RENEW_AFTER_S
            return self._header
        finally:
            self._lock.release()

    def _exchange(self, limit: TimeLimit) -> str:
        answer = request(
            "POST",
            f"{self.url.rstrip('/')}{EXCHANGE_PATH}",
            rules=self._rules,
            limit=limit,
            stream=True,
            json={"refresh": self._token},
            auth=Header(None),
        )
        with closing(answer):
            body = read_body(answer, _MOST_BYTES) or b""
        if answer.status_code == 200:
            with suppress(msgspec.DecodeError, RecursionError):
                return msgspec.json.decode(body, type=AccessToken).access
        raise TokenRefusedError(answer, body)


def is_personal(token: str) -> bool:
    """Return whether a token is a personal one: a JWT that is exchanged for access tokens.

    >>> is_personal("c0ffee" * 6 + "beef")
    False
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return False
    return isinstance(claims, dict) and claims.get("token_type") == "refresh"
