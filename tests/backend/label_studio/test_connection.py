"""Calls of Label Studio's API: what is an answer, what is repeated, which token goes along."""

from __future__ import annotations

import contextvars
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import pytest

from backend.errors import BadRequest, StudioRefused, StudioUnreachable
from backend.label_studio import connection
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

VERSION = "demo clearclip 12ab"
ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}

PAGE = Answer(200, b"<h1>Log in</h1>", {"Content-Type": "text/html"})

#: Answers of others, which no call may take for one of Label Studio's API.
FOREIGN = {
    "page": PAGE,
    "not-found-page": Answer(404, b"<h1>404 Not Found</h1>"),
    "bad-request-page": Answer(400, b"<h1>400 Bad Request</h1>"),
    "empty": Answer(200),
    "login": Answer(302, headers={"Location": "/user/login/?next=/api/"}),
    "null": Answer(200, b"null"),
    "object": Answer(200, b"{}"),
    "list-of-null": Answer(200, b"[null]"),
    "number": Answer(200, b"17"),
    "cut": Answer(200, b'{"tasks": [{"id": 1, "da'),
    "not-unicode": Answer(200, b'{"id": "\xff"}'),
    "deep": Answer(200, b"[" * 100_000),
    "no-gzip": Answer(200, b"plain", {"Content-Encoding": "gzip"}),
    "wrong-types": Answer(200, b'{"tasks": {}, "total": "many"}'),
}

#: Calls of the client -> what each returns of the stand-in below.
CALLS: dict[str, tuple[Callable[[LabelStudioClient, FakeStudio], Any], Any]] = {
    "label_config": (lambda client, studio: client.label_config(7) == studio.label_config, True),
    "tasks": (lambda client, _: [task.id for task in client.tasks(7, TaskFilter(), 2)], [1, 2]),
    "count": (lambda client, _: client.count(7, TaskFilter()), 250),
    "project_titles": (lambda client, _: client.project_titles(), {7: "Streets"}),
    "user_names": (lambda client, _: client.user_names(), {5: "Ann Berg"}),
    "backends": (lambda client, _: [each.url for each in client.backends(7)], ["http://here"]),
    "view_ids": (lambda client, _: client.view_ids(7, 3), [4, 5]),
    "stored": (lambda client, _: [each.id for each in client.stored(5)], [1]),
    "prediction": (lambda client, _: getattr(client.prediction(1), "version", None), VERSION),
    "annotation": (lambda client, _: getattr(client.annotation(2), "task", None), 6),
    "annotations": (lambda client, _: [each.task for each in client.annotations(6)], [6]),
    "write": (lambda client, _: client.prediction_writer.write(7, VERSION, {9: ENTRY}), {}),
    "delete": (lambda client, _: client.delete(1), None),
}


@pytest.fixture
def studio(studio: FakeStudio) -> FakeStudio:
    studio.views[3] = [4, 5]
    studio.titles = {7: "Streets"}
    studio.backends = [{"id": 1, "url": "http://here", "created_at": "2001-09-09T01:46:40Z"}]
    studio.users = [{"id": 5, "username": "ann", "first_name": "Ann", "last_name": "Berg"}]
    studio.add(5, VERSION, created=10)
    studio.annotate(6, [])
    return studio


@pytest.mark.parametrize(
    ("call", "foreign"),
    [(call, PAGE) for call in CALLS] + [("tasks", each) for each in FOREIGN.values()],
    ids=[*CALLS, *FOREIGN],
)
def test_what_is_no_answer_of_label_studio_is_waited_out(
    client: LabelStudioClient, studio: FakeStudio, call: str, foreign: Answer
) -> None:
    left = [foreign] * 2
    studio.fault = lambda _: left.pop() if left else None
    ask, expected = CALLS[call]
    assert ask(client, studio) == expected
    assert left == []
    assert studio.stored()[5] == (0 if call == "delete" else 1)
    assert studio.stored()[9] == (1 if call == "write" else 0)


@pytest.mark.parametrize(
    ("foreign", "sentence"),
    [
        (PAGE, "HTTP 200 with what is no JSON: it may be a login or maintenance page"),
        (
            Answer(302, headers={"Location": "/login?a"}),
            "redirects to /login: it may be a login or",
        ),
        (Answer(404, b"<h1>?</h1>"), "HTTP 404 with what is no JSON"),
        (
            Answer(200, b"{}"),
            r"/api/projects/7/ with JSON that .* send: Object missing required field `id`",
        ),
        (Answer(200, b"[]"), "Expected `object`, got `array`"),
    ],
)
def test_a_person_understands_what_is_wrong(
    server: LocalServer, studio: FakeStudio, foreign: Answer, sentence: str
) -> None:
    studio.fault = lambda _: foreign
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0.1, first_pause_s=0.01)
    with pytest.raises(StudioUnreachable, match=sentence):
        client.label_config(7)


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_answer_to_an_import_stores_each_prediction_once(
    client: LabelStudioClient, studio: FakeStudio, foreign: Answer
) -> None:
    left = [foreign] * 2

    def fault(asked: Asked) -> Answer | None:
        return left.pop() if left and asked.path.partition("?")[0].endswith("predictions") else None

    studio.fault = fault
    assert client.prediction_writer.write(7, VERSION, {8: ENTRY, 9: ENTRY}) == {}
    assert (studio.stored()[8], studio.stored()[9], left) == (1, 1, [])


