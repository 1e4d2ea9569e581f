"""Run a server as a child process, until it is no longer needed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import requests

#: After this time, in seconds, a server that does not end is killed.
STOP_TIMEOUT_S: Final = 10


class DemoError(RuntimeError):
    """Something that the demo needs is missing or has failed; the message is a sentence."""


def free_port(preferred: int) -> int:
    """Return the preferred port where it is free on 127.0.0.1, else any free one.

    Label Studio itself would move to the next port and not say so.

    Raises:
        DemoError: no port is free.
    """
    for port in (preferred, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("There is no free port on 127.0.0.1.")


@contextmanager
def running(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    only_these: bool = False,
    health: str,
    log: Path,
    timeout_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, and end the processes that it has started too.

    Args:
        command: program and arguments; it gets a process group of its own.
        variables: its environment variables, beside those of this process.
        only_these: the variables of this process are not handed on.
        health: the URL that answers 200 once the server is up, or 401 for want of a password.
        log: file that its output is written to.
        timeout_s: how long it may take to be up, in seconds.

    Raises:
        DemoError: it ends or is not up in time; the message has the last lines of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_parent_death_signal(), *_environment(variables, only_these), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, health=health, log=log, timeout_s=timeout_s)
        yield process
    finally:
        _stop(process)


def _parent_death_signal() -> list[str]:
    """Return the prefix that ends a process with this one, even if this one is killed (Linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv and sys.platform == "linux" else []


def _environment(variables: Mapping[str, str], only_these: bool) -> list[str]:
    """Return the prefix that sets variables for a child and keeps them out of `ps`.

    `env` does so without reading the environment here, which only `backend.settings` does.
    """
    return ["env", *(["-i"] if only_these else []), *(f"{k}={v}" for k, v in variables.items())]


def _wait_until_up(
    process: subprocess.Popen[bytes], *, health: str, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(
                f"The server for {health} ended with status {process.returncode}. "
                f"Its last lines:\n{last_lines(log)}"
            )
        try:
            answer = requests.get(health, timeout=2)
            if answer.ok or answer.status_code == requests.codes.unauthorized:
                return
        except requests.RequestException:
            pass  # not up yet
        time.sleep(0.3)
    raise DemoError(
        f"{health} did not answer within {timeout_s:.0f} s. "
        f"Its server's last lines:\n{last_lines(log)}"
    )


def last_lines(log: Path, count: int = 20) -> str:
    """Return the last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: by SIGTERM, then by SIGKILL."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
