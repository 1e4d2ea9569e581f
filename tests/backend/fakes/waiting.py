"""Wait for what another thread or process does."""

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str = "It", within_s: float = 180) -> None:
    """Look again and again, at first every 5 ms, whether something has come."""
    began, pause_s = time.monotonic(), 0.005
    while not condition():
        assert time.monotonic() < began + within_s, f"{what} has not come within {within_s} s"
        time.sleep(pause_s)
        pause_s = min(1.1 * pause_s, 0.1)
