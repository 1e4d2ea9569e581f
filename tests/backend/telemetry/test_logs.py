"""One line an event, with what it is about, never with a secret; and how tasks are followed."""

import base64
import json
import logging
import logging.config
import time
from contextlib import suppress
from urllib.parse import unquote

import pytest
from sqlalchemy import make_url

from backend.telemetry.logs import about, known_secrets, scrub, stage, timed
from tests.backend.telemetry.logged import KEY, PASSWORD, Logged, lines, make_settings

OTHER_KEY = "fedcba9876543210fedcba9876543210fedcba98"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_unexpected_error_is_one_line(logged: Logged, log_format: str) -> None:
    stream = logged(log_format=log_format)

    def fail() -> None:
        try:
            {}["nothing"]
        except KeyError as error:
            raise ZeroDivisionError("two\nlines") from error

    try:
        fail()
    except ZeroDivisionError:
        logging.getLogger("backend.x").exception("It failed")
    (line,) = lines(stream)
    assert "ZeroDivisionError: two\\" in line
    assert "test_logs.py:" in line
    assert " fail < " in line
    assert "because of KeyError" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_forges_a_line(logged: Logged, log_format: str) -> None:
    stream = logged(log_format=log_format)
    forged = "1\n2026-01-01 00:00:00 ERROR root: forged\r\x1b[31m\u2028x"
    with about(task=forged):
        logging.getLogger("backend.x").warning("Task %s", forged)
    assert len(lines(stream)) == 1
    assert "\x1b" not in stream.getvalue()
    if log_format == "json":
        json.loads(stream.getvalue())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see data:image/png;base64,iVBORw0KGgo= here", "see data:… here"),
        ("'data:,x%20y'", "'data:…'"),
        ("http://ann:secret@host/a.png", "http://…@host/a.png"),
        ("https://h/a.png?X-Amz-Signature=ab12&x=1 failed", "https://h/a.png?… failed"),
        ("/data/local-files/?d=a/b.png&token=1", "/data/local-files/?d=a/b.png&…"),
        ("/jobs?token=abc", "/jobs?…"),
        ("Authorization: Basic YW5uOnNlY3JldA==", "Authorization: Basic …"),
        ("{'Authorization': 'Token " + OTHER_KEY + "'}", "{'Authorization': 'Token …'}"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "…", "x": 1}'),
        ("password=hunter2", "password=…"),
        (f"it is {OTHER_KEY}.", "it is …."),
        (f"it is {JWT}!", "it is …!"),
        (f"it is {JWT}.", "it is …."),
        ("rle " + "A1b2" * 100, "rle …"),
    ],
)
def test_what_looks_like_a_secret_is_cut_out(text: str, clean: str) -> None:
    assert scrub(text) == clean


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "word", ["a", "token", "eyJ-", "eyJa.", "?d=", "?a", "#d=&", "data:", "//a@", "token '", "="]
)
def test_long_texts_are_searched_in_a_short_time(word: str) -> None:
    """A search whose time grows with the square of the length takes hours for this."""
    scrub(word * (1_000_000 // len(word)), length=1_000_000)


@pytest.mark.parametrize("written", ["open[sesame", "open/sesame", "open#sesame", "open%40sesame"])
def test_all_secrets_of_the_settings_are_known_whatever_signs_they_have(written: str) -> None:
    url = f"postgresql+psycopg://u:{written}@h/n"
    secrets = set(known_secrets(make_settings(database_url=url)))
    pair = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    assert {KEY, PASSWORD, pair, written, unquote(written), make_url(url).password} <= secrets
    assert written not in scrub(f"connection of u with {written} refused", secrets)


def test_no_half_of_a_secret_is_left_where_a_long_text_is_cut_off() -> None:
    """With the picture out of a text that was cut before, the secret's end would be shown."""
    picture = f"data:image/png;base64,{'A' * 7950}"
    clean = scrub(f"{picture} http://ann:open-sesame@host/a {'more ' * 500}")
    assert clean.startswith("data:… http://…@host/a more")
    assert len(clean) == 2001


def test_stages_are_counted_once_also_failed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    with timed() as stages:
        with stage("draw"):
            now[0] += 1
            with stage("decide"):
                now[0] += 2
                with stage("model"):
                    now[0] += 4
            now[0] += 8
            with stage("model"):
                now[0] += 16
        with suppress(KeyError), stage("draw"), stage("fetch"):
            now[0] += 32
            raise KeyError
        assert stages.now == ""
    assert stages.seconds == {"draw": 9, "decide": 2, "model": 20, "fetch": 32}
