"""Basic auth as browsers and as Label Studio write it, and the webhook's own token."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
import requests

from backend.settings import load_settings
from backend.web.middleware.auth import BasicAuth


def by_requests(user: str, password: str) -> str:
    """What `requests`, and with it Label Studio, sends."""
    prepared = requests.Request("GET", "http://x", auth=(user, password)).prepare()
    return str(prepared.headers["Authorization"])


@pytest.mark.parametrize("password", ["secret", "pass word", "a:b:c", "größe", "日本"])
def test_the_right_password_in_both_encodings(password: str) -> None:
    auth = BasicAuth("ann", password)
    utf_8 = "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()
    assert auth.header == utf_8
    assert auth.accepts(utf_8)
    assert auth.accepts(utf_8.replace("Basic", "basic"))
    if password != "日本":  # no latin letters, and so nothing that Label Studio could send
        assert auth.accepts(by_requests("ann", password))


@pytest.mark.parametrize(
    "authorization",
    [
        *("", "Basic", "Basic ", "Basic !!", "Basic é", "Bearer x", "Basic YW5u"),
        by_requests("ann", "wrong"),
        by_requests("bob", "secret"),
        by_requests("ann", "secret").replace("Basic", "Bearer"),
        by_requests("ann", "secret ") + "=",
        "ann:secret",
    ],
)
def test_all_else_is_refused(authorization: str) -> None:
    assert not BasicAuth("ann", "secret").accepts(authorization)


def test_the_webhooks_token_is_made_from_both_and_nothing_else_is_accepted() -> None:
    auth = BasicAuth("ann", "secret")
    expected = hmac.new(b"secret", b"clearclip webhook ann", hashlib.sha256).hexdigest()
    assert auth.webhook_token == expected
    assert auth.accepts_webhook(expected)
    assert not auth.accepts(f"Bearer {expected}")
    others = [BasicAuth("ann", "other"), BasicAuth("bob", "secret")]
    assert not any(other.accepts_webhook(expected) for other in others)
    assert not any(map(auth.accepts_webhook, ("", "ä", expected[:-1], expected + " ", "secret")))


def test_it_comes_with_both_settings_and_hides_the_password() -> None:
    assert BasicAuth.from_settings(load_settings()) is None
    auth = BasicAuth.from_settings(load_settings(basic_auth_user="ann", basic_auth_pass="secret"))
    assert auth == BasicAuth("ann", "secret")
    assert "secret" not in repr(auth)
    with pytest.raises(ValueError, match="hold something"):
        BasicAuth("ann", "")
