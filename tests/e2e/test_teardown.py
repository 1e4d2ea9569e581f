"""What ends an end-to-end test does not depend on the page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from playwright.sync_api import Error

from tests.e2e.conftest import pytest_runtest_teardown


def test_a_page_that_has_crashed_keeps_no_fixture_from_being_torn_down() -> None:
    asked: list[str] = []

    def goto(url: str) -> None:
        asked.append(url)
        raise Error("Page crashed")

    item: Any = SimpleNamespace(funcargs={"page": SimpleNamespace(goto=goto)})
    pytest_runtest_teardown(item)
    assert asked == ["about:blank"]
