"""The report, added up from each annotation: what the sums of the database are to be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.statistics import PrelabelReport, make_report
from backend.feedback.sums import (
    Grouping,
    GroupSums,
    LabelSums,
    ProjectSums,
    Step,
    choose_step,
    groups_of,
    in_order,
)


def sums_of(changes: Iterable[LabelDiff]) -> LabelSums:
    """Add up the differences of one label."""
    sums = LabelSums()
    for change in changes:
        sums.add(change)
    return sums


def project_sums(reads: Iterable[ReadAnnotation], step: Step | None = None) -> ProjectSums:
    """Add up annotations, in whatever order."""
    groups: dict[Grouping, dict[str, GroupSums]] = {each: {} for each in get_args(Grouping)}
    seen: dict[str, list[float]] = {}
    broken: list[tuple[float, int, str]] = []
    for read in reads:
        for grouping, name in groups_of(read):
            groups[grouping].setdefault(name, GroupSums()).add(read)
        if read.kind == "compared":
            seen.setdefault(read.version, []).append(read.created)
        if read.kind == "broken":
            broken.append((read.created, read.annotation, read.reason))
    days = sorted(groups["day"])
    chosen = step or (choose_step(days[0], days[-1]) if days else "day")
    first, last = ({name: end(its) for name, its in seen.items()} for end in (min, max))
    return ProjectSums(
        groups["all"].get("", GroupSums()),
        chosen,
        dict(sorted(groups[chosen].items())),
        {version: groups["version"][version] for version in in_order(first)},
        {version: last[version] for version in in_order(last)},
        {annotation: reason for _, annotation, reason in sorted(broken)},
    )


def project_statistics(
    project: int,
    reads: Iterable[ReadAnnotation],
    *,
    waiting: int = 0,
    step: Step | None = None,
    label: str | None = None,
) -> PrelabelReport:
    """Make the report of annotations."""
    return make_report(project, project_sums(reads, step), waiting=waiting, label=label)
