"""The PostgreSQL of the tests leaves nothing behind, also where their run is killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Who starts the tests in the background may have them ignore SIGINT.
RUN = """\
import signal
import time
from tests.backend.conftest import running_postgres

signal.signal(signal.SIGINT, signal.default_int_handler)
with running_postgres() as server:
    print(server.folder, server.port, flush=True)
    time.sleep(600)
"""


def listens(port: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_a_run_that_is_ended_by_a_signal(end: signal.Signals) -> None:
    command = [sys.executable, "-c", RUN]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout is not None
        folder, port = run.stdout.readline().split()
        assert listens(port)
        run.send_signal(end)
    patience = time.monotonic() + 60
    while (listens(port) or Path(folder).exists()) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not listens(port)
    assert not Path(folder).exists()
