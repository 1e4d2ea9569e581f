"""What is logged."""

import io
import logging
import logging.config
from collections.abc import Callable
from typing import Any

import pytest

from backend.settings import Settings
from backend.telemetry.logs import logging_config

PASSWORD = "correct-horse-7"

KEY = "0123456789abcdef0123456789abcdef01234567"

Logged = Callable[..., io.StringIO]


def make_settings(**given: Any) -> Settings:
    return Settings(
        label_studio_url="http://127.0.0.1:9",
        label_studio_api_key=KEY,
        basic_auth_user="ann",
        basic_auth_pass=PASSWORD,
        **given,
    )


@pytest.fixture
def logged() -> Logged:
    """Set logging up as `serve` does; the value is what stderr would get."""

    def set_up(level: str = "DEBUG", **given: Any) -> io.StringIO:
        stream = io.StringIO()
        config = logging_config(make_settings(**given), level)
        config["handlers"]["stderr"]["stream"] = stream
        logging.config.dictConfig(config)
        return stream

    return set_up


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()
