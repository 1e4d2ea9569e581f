"""Collect the figures of `make bench` and write them into a page as one Markdown table."""

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

from clearclip_core.clip.device_info import cpu_flags, device_name

#: The lines of a page that hold the table between them.
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--results``, the page that gets the table; without it, figures are only printed."""
    parser.addoption("--results", type=Path, help="write the figures into this Markdown page")


@dataclass
class Report:
    """Rows of the table, in the order in which they were measured."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, figure: str, goal: str, measured: str, detail: str = "") -> None:
        """Add a row to the table.

        Args:
            figure: name of the figure.
            goal: value to reach, and in brackets the lowest acceptable one.
            measured: the measured value.
            detail: seconds, sizes and device of the measurement.
        """
        self.rows.append((figure, goal, measured, detail))
        print(f"\n{figure}: {measured} (goal: {goal or 'none'}) {detail}")

    def markdown(self) -> str:
        """Return the machine and the table."""
        lines = [
            machine(),
            "",
            "| figure | goal (least) | measured | detail |",
            "|---|---|---|---|",
            *(f"| {' | '.join(row)} |" for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def with_table(page: str, table: str) -> str:
    """Return a page with this table in place of what stands between its two marker comments.

    Raises:
        ValueError: the page lacks the markers, or has them in another order.

    >>> with_table(f"text\\n{BEGIN}\\nold\\n{END}\\n", "new\\n").splitlines()[1:]
    ['<!-- bench:begin -->', '', 'new', '', '<!-- bench:end -->']
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"Expected a page with the lines {BEGIN} and {END} in this order.")
    return f"{before}{begin}\n\n{table}\n{end}{after}"


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
    """Use an empty database: features and jobs of earlier runs would be found, not computed."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/bench.db")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Collect the figures, and write the table after the last benchmark."""
    made = Report()
    yield made
    results: Path | None = request.config.getoption("--results")
    if results is not None:
        page = results.read_text(encoding="utf-8")
        results.write_text(with_table(page, made.markdown()), encoding="utf-8")
        print(f"\nwritten to {results}")
