"""Shows the report: as tables on a terminal and as CSV; and what was learned."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap, zip_longest
from typing import Any, Final

from backend.feedback.report.hours_left import HoursLeft, hours
from backend.feedback.report.statistics import ORIGINS_IN_WORDS, PrelabelReport, in_percent
from backend.feedback.sums import GroupSums, LabelSums, by_name
from backend.telemetry.logs import printable
from clearclip_core.quantities import quantity

#: In two lines, so that all columns fit a terminal of 80 letters.
_COLUMNS: Final = (
    ">pic-\ntures",
    ">pre-\nlabels",
    ">accepted\n%",
    ">mean\nIoU %",
    ">saved\npaint %",
    ">false",
    ">missed",
)


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table for a terminal or a pipe; a heading that begins with ">" is of numbers.

    >>> print(text_table(("label", ">IoU"), [("car", "62.5 %"), ("sky", "8.1 %")]))
    label     IoU
    car    62.5 %
    sky     8.1 %
    """
    # A heading of several lines stands on the cells: its last line comes first here.
    titles = [each.removeprefix(">").split("\n")[::-1] for each in head]
    headings = list(zip_longest(*titles, fillvalue=""))[::-1]
    lines = headings + [tuple(map(printable, row)) for row in rows]

    columns = []
    for title, column in zip(head, zip(*lines, strict=True), strict=True):
        width = max(map(len, column))
        align = str.rjust if title.startswith(">") else str.ljust
        columns.append([align(cell, width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def report_text(report: PrelabelReport, *, is_complete: bool = False) -> str:
    """Return the report on the prelabels of a project for a terminal.

    It is complete if Label Studio was asked just now for all annotations of the project.
    """
    sums = report.sums
    lines = [_summary(report, is_complete)]
    if sums.all.labels:
        labels = by_name(sums.all.labels) | {"all": sums.all.total}
        for title, first, groups in (
            ("By label", "label", labels),
            (f"By {sums.step}", "from", _totals(sums.periods)),
            ("By model version", "version", _totals(report.newest_versions)),
        ):
            rows = starmap(_row, groups.items())
            lines += ["", title, text_table((first, *_COLUMNS), rows)]
    if report.hours_left is not None:
        lines += ["", *_hours_lines(report.hours_left)]
    if report.experiment is not None:
        lines += [report.experiment.sentence, *report.experiment.notes, ""]
    costs = {f"{label} costs more than it saves": why for label, why in report.harmful.items()}
    misses = {f"{label} is mostly missed": why for label, why in report.missing.items()}
    lines += [printable(f"{what}: {why}") for what, why in (costs | misses).items()]
    return "\n".join(lines)


def _totals(groups: Mapping[str, GroupSums]) -> dict[str, LabelSums]:
    return {name: group.total for name, group in groups.items()}


def _summary(report: PrelabelReport, is_complete: bool) -> str:
    kinds = [f"{count} {ORIGINS_IN_WORDS[kind]}" for kind, count in report.kinds.items() if count]
    if report.waiting:
        kinds.append(f"{report.waiting} are still to be read")
    if kinds:
        found = f"{quantity(sum(report.kinds.values()), 'annotation')}; {', '.join(kinds)}."
    elif is_complete:
        found = "Label Studio has no annotation of it."
    else:
        found = (
            "the database has no annotation of it. Where LABEL_STUDIO_API_KEY is set, those that "
            "Label Studio has are read first."
        )
    return f"Project {report.project}: {found}"


def _hours_lines(left: HoursLeft) -> list[str]:
    lines = [f"An annotation with a prelabel takes {left.seconds:.0f} s."]
    if left.summary and left.expected is not None:
        lines.append(f"Left at today's pace: {hours(left.expected.hours)} {left.summary}")
    return [*lines, left.missing, ""]


def _row(name: str, sums: LabelSums) -> list[str]:
    shares = (sums.accepted_share, sums.mean_iou, sums.saved_paint)
    percent = [in_percent(share).removesuffix(" %") for share in shares]
    pictures, prelabels = str(sums.pictures), str(sums.prelabels)
    return [name, pictures, prelabels, *percent, str(sums.false), str(sums.missed)]


def to_csv(report: PrelabelReport) -> str:
    """Return the report as CSV: one line for each label, in all, by period and by model version.

    Lines with the label "all" sum up all labels. A name that a spreadsheet would take for a formula
    gets a ' in front.
    """
    columns = ["period", "model_version", "label", "annotations", *LabelSums().figures()]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    sums = report.sums
    groups = [("all", "all", sums.all)]
    groups += [(period, "all", group) for period, group in sums.periods.items()]
    groups += [("all", version, group) for version, group in sums.versions.items()]
    for period, version, group in groups:
        where = {"period": period, "model_version": _cell(version)}
        figures = {"annotations": group.compared, **_flat(group.total)}
        writer.writerow({**where, "label": "all", **figures})
        for label, each in by_name(group.labels).items():
            writer.writerow({**where, "label": _cell(label), **_flat(each)})
    return file.getvalue()


def _cell(text: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula.

    >>> _cell("=1+1"), _cell("car")
    ("'=1+1", 'car')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _flat(sums: LabelSums) -> dict[str, Any]:
    return sums.figures() | {"relabelled": sum(sums.relabelled.values())}
