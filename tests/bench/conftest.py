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

from clearclip_core.benchmark import cpu_flags, device_name


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make bench` says where the table goes; without it, figures are only printed."""
    parser.addoption("--results", type=Path, help="write the figures to this Markdown file")


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
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{date.today().isoformat()} · {device_name(torch.device('cpu'))}, {cores} cores "
        f"({', '.join(cpu_flags())}) · {card} · "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"open_clip {version('open_clip_torch')} · a shared machine: ratios are of one run, "
        "medians of alternating calls"
    )


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another run has left in the user's own would be found, not computed."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/bench.db")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """The table; written when all benchmarks are through."""
    made = Report()
    yield made
    results: Path | None = request.config.getoption("--results")
    if results is not None:
        results.write_text(made.markdown())
        print(f"\nwritten to {results}")
