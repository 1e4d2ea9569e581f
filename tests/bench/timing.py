"""Compare two timings on a noisy machine: both in turn, and the median of the pairs' ratios."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds: seconds of a call, and reference_s / ours_s of each round."""

    reference_s: float
    ours_s: float
    ratio: float

    def __str__(self) -> str:
        return f"{self.reference_s:.3g} s against {self.ours_s:.3g} s"


def compare(
    reference: Callable[[], Any], ours: Callable[[], Any], rounds: int = 5, warm_up: bool = True
) -> Comparison:
    """Time two functions in turn, so that a drift of the machine's speed affects both."""
    if warm_up:
        reference()
        ours()
    pairs = [(seconds(reference), seconds(ours)) for _ in range(rounds)]
    return Comparison(
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
    )


def seconds(function: Callable[[], Any]) -> float:
    """Wall seconds of one call; on a GPU the function itself has to wait for its result."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


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
