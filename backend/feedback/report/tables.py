"""Writes the report, and what was learned, as tables: on a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.feedback.report.definitions import (
    MOST_SHOWN_VERSIONS,
    ORIGINS_IN_WORDS,
    REPORT_DEFINITIONS,
    in_percent,
)
from backend.feedback.report.hours_left import HoursLeft, hours
from backend.feedback.report.safe_scores import SafeScore
from backend.feedback.report.statistics import Group, PrelabelReport
from backend.feedback.sums import LabelSums, Seconds
from backend.telemetry.logs import printable
from clearclip_core.quantities import quantity

#: In two lines, so that all columns fit a terminal of 80 letters.
_COLUMNS = (
    "pic-\ntures",
    "pre-\nlabels",
    "accepted\n%",
    "mean\nIoU %",
    "boundary\nIoU %",
    "saved\npaint %",
    "false",
    "missed",
    "re-\nlabelled",
)


def print_report(report: PrelabelReport, console: Console, *, is_complete: bool = False) -> None:
    """Print the report on the prelabels of a project.

    Args:
        is_complete: whether Label Studio was asked just now for all annotations of the project.
    """
    console.print(_summary(report, is_complete))
    if report.all.labels:
        console.print(_labels(report))
        console.print()
        console.print(_groups(f"By {report.step}", "from", report.periods))
        console.print()
        console.print(
            _groups(_versions_shown(report), "version", report.versions[-MOST_SHOWN_VERSIONS:])
        )
        console.print()
        console.print(_seconds(report))
        console.print()
    if report.safe_scores:
        console.print(_safe_scores(report.safe_scores))
        console.print()
    if report.hours_left is not None:
        _print_hours(report.hours_left, console)
    for label, what in report.harmful.items():
        console.print(f"[bold red]{_safe(label)} costs more than it saves:[/] {_safe(what)}")
    for label, what in report.missing.items():
        console.print(f"[bold]{_safe(label)} is mostly missed:[/] {_safe(what)}")
    for name, text in REPORT_DEFINITIONS.items() if report.all.labels else ():
        console.print(f"[bold]{name}[/]: {_safe(text)}", style="dim", highlight=False)


def print_learned(learned: Mapping[str, Any], console: Console) -> None:
    """Print what a project has learned.

    Args:
        learned: from `backend.web.pages.learning.describe_learning`.
    """
    live, pinned = learned["live"], ", pinned" if learned["pinned"] else ""
    now = f"version {live} is live" if live else "the words alone"
    console.print(
        f"Project {learned['project']}: {now}{pinned}. Learned from: "
        f"{quantity(learned['annotations'], 'annotation')}; {learned['changed']} changed since the "
        "last step.",
        highlight=False,
    )
    if learned["trouble"]:
        console.print(f"[bold red]The last step has failed:[/] {_safe(learned['trouble'])}")
    if learned["waits"]:
        console.print("The newest version waits for `adapt use`.", highlight=False)
    if learned["versions"]:
        console.print(_versions(learned["versions"]))
    for version in learned["versions"]:
        if version["live"] or version is learned["versions"][0]:
            for label, reason in version["refused"].items():
                console.print(
                    f"Version {version['number']} leaves {_safe(label)} as it was: {_safe(reason)}",
                    highlight=False,
                )
    if learned["as_words"]:
        labels = ", ".join(map(_safe, learned["as_words"]))
        console.print(f"Labels that keep their words: {labels}.", highlight=False)


def _versions(versions: list[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Held-out IoU: mean over labels, on corrected pictures that learning did not use",
        caption="A version's model version ends with its annotations and number.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("version", justify="right")
    table.add_column("")
    for column in ("made", "annotations", "words alone", "learned"):
        table.add_column(column, justify="right")
    for each in versions:
        notes = ["live" if each["live"] else "" if each["better"] else "not passed"]
        notes += ["from a file"] if each["origin"] == "import" else []
        table.add_row(
            str(each["number"]),
            ", ".join(filter(None, notes)),
            datetime.fromtimestamp(each["created"]).strftime("%Y-%m-%d %H:%M"),
            str(each["annotations"]),
            in_percent(each["text_iou"]),
            in_percent(each["adapted_iou"]),
        )
    return table


def _safe(text: str) -> str:
    return escape(printable(text))


def _summary(report: PrelabelReport, is_complete: bool) -> str:
    kinds = [f"{count} {ORIGINS_IN_WORDS[kind]}" for kind, count in report.kinds.items() if count]
    if report.waiting:
        kinds.append(f"{report.waiting} are still to be read")
    if not kinds and is_complete:
        return f"Project {report.project}: Label Studio has no annotation of it."
    if not kinds:
        return (
            f"Project {report.project}: the database has no annotation of it. --backfill asks "
            "Label Studio for all that the project has."
        )
    return (
        f"Project {report.project}: {quantity(sum(report.kinds.values()), 'annotation')}; "
        f"{', '.join(kinds)}."
    )


def _labels(report: PrelabelReport) -> Table:
    table = _table("By label", "label")
    for label, statistics in report.all.labels.items():
        _row(table, label, statistics)
    _row(table, "all", report.all.total)
    return table


def _versions_shown(report: PrelabelReport) -> str:
    count = len(report.versions)
    left_out = f", the last {MOST_SHOWN_VERSIONS} of {count}" if count > MOST_SHOWN_VERSIONS else ""
    return f"By model version{left_out}"


def _groups(title: str, first: str, groups: tuple[Group, ...]) -> Table:
    table = _table(title, first)
    for group in groups:
        _row(table, group.name, group.total)
    return table


def _seconds(report: PrelabelReport) -> Table:
    table = _empty_table("Seconds an annotation, median", "", ("with prelabel", "without"))
    for group in (report.all, *report.periods, *report.versions[-MOST_SHOWN_VERSIONS:]):
        seconds = group.seconds
        name = "all" if group is report.all else group.name
        table.add_row(
            _safe(name), _number(seconds.with_prelabel), _number(seconds.without_prelabel)
        )
    return table


def _safe_scores(found: Mapping[str, SafeScore]) -> Table:
    columns = ("from\nscore", "masks", "no\nchange %", "at\nleast %")
    table = _empty_table("Scores from which on masks needed no change", "label", columns)
    for label, each in found.items():
        table.add_row(
            _safe(label),
            "-" if each.score is None else f"{each.score / 100:.2f}",
            str(each.masks),
            *(in_percent(share).removesuffix(" %") for share in (each.share, each.lower_bound)),
        )
    return table


def _print_hours(left: HoursLeft, console: Console) -> None:
    if left.tasks_left is not None:
        tasks = quantity(left.tasks_left, "task")
        console.print(f"Hours left at today's pace, for {tasks} without an annotation")
        table = _empty_table("", "", ("expected", "90 % range"))
        for name, each in (("with", left.with_prelabels), ("without", left.without_prelabels)):
            interval = f"{hours(each.low)} to {hours(each.high)}" if each else ""
            table.add_row(f"{name} prelabels", hours(each.hours) if each else "not known", interval)
        console.print(table)
    for sentence in left.missing:
        console.print(sentence)
    console.print()


def _table(title: str, first: str) -> Table:
    return _empty_table(title, first, _COLUMNS)


def _empty_table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold", min_width=10)
    for column in columns:
        table.add_column(column, justify="right", vertical="bottom", no_wrap=True)
    return table


def _row(table: Table, name: str, statistics: LabelSums) -> None:
    table.add_row(
        _safe(name),
        str(statistics.pictures),
        str(statistics.prelabels),
        *(
            in_percent(share).removesuffix(" %")
            for share in (
                statistics.accepted_share,
                statistics.mean_iou,
                statistics.mean_boundary_iou,
                statistics.saved_paint,
            )
        ),
        str(statistics.false),
        str(statistics.missed),
        str(sum(statistics.relabelled.values())),
        style="red" if statistics.harms else None,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def to_csv(report: PrelabelReport) -> str:
    """Return the report as CSV: one line for each label, in all, by period and by model version.

    Lines with the label "all" sum up all labels; only they have seconds. Lines of one label over
    all periods and versions have its safe score. A name that a spreadsheet
    would take for a formula gets a ' in front.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    groups = [("all", "all", report.all)]
    groups += [(group.name, "all", group) for group in report.periods]
    groups += [("all", group.name, group) for group in report.versions]
    for period, version, group in groups:
        where = {"period": period, "model_version": _cell(version)}
        figures = {"annotations": group.annotations, **_csv_seconds(group.seconds)}
        writer.writerow({**where, "label": "all", **figures, **_flat(group.total)})
        for label, statistics in group.labels.items():
            safe = _safe_score(report.safe_scores.get(label)) if group is report.all else {}
            writer.writerow({**where, "label": _cell(label), **_flat(statistics), **safe})
    return file.getvalue()


def _cell(text: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula.

    >>> _cell("=1+1"), _cell("car")
    ("'=1+1", 'car')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


_CSV_COLUMNS: Final = (
    "period",
    "model_version",
    "label",
    "annotations",
    "pictures",
    "prelabels",
    "accepted",
    "corrected",
    "deleted",
    "relabelled",
    "added",
    "received",
    "false",
    "missed",
    "accepted_share",
    "mean_iou",
    "mean_boundary_iou",
    "saved_paint",
    "predicted_px",
    "true_px",
    "shared_px",
    "seconds_with_prelabel",
    "seconds_without_prelabel",
    "safe_score",
    "safe_masks",
    "safe_share",
    "safe_lower_bound",
)


def _flat(statistics: LabelSums) -> dict[str, Any]:
    return statistics.figures() | {"relabelled": sum(statistics.relabelled.values())}


def _csv_seconds(seconds: Seconds) -> dict[str, Any]:
    return {
        "seconds_with_prelabel": seconds.with_prelabel,
        "seconds_without_prelabel": seconds.without_prelabel,
    }


def _safe_score(found: SafeScore | None) -> dict[str, Any]:
    return {f"safe_{name}": value for name, value in found.figures().items()} if found else {}