def test_an_answer_that_is_too_large_is_refused(
    client: LabelStudioClient, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.label_studio.connection._MOST_BYTES", 4000)
    studio.add(5, "hostile", result=[{}] * 4000)
    with pytest.raises(BadRequest, match="sends more than 0 MB for /api/predictions/"):
        client.stored(5)
    with pytest.raises(BadRequest, match=f"at {client.url} sends more than .* for /api/tasks/"):
        client.tasks(7, TaskFilter())


def test_what_is_no_json_in_an_annotation_costs_no_other(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    """As Python writes NaN, and half an emoji where a text was cut."""
    studio.annotate(6, [{"x": "NaN", "text": "half"}])
    rows = json.dumps([*studio.annotations.values()]).replace('"NaN"', "NaN")
    answer = Answer(200, rows.replace('"half"', '"a \\ud83d"').encode())
    studio.fault = lambda asked: answer if "annotations" in asked.path else None
    assert [list(each.result) for each in client.annotations(6)] == [
        [],
        [{"x": None, "text": "a ?"}],
    ]


def test_an_answer_that_trickles_ends_with_its_time() -> None:
    answer = Answer(200, b" " * 1000 + b"{}", has_length=False)
    with LocalServer(lambda _: answer, pause_s=0.05) as server:
        client = LabelStudioClient(server.url, TOKEN, retry_for_s=0, timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(StudioUnreachable, match=r"gave no whole answer within 0\.5 s"):
            client.label_config(7)
        assert time.monotonic() - began < 10


def test_all_calls_of_a_page_take_their_time_together(
    server: LocalServer, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_WAIT_S", 1.0)
    client = LabelStudioClient(server.url, TOKEN, retry_for_s=0)

    def page() -> bool:
        connection.begin_page()
        assert client.label_config(7) == studio.label_config
        assert not connection.page_gave_up()
        studio.fault = lambda _: time.sleep(3)
        for _ in range(3):
            with pytest.raises(StudioUnreachable, match="within 1 s"):
                client.label_config(7)
        return connection.page_gave_up()

    began = time.monotonic()
    assert contextvars.copy_context().run(page)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("status", [429, 503])
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


VERSION = "demo clearclip 12ab"
ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}


def token(kind: str, lives_s: float = 3600) -> str:
    claims = {"token_type": kind, "exp": time.time() + lives_s, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, "k" * 40, "HS256")


@dataclass
class Tokens:
    """Exchanges personal tokens in front of a stand-in, which takes the last access token only.

    Attributes:
        studio: the stand-in.
        lost: answers of the first exchanges, in place of a token.
        access: the access token that is taken.
    """

    studio: FakeStudio
    lost: list[Answer] = field(default_factory=list)
    access: str = ""

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.startswith("/api/token/refresh"):
            if self.lost:
                return self.lost.pop()
            self.access = token("access")
            return json_answer({"access": self.access})
        if asked.authorization != f"Bearer {self.access}":
            return json_answer({"detail": "Given token not valid for any token type"}, 401)
        return self.studio.answer(replace(asked, authorization=f"Token {TOKEN}"))


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def test_an_access_token_that_has_just_ended_is_renewed(studio: FakeStudio) -> None:
    """As it was sent in time, and arrived too late."""
    tokens = Tokens(studio)
    with LocalServer(tokens) as server:
        client = LabelStudioClient(server.url, token("refresh"), retry_for_s=0)
        assert client.label_config(7) == studio.label_config
        tokens.access = "ended"
        assert client.label_config(7) == studio.label_config
        tokens.access = "ended"
        assert client.prediction_writer.write(7, VERSION, {1: ENTRY}) == {}
    assert studio.stored()[1] == 1


def test_a_proxy_that_answers_for_label_studio_while_a_token_is_renewed_is_waited_for(
    studio: FakeStudio,
) -> None:
    page = Answer(502, b"<h1>502 Bad Gateway</h1>", {"Content-Type": "text/html"})
    tokens = Tokens(studio, [page, page])
    with LocalServer(tokens) as server:
        client = LabelStudioClient(server.url, token("refresh"), retry_for_s=20, first_pause_s=0.01)
        assert client.label_config(7) == studio.label_config
        tokens.access, tokens.lost = "ended", [page] * 1000
        client = LabelStudioClient(
            server.url, token("refresh"), retry_for_s=0.1, first_pause_s=0.01
        )
        with pytest.raises(StudioUnreachable, match="502"):
            client.label_config(7)


def test_a_personal_token_that_is_not_taken_is_refused_soon(studio: FakeStudio) -> None:
    tokens = Tokens(studio, [json_answer({"detail": "Token is blacklisted"}, 401)] * 1000)
    with LocalServer(tokens) as server:
        with pytest.raises(StudioRefused, match="check LABEL_STUDIO_API_KEY"):
            LabelStudioClient(server.url, token("refresh")).label_config(7)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("key", [TOKEN, token("refresh")], ids=["legacy", "personal"])
def test_no_token_goes_where_a_redirect_leads(status: int, key: str) -> None:
    with LocalServer(lambda asked: Answer(body=b'{"access": "x"}')) as elsewhere:
        place = f"http://localhost:{elsewhere.port}"

        def redirect(asked: Asked) -> Answer:
            return Answer(status, headers={"Location": f"{place}{asked.path}?next=1"})

        with LocalServer(redirect) as server:
            with pytest.raises(
                StudioRefused, match=rf"redirects to {place}/\S+: set LABEL_STUDIO_"
            ):
                LabelStudioClient(server.url, key).label_config(7)
            assert len(server.asked) == 1
        assert elsewhere.asked == []
