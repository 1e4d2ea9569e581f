"""One line an event, with what it is about, never with a secret; and how tasks are followed."""

import base64
import io
import json
import logging
import logging.config
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import make_url

from backend.errors import ImageNotFound
from backend.settings import Settings
from backend.telemetry.logs import about, known_secrets, logging_config, scrub, stage, timed
from backend.telemetry.task_tracker import PACE_S, TaskTracker, TrackedTask

PASSWORD = "correct-horse-7"
KEY = "0123456789abcdef0123456789abcdef01234567"
OTHER_KEY = "fedcba9876543210fedcba9876543210fedcba98"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl"

Logged = Callable[..., io.StringIO]


def make_settings(**given: Any) -> Settings:
    return Settings(
        label_studio_url="http://127.0.0.1:9",
        label_studio_api_key=KEY,
        basic_auth_user="ann",
        basic_auth_pass=PASSWORD,
        **given,
    )


@pytest.fixture
def logged() -> Logged:
    """Set logging up as `serve` does; the value is what stderr would get."""

    def set_up(level: str = "DEBUG", **given: Any) -> io.StringIO:
        stream = io.StringIO()
        config = logging_config(make_settings(**given), level)
        config["handlers"]["stderr"]["stream"] = stream
        logging.config.dictConfig(config)
        return stream

    return set_up


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_for_people_and_one_for_machines(logged: Logged) -> None:
    written = []
    for log_format in ("text", "json"):
        stream = logged(log_format=log_format)
        task = TaskTracker().task("sieben ä", 3, "batch")
        with about(request="r1"), task as work, stage("fetch"):
            work.regions = 5
        written += lines(stream)
    people, machines = written
    assert " INFO backend.telemetry.task_tracker: Task sieben ä: 5 regions (" in people
    for part in ("request=r1", "project=3", "urgency=batch", "ms=0", "fetch_ms=0"):
        assert part in people
    event = json.loads(machines)
    assert event.pop("time").endswith("Z")
    said = {"level": "INFO", "logger": "backend.telemetry.task_tracker"}
    said |= {"message": "Task sieben ä: 5 regions", "request": "r1", "urgency": "batch"}
    assert event == said | {"project": 3, "task": "sieben ä", "ms": 0, "fetch_ms": 0}


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


def test_what_runs_is_seen_with_its_stage() -> None:
    tracker = TaskTracker()
    with tracker.task(1, 3, "batch"), tracker.task(2, 4, "interactive"), stage("model"):
        first, second = tracker.running
        assert (first.task, first.project, first.priority, first.stages.now) == (1, 3, "batch", "")
        assert (second.task, second.project, second.stages.now) == (2, 4, "model")
    assert tracker.running == []


def test_refused_requests_are_remembered_and_not_for_ever() -> None:
    tracker = TaskTracker()
    for number in range(30):
        tracker.refused(f"Request {number} is too large.")
    sentences = [each.sentence for each in tracker.refusals]
    assert (len(sentences), sentences[-1]) == (20, "Request 29 is too large.")


def test_the_pace_is_that_of_the_last_minute() -> None:
    now = [1000.0]
    tracker = TaskTracker(clock=lambda: now[0])
    now[0] += 20
    for task in range(40):
        with tracker.task(task, 1, "batch") as work:
            work.images = 1
    assert tracker.images_per_second == pytest.approx(40 / 20)
    now[0] += 50
    assert tracker.images_per_second == pytest.approx(40 / PACE_S)
    with tracker.task(1, 1, "batch") as work:
        work.images = 5
    assert tracker.images_per_second == pytest.approx(45 / PACE_S)
    now[0] += 61
    assert tracker.images_per_second == 0


def test_a_record_says_who_what_why_and_when(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[TrackedTask] = []
    tracker = TaskTracker(heard.append)
    with pytest.raises(ZeroDivisionError), tracker.task(1, 1, "batch"):
        raise ZeroDivisionError
    assert (heard[0].has_prediction, type(heard[0].error).__name__) == (False, "ZeroDivisionError")
    assert (tracker.running, tracker.done) == ([], 0)
    caplog.clear()
    reason = "Predicted without 1 of 3 pictures: there is no file."
    with tracker.task(7, 3, "opened") as work:
        with stage("fetch"):
            work.regions = 5
        work.incomplete(ImageNotFound(reason))
    record = heard[1]
    assert (record.task, record.priority, record.regions) == (7, "opened", 5)
    assert (record.has_prediction, type(record.error).__name__) == (True, "ImageNotFound")
    assert set(record.stages.seconds) == {"fetch"}
    assert 0 <= record.stages.seconds["fetch"] <= record.seconds
    assert tracker.done == 1
    (line,) = caplog.records
    assert (line.levelname, line.getMessage()) == ("WARNING", f"Task 7: 5 regions. {reason}")
