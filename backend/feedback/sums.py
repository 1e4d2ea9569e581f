"""Adds up annotations of a project as they are read: by label, model version and period.

The database has a row for each group, which changes in the transaction that changes an annotation.
So a report reads a few rows, however many annotations there are, and agrees with what was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from backend.database.database import METADATA
from backend.feedback.annotation_table import ANNOTATIONS, AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff

#: The counts of a `LabelDiff` that are added up.
_COUNTED: Final = (
    "accepted",
    "corrected",
    "deleted",
    "added",
    "received",
    "predicted_px",
    "true_px",
    "shared_px",
    "redrawn_px",
)

#: Below this mean IoU, predictions of a label may be blamed for the work that they make.
_BLAMED_BELOW_IOU: Final = 0.5

#: An IoU is kept as a whole number of these parts, which can be taken away without rounding errors.
_PARTS: Final = 1 << 36

_BARE: Final = ("skipped", "unchecked", "reviewed", "repaired")  # kinds that are counted alone

_Key = TypeVar("_Key", int, str)
_T = TypeVar("_T")


#: What the report tells of a label, by the names of `LabelSums`.
_FIGURES: Final = [
    "pictures",
    "prelabels",
    "accepted",
    "corrected",
    "false",
    "missed",
    "relabelled",
    "accepted_share",
    "mean_iou",
    "saved_paint",
    "harms",
    "predicted_px",
    "true_px",
    "shared_px",
    "redrawn_px",
]


class LabelSums(Struct, array_like=True):
    """Running sums: differences are added, or taken away, one by one and not kept.

    >>> sums = LabelSums()
    >>> sums.add(LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6))
    >>> sums.saved_paint, sums.accepted_share, sums.mean_iou
    (0.4, 0.0, 0.5)
    """

    changes: int = 0  # the number of differences
    pictures: int = 0  # images where the label was predicted or is annotated
    measured: int = 0  # differences with an IoU
    iou_parts: int = 0
    accepted: int = 0
    corrected: int = 0  # predicted regions that cover other pixels now
    deleted: int = 0
    added: int = 0  # regions that the annotator drew
    received: int = 0  # regions that were predicted with another label
    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    relabelled: dict[str, int] = {}  # other label -> predicted regions that have it now
    redrawn_px: int = 0  # shared pixels that had to be painted again

    def add(self, change: LabelDiff, times: int = 1) -> None:
        """Add a difference; with ``times=-1``, take it away."""
        self.changes += times
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + times * getattr(change, name))
        for label, count in change.relabelled.items():
            add_count(self.relabelled, label, times * count)
        if (iou := change.iou) is not None:
            self.pictures += times
            self.measured += times
            self.iou_parts += times * round(iou * _PARTS)

    def add_all(self, other: LabelSums) -> None:
        for name in self.__struct_fields__:
            own, more = getattr(self, name), getattr(other, name)
            if isinstance(own, int):
                setattr(self, name, own + more)
                continue
            for key, count in more.items():
                add_count(own, key, count)

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over labels and images, in [0, 1]; None where there is none."""
        return self.iou_parts / _PARTS / self.measured if self.measured else None

    @property
    def prelabels(self) -> int:
        return self.accepted + self.corrected + self.false

    @property
    def false(self) -> int:
        """Predicted regions that were deleted or given another label."""
        return self.deleted + sum(self.relabelled.values())

    @property
    def missed(self) -> int:
        """Regions that were drawn by hand, or given this label in place of another."""
        return self.added + self.received

    @property
    def accepted_share(self) -> float | None:
        """Share of the predicted regions that were accepted; None where none was predicted."""
        return self.accepted / self.prelabels if self.prelabels else None

    @property
    def saved_paint(self) -> float | None:
        """Saved paint, at most 1, see `REPORT_DEFINITIONS`; None where no pixel is annotated."""
        if not self.true_px:
            return None
        return 1 - work_px(self) / self.true_px

    @property
    def _is_blamed(self) -> bool:
        """Whether the predicted masks are unlike the annotated ones, whoever drew these and how."""
        return (self.mean_iou or 0.0) < _BLAMED_BELOW_IOU

    @property
    def harms(self) -> bool:
        """Whether most predicted pixels are wrong, and masks are unlike those that were left."""
        return self._is_blamed and self.predicted_px - self.shared_px > self.shared_px

    @property
    def misses(self) -> bool:
        """Whether the predictions do no harm, but lack most of the annotated pixels."""
        return self._is_blamed and not self.harms and 2 * self.shared_px < self.true_px

    def figures(self) -> dict[str, Any]:
        """Return the figures of the report as JSON; shares to six digits."""
        found = ((name, getattr(self, name)) for name in _FIGURES)
        return {name: round(x, 6) if isinstance(x, float) else x for name, x in found}


def work_px(counts: LabelDiff | LabelSums) -> int:
    """Count the pixels that were painted and erased where a prediction was corrected.

    >>> work_px(LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6))
    6
    """
    painted = counts.true_px - counts.shared_px + counts.redrawn_px
    return painted + counts.predicted_px - counts.shared_px


