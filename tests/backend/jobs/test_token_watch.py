"""Whether Label Studio accepts the token, against a stand-in for its API."""

from __future__ import annotations

import pytest

from backend.jobs.connection_watch import TokenWatch
from backend.label_studio.client import LabelStudioClient
from tests.backend.conftest import Clock
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio("", {})


@pytest.fixture
def watch(server: LocalServer, clock: Clock) -> TokenWatch:
    return TokenWatch(LabelStudioClient(server.url, TOKEN, retry_for_s=0), clock)


def test_a_token_that_is_accepted_is_tried_at_the_start_and_every_five_minutes(
    watch: TokenWatch, server: LocalServer, clock: Clock
) -> None:
    for _ in range(60):
        watch.check()
        clock.now += 10
    assert watch.trouble == ""
    assert [each.path for each in server.asked] == ["/api/current-user/whoami"] * 2


def test_a_token_that_was_replaced_is_said_once_in_the_log(
    watch: TokenWatch, studio: FakeStudio, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    watch.check()
    studio.token = "cd" * 20
    clock.now += 301
    for _ in range(4):
        watch.check()
        clock.now += 31
    assert "refuses the token of this backend (HTTP 401)" in watch.trouble
    assert "Set LABEL_STUDIO_API_KEY" in watch.trouble
    assert [each.levelname for each in caplog.records if "refuses the token" in each.message] == [
        "ERROR"
    ]
    assert TOKEN not in caplog.text
    studio.token = TOKEN
    watch.check()
    assert watch.trouble == ""


def test_a_label_studio_that_is_away_is_no_matter_of_the_token(
    watch: TokenWatch, studio: FakeStudio, caplog: pytest.LogCaptureFixture
) -> None:
    studio.fault = lambda asked: Answer(503)
    watch.check()
    assert "HTTP 503" in watch.trouble
    assert "token" not in watch.trouble
    assert "WARNING" in caplog.text
    assert "ERROR" not in caplog.text, "it may be starting, as with Compose"


def test_without_a_token_nothing_is_tried(clock: Clock) -> None:
    watch = TokenWatch(None, clock)
    watch.check()
    assert watch.trouble == ""
