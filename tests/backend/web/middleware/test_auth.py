"""Basic auth as browsers and as Label Studio write it, and slow guesses."""

import base64
import itertools
from typing import Any

import pytest
import requests

from backend.errors import TooManyGuesses, Unauthorized
from backend.settings import Settings, load_settings
from backend.web.middleware.auth import BasicAuth, Gate, GuessLimit
from tests.backend.conftest import Clock
from tests.backend.web.browser import error_of, make_app

NUMBERS = itertools.count()
ANN = {"basic_auth_user": "ann", "basic_auth_pass": "secret"}


def by_requests(user: str, password: str) -> str:
    """What `requests`, and with it Label Studio, sends."""
    prepared = requests.Request("GET", "http://x", auth=(user, password)).prepare()
    return str(prepared.headers["Authorization"])


@pytest.mark.parametrize("password", ["secret", "a:b:c", "größe"])
def test_the_right_password_in_both_encodings(password: str) -> None:
    auth = BasicAuth("ann", password)
    utf_8 = "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()
    assert auth.header == utf_8
    assert auth.accepts(utf_8.replace("Basic", "basic"))
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


def test_it_comes_with_both_settings_and_hides_the_password() -> None:
    assert BasicAuth.from_settings(load_settings()) is None
    auth = BasicAuth.from_settings(load_settings(**ANN))
    assert auth == BasicAuth("ann", "secret")
    assert "secret" not in repr(auth)
    with pytest.raises(ValueError, match="hold something"):
        BasicAuth("ann", "")


@pytest.fixture
def limit(clock: Clock) -> GuessLimit:
    return GuessLimit(clock)


def is_checked(limit: GuessLimit, address: str, password: str) -> bool:
    """Whether the limit lets a password be told right or wrong; the right one is "right"."""
    try:
        limit.check(address, password, is_right=password == "right")
    except TooManyGuesses:
        return False
    return True


def guesses(limit: GuessLimit, address: str, count: int) -> int:
    """How many of so many wrong passwords, each another one, are checked."""
    return sum(is_checked(limit, address, f"wrong {next(NUMBERS)}") for _ in range(count))


def test_an_address_has_ten_tries_then_none_for_a_while(limit: GuessLimit, clock: Clock) -> None:
    assert guesses(limit, "192.0.2.1", 1000) == 10
    assert not is_checked(limit, "192.0.2.1", "right"), "a 200 would tell that it is right"
    assert is_checked(limit, "192.0.2.2", "right")
    clock.now += 99
    assert not is_checked(limit, "192.0.2.1", "right")
    clock.now += 2
    assert is_checked(limit, "192.0.2.1", "right")
    assert guesses(limit, "192.0.2.1", 1000) == 10


def test_a_network_of_ipv6_is_one_address(limit: GuessLimit) -> None:
    assert sum(guesses(limit, f"2001:db8:1:2::{i:x}", 5) for i in range(100)) == 10
    assert is_checked(limit, "2001:db8:1:3::1", "right")
    assert guesses(limit, "::ffff:192.0.2.1", 20) + guesses(limit, "192.0.2.1", 20) == 10
    assert guesses(limit, "", 20) == 10


def test_a_wrong_password_that_is_repeated_is_one_guess(limit: GuessLimit) -> None:
    """As Label Studio sends an old one that it has stored, with every call."""
    assert all(is_checked(limit, "192.0.2.1", "old") for _ in range(1000))
    assert is_checked(limit, "192.0.2.1", "right")


def test_the_application_slows_guesses_down() -> None:
    client = make_app(**ANN).test_client()

    def ask(password: str = "", path: str = "/status", address: str = "192.0.2.1") -> Any:
        auth = ("ann", password) if password else None
        return client.get(path, environ_base={"REMOTE_ADDR": address}, auth=auth)

    assert [ask().status_code for _ in range(20)] == [401] * 20, "no password is no guess"
    assert ask().headers["WWW-Authenticate"].startswith("Basic")
    assert [ask(f"wrong {i}").status_code for i in range(12)] == [401] * 10 + [429] * 2
    refused = ask("secret")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "100")
    assert "Too many wrong passwords" in error_of(refused)
    assert ask("wrong", "/health").status_code == 200
    assert ask("secret", address="192.0.2.2").status_code == 200


def test_label_studio_is_let_in_whoever_guesses_there(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app(**ANN, label_studio_url="http://192.0.2.1:8080").test_client()

    def ask(password: str, address: str = "192.0.2.1", **headers: str) -> int:
        where = {"REMOTE_ADDR": address}
        answer = client.get("/status", environ_base=where, auth=("ann", password), headers=headers)
        return answer.status_code

    for address in ("192.0.2.1", "192.0.2.2"):
        assert [ask(f"wrong {i}", address) for i in range(11)] == [401] * 10 + [429]
    assert ask("secret") == 200
    assert ask("wrong") == 429
    assert ask("secret", "192.0.2.2") == 429
    proxied = {"X-Forwarded-For": "198.51.100.7"}
    assert ask("secret", **proxied) == 429, "a proxy on that machine hands on what strangers send"
    assert "set TRUSTED_PROXIES=1" in caplog.text


@pytest.mark.parametrize("guessed", [0, 10])
def test_the_server_takes_the_body_of_none_but_who_is_let_in(guessed: int) -> None:
    gate = Gate(Settings(**ANN, max_body_mb=1, label_studio_url="http://192.0.2.9"))  # type: ignore[arg-type]

    def limit(password: str, path: str = "/predict", address: str = "192.0.2.1") -> int:
        environ = {"PATH_INFO": path, "REMOTE_ADDR": address}
        if password:
            environ["HTTP_AUTHORIZATION"] = by_requests("ann", password)
        return gate.body_limit(environ)

    for address in ("192.0.2.1", "192.0.2.9"):
        for i in range(guessed):
            given = {"HTTP_AUTHORIZATION": by_requests("ann", f"wrong {i}")}
            with pytest.raises(Unauthorized):
                gate.check({"PATH_INFO": "/", "REMOTE_ADDR": address, **given})
    assert limit("secret") == (0 if guessed else 1 << 20), "or it would tell that it is right"
    assert limit("secret", address="192.0.2.9") == 1 << 20
    assert limit("wrong") == limit("") == limit("", "/health") == 0
    assert 0 < limit("", "/webhook") < 16 << 20
