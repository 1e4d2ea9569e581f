"""What the prelabels of a project save, as pages show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from msgspec import Struct

from backend.feedback.annotation_table import AnnotationOrigin
from backend.feedback.experiment import ENOUGH, ONE_IN, Experiment
from backend.feedback.report.periods import Period
from backend.feedback.report.statistics import (
    FEW,
    ORIGINS_IN_WORDS,
    PrelabelReport,
    in_percent,
    is_alarm,
)
from backend.feedback.sums import GroupSums, LabelSums, by_name
from backend.views.curve import Curve
from backend.views.pace import pace_curves, thin_periods
from clearclip_core.quantities import grouped, quantity

_TILES: Final = {
    "Accepted": "accepted as they are",
    "Mean IoU": "mean IoU",
    "Saved paint": "saved paint",
}

_NEEDED: Final = ONE_IN * ENOUGH  # tasks without a prediction that a measurement takes
_BROKEN_SHOWN: Final = 10


class Cell(Struct, frozen=True):
    """A figure of a table, and the head of its column."""

    column: str
    text: str
    is_bad: bool = False


class Row(Struct, frozen=True):
    """A line of a table of figures."""

    name: str
    cells: tuple[Cell, ...]
    note: str = ""  # beside the name

    @property
    def beside(self) -> str:
        """What stands beside the name; "" where nothing does."""
        return f" {self.note}" if self.note else ""

    @classmethod
    def of(cls, name: str, sums: LabelSums, note: str = "") -> Row:
        """Return the figures of some annotations.

        Saved paint alone can be bad: where it is known, and on enough pictures.
        """
        is_bad = is_alarm(sums) and sums.saved_paint is not None
        figures = {
            "Pictures": grouped(sums.pictures),
            "Prelabels": grouped(sums.prelabels),
            "Accepted": in_percent(sums.accepted_share),
            "Mean IoU": in_percent(sums.mean_iou),
            "Saved paint": in_percent(sums.saved_paint),
            "False": grouped(sums.false),
            "Missed": grouped(sums.missed),
        }
        bad = "Saved paint" if is_bad else ""
        return cls(
            name, tuple(Cell(head, text, head == bad) for head, text in figures.items()), note
        )


class Tile(Struct, frozen=True):
    """A large figure, and what it is."""

    text: str
    name: str
    is_bad: bool = False


class Measurement(Struct, frozen=True):
    """The time that a prediction saves: what is known of it, and whether it may be measured."""

    found: Experiment | None  # the newest experiment
    unseen: int | None  # tasks that one may draw from; None where nobody says

    @property
    def is_shown(self) -> bool:
        return self.found is not None or self.unseen is not None

    @property
    def is_running(self) -> bool:
        return self.found is not None and self.found.ended is None

    @property
    def has_enough(self) -> bool:
        """Whether there are enough tasks to draw from."""
        return self.unseen is not None and self.unseen >= _NEEDED

    @property
    def offer(self) -> str:
        """What a measurement costs, and what it takes; "" where none can begin."""
        if self.is_running or self.unseen is None:
            return ""
        short = ""
        if not self.has_enough:
            instead = "Import more pictures, or withdraw the job that has predicted them"
            short = f", and it takes {grouped(_NEEDED)}. {instead}"
        return (
            f"One task in {ONE_IN}, at random, gets no prediction until {ENOUGH} of these are "
            f"annotated, or none is left. That costs the time to draw {ENOUGH} pictures from "
            "nothing; clicks, boxes and words are answered. Only tasks without a prediction take "
            f"part: {grouped(self.unseen)} are left{short}."
        )


class ReportView(Struct, frozen=True):
    """The figures of a report in the order in which a page shows them."""

    whole: Row  # of all labels
    labels: tuple[Row, ...]
    periods: tuple[Row, ...]
    versions: tuple[Row, ...]
    curves: tuple[Curve, ...]  # those that have two figures or more
    thin: str  # which figures of the curves are missing
    compared: str  # what the figures are made of, in sentences
    counts: Mapping[str, int]  # kind of annotations, in words -> how many there are
    tiles: tuple[Tile, ...]  # the most important figures
    broken: tuple[tuple[int, str], ...]  # annotations that cannot be read, and why: the first ones

    @property
    def present(self) -> dict[str, str]:
        """Kind of annotations -> how many there are, where there are some."""
        return {kind: grouped(count) for kind, count in self.counts.items() if count}

    @property
    def absent(self) -> list[str]:
        """Kinds of annotations that there are none of."""
        return [kind for kind, count in self.counts.items() if not count]


def report_view(report: PrelabelReport, periods: Sequence[Period]) -> ReportView:
    """Return what the page of a report shows of its figures.

    Args:
        report: what was read of the annotations.
        periods: its newest periods, the oldest of them first.
    """
    sums = report.sums
    curves = tuple(each for each in pace_curves(periods, sums.step) if each.is_drawn)
    thin = thin_periods(periods, sums.step) if curves else ""
    broken = tuple(islice(sums.broken.items(), _BROKEN_SHOWN))
    labels, versions = _label_rows(sums.all.labels), _group_rows(report.newest_versions)
    counts = {ORIGINS_IN_WORDS[kind]: count for kind, count in report.kinds.items()}

    return ReportView(
        whole=Row.of("All", sums.all.total),
        labels=labels,
        periods=_group_rows(sums.periods),
        versions=versions,
        curves=curves,
        thin=thin,
        compared=_compared(report),
        counts=counts,
        tiles=_tiles(report),
        broken=broken,
    )


def _tiles(report: PrelabelReport) -> tuple[Tile, ...]:
    cells = {cell.column: cell for cell in Row.of("All", report.sums.all.total).cells}
    tiles = [
        Tile(cells[column].text, name, cells[column].is_bad) for column, name in _TILES.items()
    ]
    left = report.hours_left
    if left is not None:
        tiles.append(Tile(f"{left.seconds:.0f} s", f"with prelabel ({grouped(left.annotations)})"))
    return tuple(tiles)


def read_again(unread: int) -> str:
    """Say that all annotations are read again, and how many are left.

    >>> read_again(0)
    'All annotations are being read again, the newest first.'
    """
    left = f": {grouped(unread)} are left" if unread else ""
    return f"All annotations are being read again, the newest first{left}."


def _label_rows(labels: Mapping[str, LabelSums]) -> tuple[Row, ...]:
    return tuple(
        Row.of(name, sums, "few" if sums.pictures < FEW else "")
        for name, sums in by_name(labels).items()
    )


def _group_rows(groups: Mapping[str, GroupSums]) -> tuple[Row, ...]:
    return tuple(Row.of(name, group.total) for name, group in groups.items())


def _compared(report: PrelabelReport) -> str:
    """Say what the figures are made of, and what is in none of them."""
    kinds = report.kinds
    compared, unchecked = kinds["compared"], kinds["unchecked"]
    sentences = [f"{quantity(compared, 'annotation')} compared."]
    if unchecked:
        sentences.append(
            f"{grouped(unchecked)} of {grouped(compared + unchecked)} "
            f"{ORIGINS_IN_WORDS['unchecked']}: they are in no figure but the times, as nobody can "
            "have looked at their masks."
        )
    alone: tuple[AnnotationOrigin, ...] = ("reviewed", "repaired")
    sentences += [
        f"{grouped(kinds[kind])} {ORIGINS_IN_WORDS[kind]}: they are in no figure."
        for kind in alone
        if kinds[kind]
    ]
    return " ".join(sentences)
