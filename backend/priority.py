"""Threads that nobody waits for give way to those that answer requests."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Final

#: How much nicer than the others a thread is that gives way; 19 is the most there is.
_NICER: Final = 5


def give_way() -> None:
    """Let the other threads of this process have the processor first, from now on.

    Label Studio gives up on ``/health`` after 1 s and on ``/setup`` after 3 s: on a small machine
    their threads would wait in one line with all those that compute. Threads that are started by
    this one, such as OpenMP's, inherit it. On Linux only; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICER)
