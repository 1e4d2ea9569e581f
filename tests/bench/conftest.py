"""Collect the figures of `make bench` and write them into a page as one Markdown table."""

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from clearclip_core.devices import cpu_flags, device_name

#: The lines of a page that hold the table between them.
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--results``, the page that gets the table; without it, figures are only printed."""
    parser.addoption("--results", type=Path, help="write the figures into this Markdown page")


@dataclass(frozen=True)
class Row:
    figure: str
    goal: str
    measured: str
    detail: str
    day: str


@dataclass
class Report:
    """Rows of the table, in the order in which they were measured."""

    rows: list[Row] = field(default_factory=list)

    def add(self, figure: str, goal: str, measured: str, detail: str = "") -> None:
        """Add a row; a goal has the lowest acceptable value in brackets."""
        self.rows.append(Row(figure, goal, measured, detail, date.today().isoformat()))
        print(f"\n{figure}: {measured} (goal: {goal or 'none'}) {detail}")


def with_rows(page: str, rows: list[Row], machine: str) -> str:
    """Return a page of Markdown with these rows in the table between its two marker comments.

    Rows take the place of those with the same figure, and new ones go to the end, so a part of the
    benchmarks can be run alone. A figure that no benchmark measures any more is taken out by hand.
    A day on which several machines have measured names each of them.
    """
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = table.strip().splitlines()
    machines = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- "))
    for day in {row.day for row in rows}:
        known = machines.get(day, "")
        machines[day] = known if machine in known else " · or ".join(filter(None, [known, machine]))
    found = [Row(*map(str.strip, line[1:-1].split("|"))) for line in lines if line.startswith("| ")]
    merged = {row.figure: row for row in [*found[1:], *rows]}.values()
    text = "\n".join(
        [
            *(f"- {day}: {machines[day]}" for day in sorted({row.day for row in merged})),
            "",
            "| figure | goal (least) | measured | detail | day |",
            "|---|---|---|---|---|",
            *(f"| {' | '.join(astuple(row))} |" for row in merged),
        ]
    )
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def machine() -> str:
    """Processor, its matrix flags, cores, graphics card and versions, as one line."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    cpu = Path("/proc/cpuinfo")  # its name alone may be that of a family
    numbers = re.findall(
        r"(?m)^(?:cpu family|model|stepping)\s*: (\d+)", cpu.read_text() if cpu.exists() else ""
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{device_name(torch.device('cpu'))} (family, model, stepping {' '.join(numbers[:3])}), "
        f"{cores} cores "
        f"({', '.join(cpu_flags())}) · {card} · "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"open_clip {version('open_clip_torch')}"
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
        results.write_text(with_rows(page, made.rows, machine()), encoding="utf-8")
        print(f"\nwritten to {results}")
