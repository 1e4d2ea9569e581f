"""Calls of Label Studio's API: what is an answer and repeated, what goes along and is stored."""

import contextvars
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from backend.errors import StudioBusy, StudioRefused, StudioUnreachable
from backend.label_studio import connection
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

VERSION = "demo clearclip 12ab"
ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}

PAGE = Answer(200, b"<h1>Log in</h1>", {"Content-Type": "text/html"})

#: Answers of others, which no call may take for one of Label Studio's API, with what is told.
FOREIGN = [
    (PAGE, "HTTP 200 without JSON: it may be a login or maintenance page"),
    (Answer(404, b"<h1>404 Not Found</h1>"), "HTTP 404 without JSON"),
    (Answer(302, headers={"Location": "/login/?next=/api/"}), "redirects to /login/: it may be a"),
    (Answer(200, b"{}"), "/api/tasks/ with JSON that .* send: Object missing required field"),
    (Answer(200, b'{"tasks": [{"id": 1, "da'), "HTTP 200 without JSON"),
    (Answer(200, b'{"id": "\xff"}'), "answers HTTP 200"),
    (Answer(200, b"[" * 100_000), "answers HTTP 200"),
    (Answer(200, b"plain", {"Content-Encoding": "gzip"}), "cannot be reached"),
    (Answer(503), "answers HTTP 503"),
]


def impatient(url: str, key: str = TOKEN, **options: Any) -> LabelStudioClient:
    return LabelStudioClient(url, key, **({"retry_for_s": 0.1, "first_pause_s": 0.01} | options))


