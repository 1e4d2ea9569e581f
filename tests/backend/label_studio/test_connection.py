"""Which token goes along with a call of Label Studio's API, and when it is renewed."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import pytest

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.local_server import Answer, Asked, LocalServer

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
    assert studio.stored() == {1: 1}


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
