"""Guessing passwords is slow; whoever has the right one waits for nobody."""

from __future__ import annotations

import base64
import itertools
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest

from backend.errors import TooManyGuesses
from backend.web.middleware.auth import GuessLimit
from tests.backend.web.requests_to_app import error_of, make_app

NUMBERS = itertools.count()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> GuessLimit:
    return GuessLimit(clock)


def is_checked(limit: GuessLimit, address: str, password: str) -> bool:
    """Whether the limit lets a password be told right or wrong; the right one is "right"."""
    try:
        limit.count(address, password, is_right=password == "right")
    except TooManyGuesses:
        return False
    return True


def guesses(limit: GuessLimit, address: str, count: int) -> int:
    """How many of so many wrong passwords, each another one, are checked."""
    return sum(is_checked(limit, address, f"wrong {next(NUMBERS)}") for _ in range(count))


def test_an_address_has_some_tries_and_then_one_now_and_then(
    limit: GuessLimit, clock: Clock
) -> None:
    assert guesses(limit, "192.0.2.1", 1000) == 10
    assert not is_checked(limit, "192.0.2.1", "right"), "a 200 would tell that it is right"
    clock.now += 9.9
    assert not is_checked(limit, "192.0.2.1", "right")
    clock.now += 0.2
    assert is_checked(limit, "192.0.2.1", "right")
    clock.now += 3600
    assert guesses(limit, "192.0.2.2", 1000) == 10


def test_who_has_had_it_right_is_never_held_up(limit: GuessLimit) -> None:
    assert is_checked(limit, "192.0.2.1", "right")
    guesses(limit, "192.0.2.1", 1000)
    for number in range(1000):
        guesses(limit, f"198.51.100.{number % 250}", 2)
        assert is_checked(limit, "192.0.2.1", "right")


def test_a_network_of_ipv6_is_one_address(limit: GuessLimit) -> None:
    checked = sum(guesses(limit, f"2001:db8:1:2::{i:x}", 5) for i in range(100))
    assert checked == 10
    assert is_checked(limit, "2001:db8:1:3::1", "right")
    assert guesses(limit, "::ffff:192.0.2.1", 20) + guesses(limit, "192.0.2.1", 20) == 10
    assert guesses(limit, "", 20) == 10


def test_a_wrong_password_that_is_repeated_is_no_guess(limit: GuessLimit) -> None:
    """As Label Studio sends an old one that it has stored, with every call."""
    assert all(is_checked(limit, "192.0.2.1", "old") for _ in range(1000))
    assert is_checked(limit, "192.0.2.1", "right")


def test_memory_is_bounded(limit: GuessLimit) -> None:
    def ask(first: int) -> None:
        for i in range(first, first + 6000):
            address = f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"
            is_checked(limit, address, "wrong" * 1000)
            is_checked(limit, f"11{address[2:]}", "right")

    ask(0)
    tracemalloc.start()
    ask(100_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ask(200_000)
    assert grown < 20 << 20
    assert len(limit._clients) <= 4096


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()}


def test_the_application_slows_guesses_down() -> None:
    client = make_app(basic_auth_user="ann", basic_auth_pass="secret").test_client()

    def ask(path: str = "/status", address: str = "192.0.2.1", **more: Any) -> Any:
        return client.get(path, environ_base={"REMOTE_ADDR": address}, **more)

    assert ask(address="192.0.2.9", headers=basic("secret")).status_code == 200
    assert [ask().status_code for _ in range(100)] == [401] * 100, "no password is no guess"
    statuses = [ask(headers=basic(f"wrong {i}")).status_code for i in range(30)]
    assert statuses == [401] * 10 + [429] * 20
    refused = ask(headers=basic("secret"))
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert "WWW-Authenticate" not in refused.headers
    assert "Too many wrong passwords" in error_of(refused)
    assert ask("/health", headers=basic("wrong")).status_code == 200
    assert ask(address="192.0.2.2", headers=basic("secret")).status_code == 200
    assert ask(address="192.0.2.9", headers=basic("secret")).status_code == 200
