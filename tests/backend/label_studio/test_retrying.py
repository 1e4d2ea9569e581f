"""Which failed calls of Label Studio's API are repeated, for how long, and what errors say."""

from __future__ import annotations

import threading
import time

import pytest

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, LocalServer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_label_studio_that_is_down_for_a_while_is_waited_for(
    client: LabelStudioClient, studio: FakeStudio, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    left = [Answer(status)] * 3
    studio.fault = lambda _: left.pop() if left else None
    assert client.label_config(7) == brush_config("red")
    assert caplog.text.count("next try in") == 3
    assert TOKEN not in caplog.text


def test_the_time_for_retries_ends(server: LocalServer, studio: FakeStudio) -> None:
    studio.fault = lambda _: Answer(503)
    with pytest.raises(StudioUnreachable, match="answers HTTP 503"):
        LabelStudioClient(server.url, TOKEN, retry_for_s=0.1, first_pause_s=0.01).label_config(7)


def test_nobody_there() -> None:
    with LocalServer(lambda asked: Answer()) as server:
        url = server.url
    with pytest.raises(StudioUnreachable, match="cannot be reached"):
        LabelStudioClient(url, TOKEN, retry_for_s=0, first_pause_s=0.01).label_config(7)


def test_who_is_to_stop_waits_no_longer() -> None:
    stopping = threading.Event()
    with LocalServer(lambda asked: Answer(503)) as server:
        client = LabelStudioClient(server.url, TOKEN, first_pause_s=60, stopping=stopping)
        threading.Timer(0.2, stopping.set).start()
        started = time.monotonic()
        with pytest.raises(StudioUnreachable):
            client.label_config(7)
        assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("token", "project", "sentence"),
    [("cd" * 20, 7, "check LABEL_STUDIO_API_KEY"), (TOKEN, 8, "no such project")],
)
def test_what_is_refused_for_good_is_said_at_once(
    server: LocalServer, token: str, project: int, sentence: str
) -> None:
    with pytest.raises(StudioRefused, match=sentence) as caught:
        LabelStudioClient(server.url, token).label_config(project)
    assert token not in str(caught.value)
    assert len(server.asked) == 1
