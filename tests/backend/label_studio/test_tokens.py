"""Tokens go to Label Studio alone, and are renewed."""

import json
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.file_studio import PERSONAL, make_jwt
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

VERSION = "demo clearclip 12ab"

ENTRY: dict[str, Any] = {"model_version": VERSION, "score": 0.5, "result": []}


def impatient(url: str, key: str = TOKEN, **options: Any) -> LabelStudioClient:
    return LabelStudioClient(url, key, **({"retry_for_s": 0.1, "first_pause_s": 0.01} | options))


@dataclass
class Tokens:
    """Exchanges personal tokens in front of a stand-in, which takes the last access token only.

    The first exchanges are answered with what is in `lost`, in place of a token.
    """

    studio: FakeStudio
    lost: list[Answer] = field(default_factory=list)
    access: str = ""
    made: Any = field(default_factory=count)

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.startswith("/api/token/refresh"):
            if self.lost:
                return self.lost.pop()
            self.access = make_jwt("access", str(next(self.made)))
            return Answer(body=json.dumps({"access": self.access}).encode())
        if asked.authorization != f"Bearer {self.access}":
            return Answer(401, b'{"detail": "Given token not valid for any token type"}')
        return self.studio.answer(replace(asked, authorization=f"Token {TOKEN}"))


def test_an_access_token_that_has_just_ended_is_renewed(studio: FakeStudio) -> None:
    """As it was sent in time, and arrived too late."""
    tokens = Tokens(studio)
    with LocalServer(tokens) as server:
        client = LabelStudioClient(server.url, PERSONAL, retry_for_s=0)
        assert client.label_config(7) == studio.label_config
        tokens.access = "ended"
        assert client.write_predictions(7, VERSION, {1: ENTRY}) == {}
    assert studio.stored()[1] == 1


def test_a_proxy_that_answers_while_a_token_is_renewed_is_waited_for(studio: FakeStudio) -> None:
    page = Answer(502, b"<h1>502 Bad Gateway</h1>", {"Content-Type": "text/html"})
    tokens = Tokens(studio, [page, page])
    with LocalServer(tokens) as server:
        client = impatient(server.url, PERSONAL, retry_for_s=20)
        assert client.label_config(7) == studio.label_config
        tokens.lost = [page] * 1000
        with pytest.raises(StudioUnreachable, match="502"):
            impatient(server.url, PERSONAL).label_config(7)


def test_a_personal_token_that_is_not_taken_is_refused_soon(studio: FakeStudio) -> None:
    tokens = Tokens(studio, [Answer(401, b'{"detail": "Token is blacklisted"}')] * 1000)
    with LocalServer(tokens) as server:
        with pytest.raises(StudioRefused, match="check LABEL_STUDIO_API_KEY"):
            LabelStudioClient(server.url, PERSONAL).label_config(7)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("key", [TOKEN, PERSONAL], ids=["legacy", "personal"])
def test_no_token_goes_where_a_redirect_leads(status: int, key: str) -> None:
    with LocalServer(lambda asked: Answer(body=b'{"access": "x"}')) as elsewhere:
        place = f"http://localhost:{elsewhere.port}"

        def redirect(asked: Asked) -> Answer:
            return Answer(status, headers={"Location": f"{place}{asked.path}?next=1"})

        with LocalServer(redirect) as server:
            with pytest.raises(StudioUnreachable, match=rf"redirects to {place}/\S+: it may be"):
                LabelStudioClient(server.url, key, retry_for_s=0).label_config(7)
            assert len(server.asked) == 1
        assert elsewhere.asked == []
