"""Answers of a server; processor time and memory of a process and of those that it started."""

import contextlib
import os
from pathlib import Path

import requests


def answers(url: str) -> bool:
    """Return whether a server answers 200."""
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=60).status_code == requests.codes.ok
    return False


def memory_mb(process: int | str = "self", peak: bool = False) -> float:
    """Return the resident memory of a process and of its children, or its own peak, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    own = int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) / 1024
    if peak:
        return own
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(memory_mb(child) for child in children)


def cpu_s(process: int) -> float:
    """Return the processor time so far of a process and of its children, in seconds."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + children_s(process)


def children_s(process: int) -> float:
    """Return the processor time so far of the processes that one has started, and of theirs."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum(cpu_s(int(child)) for child in children)


def whole_cpu_s(process: int) -> float:
    """Return `cpu_s`, and the time of the children that have ended and of theirs, in seconds."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    seconds = 0.0
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            seconds += whole_cpu_s(int(child))

    # read last, so that the time of those that have just ended is in it
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
    return seconds + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def thread_count(process: int | str = "self") -> int:
    """Return how many threads a process has now."""
    return sum(1 for _ in Path(f"/proc/{process}/task").iterdir())