def add_count(counts: dict[_Key, int], key: _Key, count: int) -> None:
    """Add a count, and forget a key that has none left."""
    counts[key] = counts.get(key, 0) + count
    if not counts[key]:
        del counts[key]


def by_name(labels: Mapping[str, _T]) -> dict[str, _T]:
    """Sort labels by their names, whatever their case."""
    return {name: labels[name] for name in sorted(labels, key=lambda name: (name.casefold(), name))}


class GroupSums(Struct):
    """Running sums: annotations are added, or taken away, one by one and not kept."""

    kinds: dict[AnnotationOrigin, int] = {}  # kind -> number of annotations
    total: LabelSums = msgspec.field(default_factory=LabelSums)  # the sums of all labels together
    labels: dict[str, LabelSums] = {}
    regions: dict[str, dict[str, int]] = {}  # see `RegionCounts`

    @property
    def compared(self) -> int:
        """The number of annotations that were compared with a prediction."""
        return self.kinds.get("compared", 0)

    def add(self, read: ReadAnnotation, times: int = 1) -> None:
        """Add an annotation; with ``times=-1``, take it away. Of `_BARE` the kind counts."""
        kinds: dict[str, int] = self.kinds  # type: ignore[assignment]
        add_count(kinds, read.kind, times)
        for place, counts in read.regions.items():
            its = self.regions.setdefault(place, {})
            for label, count in counts.items():
                add_count(its, label, times * count)
            if not its:
                del self.regions[place]
        if read.kind in _BARE:
            return
        pictures = self.total.pictures
        for change in read.changes:
            self.total.add(change, times)
            sums = self.labels.setdefault(change.label, LabelSums())
            sums.add(change, times)
            if not sums.changes:
                del self.labels[change.label]
        shown = {change.image for change in read.changes if change.iou is not None}
        self.total.pictures = pictures + times * len(shown)

    def renamed(self, names: Mapping[str, str]) -> GroupSums:
        """Return the sums with labels that have another name; those of one name are added up."""
        labels: dict[str, LabelSums] = {}
        for label, sums in self.labels.items():
            labels.setdefault(names.get(label, label), LabelSums()).add_all(sums)
        for made in labels.values():
            relabelled: dict[str, int] = {}
            for label, count in made.relabelled.items():
                add_count(relabelled, names.get(label, label), count)
            made.relabelled = relabelled
        return msgspec.structs.replace(self, labels=labels)

    def figures(self) -> dict[str, Any]:
        labels = {label: sums.figures() for label, sums in by_name(self.labels).items()}
        return {"annotations": self.compared, "total": self.total.figures(), "labels": labels}


Step = Literal["day", "week"]
Grouping = Literal["all", "day", "week", "version"]

#: Days from the first to the last annotation that are shown one by one; longer spans in weeks.
_DAYS_SHOWN: Final = 21


@dataclass(frozen=True)
class ProjectSums:
    """The sums of a project."""

    all: GroupSums  # over all annotations
    step: Step = "day"
    #: First day, as in ``2026-11-23`` -> sums, in ascending order; weeks begin on Monday, in UTC.
    periods: Mapping[str, GroupSums] = field(default_factory=dict)
    versions: Mapping[str, GroupSums] = field(default_factory=dict)  # the one seen last comes last
    broken: Mapping[int, str] = field(default_factory=dict)  # annotation -> why it is not read

    def renamed(self, names: Mapping[str, str]) -> ProjectSums:
        """Return the sums with labels that have another name, old -> new."""
        periods = {name: sums.renamed(names) for name, sums in self.periods.items()}
        versions = {name: sums.renamed(names) for name, sums in self.versions.items()}
        return replace(self, all=self.all.renamed(names), periods=periods, versions=versions)


def groups_of(read: ReadAnnotation) -> Iterator[tuple[Grouping, str]]:
    """Yield the groups that an annotation counts in, each with its name.

    >>> list(groups_of(ReadAnnotation(1, 7, 1, "scratch", created=1.8e9)))
    [('all', ''), ('day', '2027-01-15'), ('week', '2027-01-11')]
    """
    yield "all", ""
    if read.kind in _BARE or not read.created:
        return
    day = datetime.fromtimestamp(read.created, timezone.utc).date()
    yield "day", day.isoformat()
    yield "week", (day - timedelta(day.weekday())).isoformat()
    if read.kind == "compared":
        yield "version", read.version


def choose_step(first: str, last: str) -> Step:
    """Choose the length of a period by the first and the last day, as in ``2026-11-23``.

    >>> choose_step("2026-11-01", "2026-11-22"), choose_step("2026-11-01", "2026-11-23")
    ('day', 'week')
    """
    span = date.fromisoformat(last) - date.fromisoformat(first)
    return "week" if span > timedelta(_DAYS_SHOWN) else "day"


