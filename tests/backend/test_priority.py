from __future__ import annotations

import os
import sys
import threading

import pytest

from backend.priority import give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness here")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_gives_way_and_so_do_those_it_starts() -> None:
    found: dict[str, int] = {}

    def child() -> None:
        found["child"] = niceness()

    def run() -> None:
        give_way()
        found["own"] = niceness()
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()

    before = niceness()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found["own"] > before
    assert found["child"] == found["own"]
    assert niceness() == before, "the others stay as they are"


def test_a_sandbox_that_forbids_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    give_way()
