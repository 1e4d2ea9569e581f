"""Label Studio's API through its SDK, against a stand-in; tests/e2e asks the real one."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import pytest

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

VERSION = "demo clearclip 12ab"
ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {i: {"image": f"{i}.png"} for i in range(1, 251)})


@pytest.fixture
def server(studio: FakeStudio) -> Iterator[LocalServer]:
    with studio.served() as server:
        yield server


@pytest.fixture
def client(server: LocalServer) -> LabelStudioClient:
    return LabelStudioClient(server.url, TOKEN, retry_for_s=20, first_pause_s=0.01)


def test_the_tasks_that_are_wanted(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.annotated = {1, 3}
    for task in (1, 2):
        studio.add(task, VERSION)
    studio.add(4, "other")

    def ids(wanted: TaskFilter) -> list[Any]:
        return [task.id for task in client.tasks(7, wanted, size=4)]

    assert ids(TaskFilter()) == [1, 2, 3, 4]
    assert ids(TaskFilter(without_version=VERSION)) == [3, 4, 5, 6]
    assert ids(TaskFilter(without_version=VERSION, unlabeled=True, after_id=4)) == [5, 6, 7, 8]
    assert ids(TaskFilter(with_version=VERSION)) == [1, 2]
    assert ids(TaskFilter(min_predictions=1)) == [1, 2, 4]
    assert ids(TaskFilter(ids=(2, 9, 999), without_version=VERSION)) == [9]
    assert ids(TaskFilter(ids=())) == []
    assert client.count(7, TaskFilter(without_version=VERSION)) == 248
    assert client.count(7, TaskFilter(ids=tuple(range(1, 1000)), unlabeled=True)) == 248
    (first,) = client.tasks(7, TaskFilter(), size=1)
    assert (first.data, first.project_id) == ({"image": "1.png"}, 7)


def test_all_ids_are_walked_through_while_they_change(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    walked = []
    for task in client.ids(7, TaskFilter(without_version=VERSION)):
        walked.append(task)
        studio.add(task, VERSION)  # drops out of the pages that are still to come
    assert walked == list(range(1, 251))
    assert len(walked) > 2 * PAGE


def test_tasks_that_may_have_doubles_are_told_without_their_predictions(
    client: LabelStudioClient, studio: FakeStudio, server: LocalServer
) -> None:
    for task in studio.tasks:
        studio.add(task, "older")
        studio.add(task, VERSION)
    studio.add(5, VERSION)
    studio.add(205, VERSION)
    studio.add(6, "older")  # it may be of any version
    assert [id_ for page in client.possible_duplicates(7, VERSION) for id_ in page] == [5, 6, 205]
    assert len(server.asked) == 4
    assert [id_ for page in client.possible_duplicates(7, VERSION, [4, 5]) for id_ in page] == [5]
    assert list(client.possible_duplicates(7, VERSION, [])) == []


def test_a_view_tells_its_ids(client: LabelStudioClient, studio: FakeStudio) -> None:
    studio.views[3] = [*range(250, 100, -1), 5]
    assert client.view_ids(7, 3) == [5, *range(101, 251)]
    with pytest.raises(StudioRefused, match="no such project, view or task"):
        client.view_ids(7, 4)


def test_predictions_are_written_in_one_request_and_never_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.add(2, VERSION)
    assert client.write(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.imports == [9]
    assert client.write(7, VERSION, dict.fromkeys(range(1, 11), ENTRY)) == {}
    assert studio.stored() == dict.fromkeys(range(1, 11), 1)


def test_an_answer_that_is_lost_does_not_store_them_twice(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.late = 1
    assert client.write(7, VERSION, {1: ENTRY, 2: ENTRY}) == {}
    assert studio.stored() == {1: 1, 2: 1}
    assert studio.imports == [2]


def test_one_that_is_not_taken_costs_no_other(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    studio.refused = {2}
    refused = client.write(7, VERSION, {1: ENTRY, 2: ENTRY, 3: ENTRY})
    assert refused.keys() == {2}
    assert "no label" in refused[2]
    assert studio.stored() == {1: 1, 3: 1}


def test_what_is_too_large_for_a_proxy_is_sent_in_parts(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    def fault(asked: Asked) -> Answer | None:
        return Answer(413, b"<h1>413</h1>") if len(asked.body) > 500 else None

    studio.fault = fault
    entries = dict.fromkeys(range(1, 26), ENTRY) | {7: ENTRY | {"result": ["x" * 500]}}
    refused = client.write(7, VERSION, entries)
    assert refused.keys() == {7}
    assert "client_max_body_size" in refused[7]
    assert studio.stored() == dict.fromkeys(entries.keys() - {7}, 1)


def test_tasks_that_are_gone_are_no_error(client: LabelStudioClient, studio: FakeStudio) -> None:
    assert client.write(7, VERSION, {1: ENTRY, 999: ENTRY}) == {}
    assert studio.stored() == {1: 1}
    assert client.write(7, VERSION, {}) == {}


def test_what_is_stored_can_be_told_and_removed(
    client: LabelStudioClient, studio: FakeStudio
) -> None:
    first, second = studio.add(5, VERSION, 100), studio.add(5, "other", 200)
    stored = client.stored(5)
    assert [(each.id, each.version, each.created) for each in stored] == [
        (first, VERSION, 100),
        (second, "other", 200),
    ]
    client.delete(first)
    client.delete(first)
    assert [each.id for each in client.stored(5)] == [second]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_label_studio_that_is_down_for_a_while_is_waited_for(
    client: LabelStudioClient, studio: FakeStudio, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    left = [Answer(status)] * 3
    studio.fault = lambda _: left.pop() if left else None
    assert client.label_config(7) == brush_config("red")
    assert caplog.text.count("next try in") == 3
    assert TOKEN not in caplog.text


def test_patience_ends(server: LocalServer, studio: FakeStudio) -> None:
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
    """As it was sent in time, and arrived too late: the SDK sees that it ends, and no more."""
    tokens = Tokens(studio)
    with LocalServer(tokens) as server:
        client = LabelStudioClient(server.url, token("refresh"), retry_for_s=0)
        assert client.label_config(7) == studio.label_config
        tokens.access = "ended"
        assert client.label_config(7) == studio.label_config
        tokens.access = "ended"
        assert client.write(7, VERSION, {1: ENTRY}) == {}
    assert studio.stored() == {1: 1}


def test_a_client_that_another_thread_drops_is_used_all_the_same(
    server: LocalServer, studio: FakeStudio
) -> None:
    class Dropped(LabelStudioClient):
        @property
        def _made(self) -> Any:
            made, self.made = self.made, None
            return made

        @_made.setter
        def _made(self, made: Any) -> None:
            self.made = made

    client = Dropped(server.url, TOKEN)
    assert [client.label_config(7) for _ in range(2)] == [studio.label_config] * 2


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
        with pytest.raises(StudioUnreachable, match="no JSON"):
            client.label_config(7)


def test_a_personal_token_that_is_not_taken_is_refused_soon(studio: FakeStudio) -> None:
    tokens = Tokens(studio, [json_answer({"detail": "Token is blacklisted"}, 401)] * 1000)
    with LocalServer(tokens) as server:
        with pytest.raises(StudioRefused, match="check LABEL_STUDIO_API_KEY"):
            LabelStudioClient(server.url, token("refresh")).label_config(7)
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("key", [TOKEN, token("refresh")], ids=["legacy", "personal"])
def test_no_token_goes_where_a_redirect_leads(status: int, key: str) -> None:
    with LocalServer(lambda asked: Answer(body=b'{"access": "x"}')) as elsewhere:
        place = f"http://localhost:{elsewhere.port}/api/"
        redirect = Answer(status, headers={"Location": f"{place}?next=1"})
        with LocalServer(lambda asked: redirect) as server:
            with pytest.raises(StudioRefused, match=f"redirects to {place}: set LABEL_STUDIO_URL"):
                LabelStudioClient(server.url, key).label_config(7)
            assert len(server.asked) == 1
        assert elsewhere.asked == []


def test_settings_without_a_token_have_no_projects() -> None:
    assert LabelStudioClient.from_settings(Settings()) is None
    assert LabelStudioClient.from_settings(Settings(label_studio_url="http://studio")) is None
    settings = Settings(label_studio_url="http://studio", label_studio_api_key=TOKEN)  # type: ignore[arg-type]
    client = LabelStudioClient.from_settings(settings)
    assert client is not None
    assert client.url == "http://studio"
