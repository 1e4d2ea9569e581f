"""The sums of a project that a report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Final, Literal, get_args

from backend.feedback.read_annotation import ReadAnnotation
from backend.feedback.sums.group_sums import GroupSums

Step = Literal["day", "week"]
Grouping = Literal["all", "day", "week", "version"]

#: Days from the first to the last annotation that are shown one by one; longer spans in weeks.
_DAYS_SHOWN: Final = 21


@dataclass(frozen=True)
class ProjectSums:
    """The sums of a project.

    Attributes:
        all: over all annotations.
        step: the length of a period.
        periods: first day of a period, as in ``2026-11-23`` -> its sums, in ascending order. A week
            begins on Monday, in UTC.
        versions: model version -> sums over the annotations that began with it, in the order in
            which versions were first seen.
        last_seen: model version -> when the last annotation that began with it was made, in seconds
            since the epoch; the version seen last comes last.
        broken: id of an annotation that could not be read -> the reason.
    """

    all: GroupSums
    step: Step = "day"
    periods: Mapping[str, GroupSums] = field(default_factory=dict)
    versions: Mapping[str, GroupSums] = field(default_factory=dict)
    last_seen: Mapping[str, float] = field(default_factory=dict)
    broken: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reads: Iterable[ReadAnnotation], step: Step | None = None) -> ProjectSums:
        """Add up annotations; none of them is kept in memory.

        Args:
            reads: in whatever order.
            step: the length of a period; by default a day, or a week where annotations span more
                than three weeks.

        Raises:
            ValueError: `step` is neither day nor week.
        """
        check_step(step)
        groups: dict[Grouping, dict[str, GroupSums]] = {}
        groups = {grouping: {} for grouping in get_args(Grouping)}
        first_seen: dict[str, float] = {}
        last_seen: dict[str, float] = {}
        broken: list[tuple[float, int, str]] = []
        for read in reads:
            for grouping, name in groups_of(read):
                groups[grouping].setdefault(name, GroupSums()).add(read)
            if read.kind == "compared":
                first = first_seen.setdefault(read.version, read.created)
                first_seen[read.version] = min(first, read.created)
                last = last_seen.setdefault(read.version, read.created)
                last_seen[read.version] = max(last, read.created)
            if read.kind == "broken":
                broken.append((read.created, read.annotation, read.reason))
        days = sorted(groups["day"])
        chosen = step or (choose_step(days[0], days[-1]) if days else "day")
        return cls(
            groups["all"].get("", GroupSums()),
            chosen,
            dict(sorted(groups[chosen].items())),
            {version: groups["version"][version] for version in in_order(first_seen)},
            {version: last_seen[version] for version in in_order(last_seen)},
            {annotation: reason for _, annotation, reason in sorted(broken)},
        )


def groups_of(read: ReadAnnotation) -> Iterator[tuple[Grouping, str]]:
    """Yield the groups that an annotation counts in, each with its name.

    >>> list(groups_of(ReadAnnotation(1, 7, 1, "scratch", created=1.8e9)))
    [('all', ''), ('day', '2027-01-15'), ('week', '2027-01-11')]
    """
    yield "all", ""
    if read.kind == "skipped":
        return
    day = datetime.fromtimestamp(read.created, timezone.utc).date()
    yield "day", day.isoformat()
    yield "week", (day - timedelta(day.weekday())).isoformat()
    if read.kind == "compared":
        yield "version", read.version


def in_order(times: Mapping[str, float]) -> list[str]:
    """Return names by their times; by name where times are equal.

    >>> in_order({"c": 1.0, "b": 0.0, "a": 1.0})
    ['b', 'a', 'c']
    """
    return sorted(times, key=lambda name: (times[name], name))


def check_step(step: str | None) -> None:
    """Refuse a step that is neither day nor week nor None.

    Raises:
        ValueError: it is not.
    """
    if step is not None and step not in get_args(Step):
        raise ValueError(f"Expected argument `step` to be day or week, but got {step!r}.")


def choose_step(first: str, last: str) -> Step:
    """Choose the length of a period by the first and the last day, as in ``2026-11-23``.

    >>> choose_step("2026-11-01", "2026-11-22"), choose_step("2026-11-01", "2026-11-23")
    ('day', 'week')
    """
    span = date.fromisoformat(last) - date.fromisoformat(first)
    return "week" if span > timedelta(_DAYS_SHOWN) else "day"
