"""Ask Label Studio and the backend, and wait for what they do in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests

from backend.cli.demo_servers import LabelStudioProcess


def get(studio: LabelStudioProcess, path: str) -> requests.Response:
    """Ask Label Studio's API."""
    headers = {"Authorization": studio.authorization}
    answer = requests.get(studio.url + path, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer


def wait_for(condition: Callable[[], bool], what: str, within_s: float = 180) -> None:
    """Try a condition until it holds.

    Raises:
        AssertionError: it did not hold in time.
    """
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what} has not come within {within_s} s"
        time.sleep(0.3)


def wait_for_json(url: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask a page for JSON until something is there."""
    told: dict[str, Any] = {}

    def asked() -> bool:
        told.clear()
        told.update(requests.get(url, timeout=60).json())
        return is_there(told)

    wait_for(asked, f"what {url} is to say")
    return told


def finished_run(url: str) -> Any:
    """Wait until a run is done, and return its report."""
    told = wait_for_json(url, lambda told: told["run"]["state"] in ("done", "failed"))
    assert told["run"]["state"] == "done", told["run"]["reason"]
    return told["report"]
