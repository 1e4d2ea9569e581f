"""The parts that reach Label Studio, for commands that need no model."""

from __future__ import annotations

import json

import pytest

from backend.errors import StudioRefused
from backend.label_studio_services import LabelStudioServices
from backend.settings import Settings
from tests.backend.fakes.local_server import Answer, LocalServer

KEYS = {"label_studio_url": "http://studio", "label_studio_api_key": "token"}


def test_without_a_token_there_is_no_client() -> None:
    services = LabelStudioServices(Settings())
    assert services.client is None
    with pytest.raises(ValueError, match=r"^Set LABEL_STUDIO_URL .*: annotations are read through"):
        services.required_client("annotations are read")


def test_a_client_asks_the_label_studio_of_the_settings() -> None:
    services = LabelStudioServices(Settings(**KEYS))  # type: ignore[arg-type]
    assert services.required_client("annotations are read").url == "http://studio"
    assert services.images is services.images


@pytest.mark.parametrize("begin", [320, 350, 380])
def test_no_half_of_a_password_of_several_words_is_left_of_a_long_reason(begin: int) -> None:
    """Label Studio's reason is cut off; a half would not be known to be one."""
    reason = f"{'a word ' * 60}"[:begin] + f" correct horse battery {'and more ' * 60}"
    answer = Answer(400, json.dumps({"detail": reason}).encode())
    with LocalServer(lambda asked: answer) as server:
        settings = Settings(
            label_studio_url=server.url,
            label_studio_api_key="0123456789abcdef",  # type: ignore[arg-type]
            basic_auth_user="ann",
            basic_auth_pass="correct horse battery",  # type: ignore[arg-type]
        )
        client = LabelStudioServices(settings).required_client("annotations are read")
        with pytest.raises(StudioRefused, match="a word") as said:
            client.label_config(7)
    assert not any(word in str(said.value) for word in ("correct", "horse", "battery"))
    assert len(str(said.value)) <= 400
