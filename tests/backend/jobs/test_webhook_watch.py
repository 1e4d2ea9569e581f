"""Which connected projects have no webhook, against a stand-in for Label Studio's API.

The real one: `tests/e2e/test_dashboard.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.jobs.webhook_watch import WebhookWatch
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.settings import Settings
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer

CONFIG = brush_config("red")
UNLEARNED = CONFIG.replace("<BrushLabels", '<BrushLabels adapt="off"')
HOOK = {"id": 3, "project": 7, "url": "http://here:9090/webhook", "is_active": True}


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(CONFIG, {}, backends=[{"id": 1, "url": "http://here:9090", "project": 7}])


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


def made(server: LocalServer, clock: Clock, **settings: Any) -> WebhookWatch:
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)
    return WebhookWatch(Settings(**settings), client, clock)


def after_setup(
    server: LocalServer, clock: Clock, config: str = CONFIG, **settings: Any
) -> WebhookWatch:
    """A watch that has seen project 7 connected, and has checked it."""
    watch = made(server, clock, **settings)
    watch.note_setup(7, parse_label_config(config))
    clock.now += 60
    watch.check()
    return watch


def paths(server: LocalServer) -> list[str]:
    return [asked.path for asked in server.asked]


def test_a_project_without_a_webhook_is_named(server: LocalServer, clock: Clock) -> None:
    assert after_setup(server, clock).without_webhook == (7,)


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"project": 8}, {"url": "http://there:9090/webhook"}]
)
def test_webhooks_that_do_not_tell_of_it(
    studio: FakeStudio, server: LocalServer, clock: Clock, change: dict[str, Any]
) -> None:
    studio.webhooks = [HOOK | change]
    assert after_setup(server, clock).without_webhook == (7,)


@pytest.mark.parametrize("change", [{}, {"project": None}, {"url": HOOK["url"] + "?token=abc"}])
def test_webhooks_that_do(
    studio: FakeStudio, server: LocalServer, clock: Clock, change: dict[str, Any]
) -> None:
    studio.webhooks = [HOOK | change]
    assert after_setup(server, clock).without_webhook == ()


def test_setup_itself_asks_nothing_and_leaves_time_to_connect(
    server: LocalServer, clock: Clock
) -> None:
    watch = made(server, clock)
    watch.note_setup(7, parse_label_config(CONFIG))
    watch.check()
    assert paths(server) == []
    assert watch.without_webhook == ()


@pytest.mark.parametrize(
    ("config", "settings", "expected"),
    [
        (CONFIG, {"adapt": "off"}, ()),
        (CONFIG, {"adapt": "off", "auto_prelabel": "7"}, (7,)),
        (CONFIG, {"adapt": "off", "auto_prelabel": "8"}, ()),
        (UNLEARNED, {}, ()),
        (
            CONFIG.replace("<BrushLabels", '<BrushLabels prelabel="auto"'),
            {"adapt": "off"},
            (7,),
        ),
    ],
)
def test_what_asks_for_no_webhook_misses_none(
    server: LocalServer, clock: Clock, config: str, settings: Any, expected: tuple[int, ...]
) -> None:
    assert after_setup(server, clock, config, **settings).without_webhook == expected


def test_a_webhook_that_is_made_later_ends_the_warning(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    watch = after_setup(server, clock)
    studio.webhooks = [HOOK]
    watch.check()
    assert watch.without_webhook == (7,), "it is not asked for all the time"
    clock.now += 301
    watch.check()
    assert watch.without_webhook == ()


def test_an_address_that_is_changed_is_noticed(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    studio.webhooks = [HOOK]
    watch = after_setup(server, clock)
    studio.webhooks = [HOOK | {"url": "http://here.internal:9090/webhook"}]
    studio.backends[0]["url"] = "http://here.internal:9090/"
    clock.now += 301
    watch.check()
    assert watch.without_webhook == ()


def test_a_project_that_is_well_costs_one_request_for_all(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    studio.webhooks = [HOOK]
    watch = after_setup(server, clock)
    server.asked.clear()
    clock.now += 301
    watch.check()
    assert paths(server) == ["/api/webhooks/"]


def test_a_project_that_is_disconnected_or_gone_is_forgotten(
    studio: FakeStudio, server: LocalServer, clock: Clock
) -> None:
    watch = after_setup(server, clock)
    watch.note_setup(8, parse_label_config(CONFIG))  # there is none
    studio.backends.clear()
    clock.now += 301
    watch.check()
    assert watch.without_webhook == ()
    server.asked.clear()
    clock.now += 301
    watch.check()
    assert paths(server) == []


def test_a_project_that_needs_none_any_more_is_forgotten(server: LocalServer, clock: Clock) -> None:
    watch = after_setup(server, clock)
    watch.note_setup(7, parse_label_config(UNLEARNED))
    clock.now += 301
    watch.check()
    assert watch.without_webhook == ()


def test_a_token_that_may_not_see_webhooks_gives_no_warning(
    studio: FakeStudio, server: LocalServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    studio.fault = lambda asked: Answer(403)
    watch = after_setup(server, clock)
    watch.check()
    assert watch.without_webhook == ()
    assert len(paths(server)) == 1
    (line,) = [each.message for each in caplog.records if "HTTP 403" in each.message]
    assert TOKEN not in line


def test_without_a_token_nothing_is_kept(clock: Clock) -> None:
    watch = WebhookWatch(Settings(), None, clock)
    watch.note_setup(7, parse_label_config(CONFIG))
    clock.now += 301
    assert not watch.check()
    assert watch.without_webhook == ()


def test_not_more_projects_are_kept_than_some_team_has(server: LocalServer, clock: Clock) -> None:
    """Without a password anybody may send `/setup`."""
    watch = made(server, clock)
    for project in range(8, 3000):
        watch.note_setup(project, parse_label_config(CONFIG))
    clock.now += 60
    watch.check()
    assert len(paths(server)) <= 1001
    assert watch.without_webhook == ()