_SUMS: Final = sa.Table(
    "annotation_sums",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("grouping", sa.String(8), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("sums", sa.Text, nullable=False),  # JSON
)

_ROW: Final = _SUMS.c
_READ: Final = ANNOTATIONS.c

_MAX_PARSED: Final = 256  # rows whose parsed sums are kept in memory

_RowKey = tuple[int, Grouping, str]


def change_sums(
    connection: sa.Connection, before: ReadAnnotation | None, now: ReadAnnotation | None
) -> None:
    """Take away what was read of an annotation before, if anything, and add what is read now.

    To be called in the transaction that changes the annotation.

    Raises:
        msgspec.DecodeError: another version has stored the sums otherwise, see `sum_again`.
    """
    if before != now:
        signed = [(read, sign) for read, sign in ((before, -1), (now, 1)) if read is not None]
        _add(connection, signed)


def sum_again(connection: sa.Connection, reads: Iterable[ReadAnnotation]) -> None:
    """Forget the sums of all projects, and sum up all that was read anew."""
    connection.execute(sa.delete(_SUMS))
    _add(connection, ((read, 1) for read in reads))


def _add(connection: sa.Connection, signed: Iterable[tuple[ReadAnnotation, int]]) -> None:
    groups: dict[_RowKey, GroupSums] = {}
    for read, sign in signed:
        for group in groups_of(read):
            key = read.project, *group
            if key not in groups:
                stored = connection.scalar(sa.select(_ROW.sums).where(*_is(key)))
                groups[key] = msgspec.json.decode(stored or "{}", type=GroupSums)
            groups[key].add(read, sign)
    for key, sums in groups.items():
        connection.execute(sa.delete(_SUMS).where(*_is(key)))
        if sums.kinds:
            connection.execute(sa.insert(_SUMS).values(sums_row(key, sums)))


def read_sums(connection: sa.Connection, project: int) -> ProjectSums:
    """Return the sums of a project, by day, or by week where annotations span over three weeks."""
    step = _choose_step(connection, project)
    wanted = _ROW.grouping.in_(("all", step, "version"))
    found: dict[str, dict[str, GroupSums]] = {"all": {}, step: {}, "version": {}}
    for row in connection.execute(sa.select(_SUMS).where(_ROW.project == project, wanted)):
        found[row.grouping][row.name] = _parsed(row.sums)
    whole, versions = found["all"].get("", GroupSums()), found["version"]
    in_order = _versions_in_order(connection, project)
    return ProjectSums(
        whole,
        step,
        dict(sorted(found[step].items())),
        # PostgreSQL shows each statement what was committed before it: a version may be newer.
        {name: versions[name] for name in in_order if name in versions},
        _broken(connection, project) if "broken" in whole.kinds else {},
    )


def read_totals(connection: sa.Connection) -> dict[int, GroupSums]:
    """Return project -> the sums over all that was read of it, by ascending project."""
    query = sa.select(_ROW.project, _ROW.sums).where(_ROW.grouping == "all").order_by(_ROW.project)
    return {row.project: _parsed(row.sums) for row in connection.execute(query)}


@lru_cache(maxsize=_MAX_PARSED)
def _parsed(sums: str) -> GroupSums:
    """Parse the sums of a row, for reading alone: most rows are as they were at the last look."""
    return msgspec.json.decode(sums, type=GroupSums)


def _is(key: _RowKey) -> tuple[sa.ColumnElement[bool], ...]:
    project, grouping, name = key
    return _ROW.project == project, _ROW.grouping == grouping, _ROW.name == name


def sums_row(key: _RowKey, sums: GroupSums) -> dict[str, Any]:
    project, grouping, name = key
    text = msgspec.json.encode(sums).decode()
    return {"project": project, "grouping": grouping, "name": name, "sums": text}


def _choose_step(connection: sa.Connection, project: int) -> Step:
    query = sa.select(sa.func.min(_ROW.name), sa.func.max(_ROW.name))
    days = query.where(_ROW.project == project, _ROW.grouping == "day")
    first, last = connection.execute(days).one()
    return "day" if first is None else choose_step(first, last)


def _versions_in_order(connection: sa.Connection, project: int) -> list[str]:
    """List model versions by the newest annotation that began with each; an index finds these."""
    newest = sa.select(sa.func.max(_READ.created)).where(
        _READ.project == project, _READ.version == _ROW.name, _READ.kind == "compared"
    )
    query = sa.select(_ROW.name).where(_ROW.project == project, _ROW.grouping == "version")
    query = query.order_by(newest.scalar_subquery(), _ROW.name)
    return list(connection.scalars(query))


def _broken(connection: sa.Connection, project: int) -> dict[int, str]:
    query = sa.select(_READ.annotation, _READ.task, _READ.reason)
    broken = query.where(_READ.project == project, _READ.kind == "broken")
    rows = connection.execute(broken.order_by(_READ.created, _READ.annotation))
    return {
        row.annotation: f"Task {row.task}: {row.reason}" if row.task else row.reason for row in rows
    }
