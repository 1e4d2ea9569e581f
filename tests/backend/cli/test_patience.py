"""Commands that work for hours wait for Label Studio as long as the pages do."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from backend.cli.main import main
from backend.label_studio.client import LabelStudioClient


@pytest.mark.parametrize("command", ["agreement"])
def test_a_task_is_tried_for_ten_minutes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def made(settings: object, *, retry_for_s: float, **_: Any) -> None:
        asked.append(retry_for_s)

    monkeypatch.setattr(LabelStudioClient, "from_settings", made)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "token")
    CliRunner().invoke(main, [command, "--project=7"])
    assert asked == [600.0]