@pytest.mark.parametrize(("foreign", "sentence"), FOREIGN)
def test_what_is_no_answer_of_label_studio_is_waited_out(
    client: LabelStudioClient,
    studio: FakeStudio,
    foreign: Answer,
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = [foreign] * 3
    studio.fault = lambda _: left.pop() if left else None
    assert [task.id for task in client.tasks(7, TaskFilter(), 2)] == [1, 2]
    assert left == []
    assert caplog.text.count("next try in") == 3
    studio.fault = lambda _: foreign
    with pytest.raises(StudioUnreachable, match=sentence) as caught:
        impatient(client.url).tasks(7, TaskFilter())
    assert TOKEN not in f"{caught.value}{caplog.text}"


@pytest.mark.parametrize("foreign", [PAGE, Answer(200), Answer(404, b"not here")])
def test_what_is_no_answer_to_a_change_does_not_count_as_one(
    client: LabelStudioClient, studio: FakeStudio, foreign: Answer
) -> None:
    first, calls = studio.add(5, VERSION), count()

    def fault(asked: Asked) -> Answer | None:
        is_change = asked.method == "DELETE" or "/import/" in asked.path
        return foreign if is_change and next(calls) % 3 < 2 else None

    studio.fault = fault
    assert client.write_predictions(7, VERSION, {8: ENTRY, 9: ENTRY}) == {}
    client.delete(first)
    assert (studio.stored(), next(calls)) == ({8: 1, 9: 1}, 6)


def test_an_answer_that_trickles_ends_with_its_time() -> None:
    answer = Answer(200, b" " * 1000 + b"{}", has_length=False)
    with LocalServer(lambda _: answer, pause_s=0.05) as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0, timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(StudioUnreachable, match=r"gave no whole answer within 0\.5 s"):
            client.label_config(7)
        assert time.monotonic() - began < 40  # of 50


def test_all_calls_of_a_page_take_their_time_together(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_WAIT_S", 3.0)
    client, over = LabelStudioClient(server.url, TOKEN, retry_for_s=0), threading.Event()

    def page() -> str:
        connection.begin_page()
        assert client.label_config(7) == studio.label_config
        assert not connection.page_notice()
        studio.fault = lambda _: over.wait(60) and None
        for _ in range(3):
            with pytest.raises(StudioBusy, match="within 3 s"):
                client.label_config(7)
        return connection.page_notice()

    began = time.monotonic()
    assert "it is busy" in contextvars.copy_context().run(page)
    assert time.monotonic() - began < 9, "for each call"
    over.set()


@pytest.mark.parametrize(
    ("status", "is_busy"), [(429, True), (500, False), (502, False), (503, True), (504, True)]
)
def test_a_server_that_is_there_and_has_too_much_to_do_is_busy(status: int, is_busy: bool) -> None:
    told = pytest.raises(StudioUnreachable, match=f"answers HTTP {status}")
    with LocalServer(lambda _: Answer(status)) as server, told as caught:
        impatient(server.url).user()
    assert isinstance(caught.value, StudioBusy) == is_busy


def test_a_host_that_takes_no_connection_in_time_is_not_called_busy() -> None:
    """A socket that listens and whose line is full lets nobody in, as a firewall does."""
    with socket.socket() as silent, ExitStack() as line:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(8):
            waits = line.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(silent.getsockname())
        client = impatient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5)
        with pytest.raises(StudioUnreachable, match=r"cannot be reached within 0\.5 s") as caught:
            client.user()
    assert not isinstance(caught.value, StudioBusy)


def test_connections_are_kept_also_where_label_studio_closes_one(studio: FakeStudio) -> None:
    def with_cookie(asked: Asked) -> Answer:
        cookies.append(asked.cookie)
        answer = closes.pop() if closes else studio.answer(asked)
        return replace(answer, headers={"Set-Cookie": "sessionid=1", **answer.headers})

    closes, cookies = list[Answer](), list[str | None]()
    with LocalServer(with_cookie, keeps=True) as server:
        client = impatient(server.url)
        for _ in range(20):
            client.user()
        assert server.connections == 1
        closes.append(Answer(0))
        client.user()
        assert server.connections == 2
        assert client.write_predictions(7, VERSION, {1: ENTRY}) == {}
        assert (server.connections, studio.stored()) == (2, {1: 1})
        assert set(cookies) == {None}


def test_a_kept_connection_times_out(studio: FakeStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer(studio.answer, pause_s=0.001, keeps=True) as server:
        client = impatient(server.url, timeout_s=3)
        client.user()
        studio.users = [{"id": 1, "first_name": "x" * 60_000}]
        began = time.monotonic()
        with pytest.raises(StudioUnreachable, match="no whole answer within 3 s"):
            client.user_names()
        assert (time.monotonic() - began < 30, server.connections) == (True, 1)


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
def test_refusals_are_told(server: LocalServer, token: str, project: int, sentence: str) -> None:
    with pytest.raises(StudioRefused, match=sentence) as caught:
        LabelStudioClient(server.url, token).label_config(project)
    assert token not in str(caught.value)
    assert len(server.asked) == 1


def test_predictions_are_never_written_twice(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.add(2, VERSION)
    assert client.write_predictions(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.imports == [9]
    assert client.write_predictions(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.stored() == dict.fromkeys(range(1, 11), 1)


def test_a_lost_answer_stores_nothing_twice(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.late = 1
    assert client.write_predictions(7, VERSION, {1: ENTRY, 2: ENTRY}) == {}
    assert (studio.stored(), studio.imports) == ({1: 1, 2: 1}, [2])
    studio.late = 1
    for _ in range(2):
        assert client.write_annotation(2, "masks", [{"id": "a"}]) == ""
    (stored,) = studio.annotations.values()
    assert stored["result"] == [{"id": "a"}]
    assert "404" in client.write_annotation(999, "masks", [])


def test_one_refused_costs_no_other(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.refused = {2}
    refused = client.write_predictions(7, VERSION, dict.fromkeys((1, 2, 3), ENTRY))
    assert refused.keys() == {2}
    assert "no label" in refused[2]
    assert client.write_predictions(7, VERSION, {4: ENTRY, 999: ENTRY}) == {}
    assert studio.stored() == {1: 1, 3: 1, 4: 1}
    assert client.write_predictions(7, VERSION, {}) == {}


def test_what_is_too_large_is_sent_in_parts(client: LabelStudioClient, studio: FakeStudio) -> None:
    def fault(asked: Asked) -> Answer | None:
        return Answer(413, b"<h1>413</h1>") if len(asked.body) > 500 else None

    studio.fault = fault
    entries = dict.fromkeys(range(1, 26), ENTRY) | {7: ENTRY | {"result": ["x" * 500]}}
    refused = client.write_predictions(7, VERSION, entries)
    assert refused.keys() == {7}
    assert "client_max_body_size" in refused[7]
    assert studio.stored() == dict.fromkeys(entries.keys() - {7}, 1)
