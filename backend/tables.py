"""The report as tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.savings import DEFINITIONS, KINDS, Group, Quality, Savings

_COLUMNS = (
    "pictures",
    "prelabels",
    "accepted",
    "mean IoU",
    "boundary IoU",
    "saved paint",
    "false",
    "missed",
    "relabelled",
    "s with",
    "s without",
)


def print_savings(savings: Savings, console: Console) -> None:
    """Print what the prelabels of a project save.

    Args:
        savings: the figures.
        console: where to.
    """
    console.print(_summary(savings))
    if savings.all.labels:
        console.print(_labels(savings))
        console.print(_groups(f"By {savings.step}", "from", savings.periods))
        console.print(_groups("By model version", "version", savings.versions))
    for label, what in savings.harmful.items():
        console.print(f"[bold red]{escape(label)} costs more than it saves:[/] {escape(what)}")
    for name, text in DEFINITIONS.items() if savings.all.labels else ():
        console.print(f"[bold]{name}[/]: {escape(text)}", style="dim", highlight=False)


def _summary(savings: Savings) -> str:
    kinds = [f"{count} {KINDS[kind]}" for kind, count in savings.kinds.items() if count]
    if savings.waiting:
        kinds.append(f"{savings.waiting} are still to be read")
    if not kinds:
        return (
            f"Project {savings.project}: no annotation has been read yet. --backfill reads those "
            "that it has."
        )
    return (
        f"Project {savings.project}: {sum(savings.kinds.values())} annotations; {', '.join(kinds)}."
    )


def _labels(savings: Savings) -> Table:
    table = _table("By label", "label")
    for label, quality in savings.all.labels.items():
        _row(table, label, quality)
    table.add_section()
    _row(table, "all", savings.all.total, savings.all)
    return table


def _groups(title: str, first: str, groups: tuple[Group, ...]) -> Table:
    table = _table(title, first)
    for group in groups:
        _row(table, group.name, group.total, group)
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, quality: Quality, group: Group | None = None) -> None:
    seconds = group.seconds if group is not None else None
    table.add_row(
        escape(name),
        str(quality.pictures),
        str(quality.prelabels),
        _percent(quality.accepted_share),
        _two_digits(quality.mean_iou),
        _two_digits(quality.mean_boundary_iou),
        _percent(quality.saved_paint),
        str(quality.false),
        str(quality.missed),
        str(sum(quality.relabelled.values())),
        _number(seconds.with_prelabel if seconds else None),
        _number(seconds.without_prelabel if seconds else None),
        style="red" if quality.harms else None,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
