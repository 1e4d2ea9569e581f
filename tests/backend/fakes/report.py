"""The report, added up from each annotation: what the sums of the database are to be."""

from collections.abc import Iterable
from typing import get_args

from sqlalchemy import select

from backend.feedback.annotation_store import AnnotationStore, read_in
from backend.feedback.annotation_table import ANNOTATIONS, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.feedback.report.statistics import PrelabelReport
from backend.feedback.sums import (
    Grouping,
    GroupSums,
    LabelSums,
    ProjectSums,
    choose_step,
    groups_of,
)


def sums_of(changes: Iterable[LabelDiff]) -> LabelSums:
    sums = LabelSums()
    for change in changes:
        sums.add(change)
    return sums


def project_sums(reads: Iterable[ReadAnnotation]) -> ProjectSums:
    groups: dict[Grouping, dict[str, GroupSums]] = {each: {} for each in get_args(Grouping)}
    seen: dict[str, float] = {}
    broken: list[tuple[float, int, str]] = []
    for read in reads:
        for grouping, name in groups_of(read):
            groups[grouping].setdefault(name, GroupSums()).add(read)
        if read.kind == "compared":
            seen[read.version] = max(read.created, seen.get(read.version, read.created))
        if read.kind == "broken":
            task = f"Task {read.task}: " if read.task else ""
            broken.append((read.created, read.annotation, task + read.reason))
    days = sorted(groups["day"])
    step = choose_step(days[0], days[-1]) if days else "day"
    in_order = sorted(seen, key=lambda version: (seen[version], version))
    return ProjectSums(
        groups["all"].get("", GroupSums()),
        step,
        dict(sorted(groups[step].items())),
        {version: groups["version"][version] for version in in_order},
        {annotation: reason for _, annotation, reason in sorted(broken)},
    )


def report_of(reads: Iterable[ReadAnnotation], waiting: int = 0) -> PrelabelReport:
    return PrelabelReport(7, project_sums(reads), waiting)


def rows_of(annotations: AnnotationStore, project: int = 7) -> list[ReadAnnotation]:
    """Return what was read of a project's annotations, in the order of their creation."""
    its = ANNOTATIONS.c
    query = select(ANNOTATIONS).where(its.project == project, its.kind != "")
    with annotations._database.read() as connection:
        rows = connection.execute(query.order_by(its.created, its.annotation))
        return [read_in(row) for row in rows]
