"""`make bench` collects its figures here and writes them down as one Markdown table."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

#: Where the table goes; a committed file tells what the last machine reached.
RESULTS = Path(__file__).parent / "results.md"


@dataclass
class Report:
    """Rows of the table, in the order in which they were measured."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, figure: str, goal: str, measured: str, detail: str = "") -> None:
        """Keep one figure.

        Args:
            figure: what was measured.
            goal: what it should reach, with the least that is acceptable in brackets.
            measured: what came out.
            detail: seconds, sizes, the device.
        """
        self.rows.append((figure, goal, measured, detail))
        print(f"\n{figure}: {measured} (goal: {goal or 'none'}) {detail}")

    def markdown(self) -> str:
        """The machine, and the table."""
        lines = [
            "# Measured by `make bench`",
            "",
            machine(),
            "",
            "| figure | goal (least) | measured | detail |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def machine() -> str:
    """Processor, its matrix flags, cores, graphics card and versions, as one line."""
    flags = sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"})
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{date.today().isoformat()} · {cpu_name()}, {cores} cores ({', '.join(flags)}) · {card} · "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"open_clip {version('open_clip_torch')} · a shared machine: ratios are of one run, "
        "medians of alternating calls"
    )


def cpu_flags() -> set[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    return set(_cpuinfo("flags").split())


def cpu_name() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(key))
    return next(found, "")


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """The table; written when all benchmarks of a whole run are through."""
    made = Report()
    yield made
    if made.rows:
        RESULTS.write_text(made.markdown())
        print(f"\nwritten to {RESULTS}")
