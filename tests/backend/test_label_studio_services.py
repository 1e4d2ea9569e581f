"""The parts that reach Label Studio, for commands that need no model."""

from __future__ import annotations

import pytest

from backend.label_studio_services import LabelStudioServices
from backend.settings import Settings

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
