"""Sums up what prelabels save in a project: by label, by time and by model version.

The figures come from annotations that `backend.feedback.annotation_reader` has read. `DEFINITIONS`
defines each of them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from operator import add, attrgetter
from statistics import median
from typing import Any, Final, Literal, get_args

from backend.feedback.annotation_store import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.telemetry.logs import printable
from clearclip_core.evaluation.mask_overlap import MaskOverlap

Step = Literal["day", "week"]

#: Days from the first to the last annotation that are shown one by one; longer spans in weeks.
_DAYS_SHOWN: Final = 21

#: Images of a label below which its figures say little.
FEW: Final = 5

#: Model versions that pages and terminals show, the newest; files have all.
MOST_VERSIONS: Final = 50

Json = dict[str, Any]

DEFINITIONS: Final[Mapping[str, str]] = {
    "compared": "Annotations that began with a prediction of this backend. Each counts by itself, "
    "also where a task has several. Where the prediction has been deleted since, they keep the "
    "figures that they had then.",
    "accepted": "Share of the predicted regions that were submitted with the pixels and the label "
    "that they had.",
    "mean IoU": "Intersection over union of what was predicted and what was left, of all pixels of "
    "a label in a picture together; mean over all pictures where either has the label.",
    "boundary IoU": "The same of the pixels within 2 % of the picture's diagonal of an edge "
    "(Cheng et al., 2021).",
    "saved paint": "1 - (pixels painted + pixels erased) / pixels of the label in the annotations, "
    "over all pictures: 1 where nothing was left to do, 0 where drawing it from nothing had been "
    "as much, below 0 where the prediction made more work than none.",
    "false": "Predicted regions that were deleted or given another label.",
    "missed": "Regions that the annotator drew, or gave this label in place of another.",
    "relabelled": "Predicted regions that were given another label.",
    "seconds": "Median of the time that Label Studio has measured for an annotation (lead_time): "
    "of those that are compared, and of those that began from nothing. They are of other "
    "pictures, and often of other people.",
}

#: The kinds of annotations in words, as the end of a sentence.
KINDS: Final[Mapping[AnnotationOrigin, str]] = {
    "compared": "began with a prediction of this backend",
    "scratch": "began from nothing",
    "copy": "are copies of another annotation",
    "converted": "are predictions that were made annotations as they are",
    "foreign": "began with a prediction of another model",
    "lost": "began with a prediction that has been deleted",
    "skipped": "were skipped",
    "broken": "could not be read",
}


@dataclass(frozen=True)
class LabelStatistics:
    """Sums over the differences of a label, or of all labels, on images.

    Attributes:
        pictures: images where the label was predicted or is annotated.
        accepted: predicted regions that were left as they are.
        corrected: predicted regions that cover other pixels now.
        deleted: predicted regions that are gone.
        relabelled: name of another label -> predicted regions that have that label now.
        added: regions that the annotator drew.
        received: regions that were predicted with another label.
        predicted_px: pixels of the predictions.
        true_px: pixels of the annotations.
        shared_px: pixels of both.
        mean_iou: mean over `pictures`, in [0, 1]; None where there is none.
        mean_boundary_iou: mean over images with a boundary, in [0, 1]; None without any.

    >>> diff = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)
    >>> made = LabelStatistics.of([diff])
    >>> made.saved_paint, made.accepted_share, made.mean_iou
    (0.4, 0.0, 0.5)
    """

    pictures: int = 0
    accepted: int = 0
    corrected: int = 0
    deleted: int = 0
    relabelled: Mapping[str, int] = field(default_factory=dict)
    added: int = 0
    received: int = 0
    predicted_px: int = 0
    true_px: int = 0
    shared_px: int = 0
    mean_iou: float | None = None
    mean_boundary_iou: float | None = None

    @classmethod
    def of(cls, changes: Iterable[LabelDiff]) -> LabelStatistics:
        """Sum up differences."""
        sums = _LabelSums()
        for change in changes:
            sums.add(change)
        return sums.statistics()

    @property
    def prelabels(self) -> int:
        """Predicted regions."""
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
        """Saved paint, at most 1, see `DEFINITIONS`; None where no pixel is annotated."""
        return MaskOverlap(self.predicted_px, self.true_px, self.shared_px).saved_paint

    @property
    def harms(self) -> bool:
        """Whether the predictions make more work than drawing from nothing."""
        return self.predicted_px - self.shared_px > self.shared_px

    @property
    def misses(self) -> bool:
        """Whether the predictions do no harm, but lack most of the annotated pixels."""
        return not self.harms and 2 * self.shared_px < self.true_px

    def to_json(self) -> Json:
        """Return the figures as JSON; shares to six digits."""
        return {
            "pictures": self.pictures,
            "prelabels": self.prelabels,
            "accepted": self.accepted,
            "corrected": self.corrected,
            "deleted": self.deleted,
            "relabelled": dict(self.relabelled),
            "added": self.added,
            "received": self.received,
            "false": self.false,
            "missed": self.missed,
            "accepted_share": _round(self.accepted_share),
            "mean_iou": _round(self.mean_iou),
            "mean_boundary_iou": _round(self.mean_boundary_iou),
            "saved_paint": _round(self.saved_paint),
            "harms": self.harms,
            "predicted_px": self.predicted_px,
            "true_px": self.true_px,
            "shared_px": self.shared_px,
        }


_SUMMED: Final = (
    "accepted",
    "corrected",
    "deleted",
    "added",
    "received",
    "predicted_px",
    "true_px",
    "shared_px",
)

_summed: Final[Callable[[LabelDiff], tuple[int, ...]]] = attrgetter(*_SUMMED)


@dataclass
class _LabelSums:
    """Running sums of `LabelStatistics`: differences are added one by one and not kept."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_SUMMED))
    relabelled: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    iou: float = 0.0
    bands: int = 0
    boundary_iou: float = 0.0

    def add(self, change: LabelDiff) -> None:
        self.counts = list(map(add, self.counts, _summed(change)))
        if change.relabelled:
            self.relabelled.update(change.relabelled)
        if (iou := change.iou) is not None:
            self.pictures += 1
            self.iou += iou
        if (boundary_iou := change.boundary_iou) is not None:
            self.bands += 1
            self.boundary_iou += boundary_iou

    def add_all(self, other: _LabelSums) -> None:
        self.counts = list(map(add, self.counts, other.counts))
        self.relabelled.update(other.relabelled)
        self.pictures += other.pictures
        self.iou += other.iou
        self.bands += other.bands
        self.boundary_iou += other.boundary_iou

    def statistics(self) -> LabelStatistics:
        return LabelStatistics(
            pictures=self.pictures,
            relabelled=dict(self.relabelled.most_common()),
            mean_iou=self.iou / self.pictures if self.pictures else None,
            mean_boundary_iou=self.boundary_iou / self.bands if self.bands else None,
            **dict(zip(_SUMMED, self.counts, strict=True)),
        )


@dataclass
class _DaySums:
    """Running sums of the annotations of one day and one model version."""

    compared: int = 0
    labels: defaultdict[str, _LabelSums] = field(default_factory=lambda: defaultdict(_LabelSums))
    with_prelabel: list[float] = field(default_factory=list)
    without_prelabel: list[float] = field(default_factory=list)

    def add(self, read: ReadAnnotation, label: str | None) -> None:
        if read.kind == "compared":
            self.compared += 1
        for change in read.changes:
            if label in (None, change.label):
                self.labels[change.label].add(change)
        times = {"compared": self.with_prelabel, "scratch": self.without_prelabel}
        if read.kind in times and read.seconds is not None and read.seconds > 0:
            times[read.kind].append(read.seconds)


@dataclass(frozen=True)
class Seconds:
    """How long annotations took, in seconds.

    Attributes:
        with_prelabel: median of those that began with a prediction; None where none was measured.
        without_prelabel: median of those that began from nothing; None where none was measured.
        n_with: annotations with a prediction that were measured.
        n_without: annotations from nothing that were measured.
    """

    with_prelabel: float | None = None
    without_prelabel: float | None = None
    n_with: int = 0
    n_without: int = 0

    @classmethod
    def of(cls, with_: Sequence[float], without: Sequence[float]) -> Seconds:
        """Take the medians of times with and without a prediction, in seconds."""
        return cls(
            median(with_) if with_ else None,
            median(without) if without else None,
            len(with_),
            len(without),
        )

    def to_json(self) -> Json:
        """Return the figures as JSON."""
        return {
            "with_prelabel": self.with_prelabel,
            "without_prelabel": self.without_prelabel,
            "n_with": self.n_with,
            "n_without": self.n_without,
        }


@dataclass(frozen=True)
class Group:
    """The statistics of some annotations.

    Attributes:
        name: the first day of a period, or a model version.
        annotations: how many were compared with a prediction.
        total: the statistics of all labels together.
        labels: name of a label -> its statistics.
        seconds: how long the annotations took.
    """

    name: str
    annotations: int
    total: LabelStatistics
    labels: Mapping[str, LabelStatistics]
    seconds: Seconds

    @classmethod
    def of(cls, name: str, all_sums: Iterable[_DaySums]) -> Group:
        """Add up running sums."""
        whole, total = _DaySums(), _LabelSums()
        for day in all_sums:
            whole.compared += day.compared
            whole.with_prelabel += day.with_prelabel
            whole.without_prelabel += day.without_prelabel
            for label, sums in day.labels.items():
                whole.labels[label].add_all(sums)
                total.add_all(sums)
        return cls(
            name,
            whole.compared,
            total.statistics(),
            {
                name: whole.labels[name].statistics()
                for name in sorted(whole.labels, key=str.casefold)
            },
            Seconds.of(whole.with_prelabel, whole.without_prelabel),
        )

    def to_json(self) -> Json:
        """Return the figures as JSON."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.to_json(),
            "labels": {label: statistics.to_json() for label, statistics in self.labels.items()},
            "seconds": self.seconds.to_json(),
        }


@dataclass(frozen=True)
class PrelabelReport:
    """The report on the prelabels of a project.

    Attributes:
        project: its id.
        kinds: kind -> number of annotations.
        all: the statistics of all annotations.
        periods: by the day or week (from Monday, UTC) in which annotations were submitted.
        step: the length of a period.
        versions: by model version, in the order in which they were first seen.
        broken: id of an annotation that could not be read -> the reason.
        waiting: how many annotations are still to be read.
        label: the only label of the figures; None for all labels.
    """

    project: int
    kinds: Mapping[AnnotationOrigin, int]
    all: Group
    periods: tuple[Group, ...]
    step: Step
    versions: tuple[Group, ...]
    broken: Mapping[int, str] = field(default_factory=dict)
    waiting: int = 0
    label: str | None = None

    @property
    def harmful(self) -> dict[str, str]:
        """Name of a label whose predictions make more work than none -> advice."""
        found = {name: made for name, made in self.all.labels.items() if made.harms}
        return {name: advice(made) for name, made in found.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Name of a label whose predictions do no harm, but lack most pixels -> advice."""
        return {
            name: f"{round(100 * (1 - made.shared_px / made.true_px))} % of its pixels were "
            "painted by hand: add words for it to its predicted_values. What was painted "
            f"teaches the project's next version, where that is on.{_few(made)}"
            for name, made in self.all.labels.items()
            if made.misses
        }

    def to_json(self) -> Json:
        """Return the report as JSON, with the definitions."""
        return {
            "project": self.project,
            "label": self.label,
            "annotations": dict(self.kinds),
            "waiting": self.waiting,
            "all": self.all.to_json(),
            "step": self.step,
            "periods": [group.to_json() for group in self.periods],
            "versions": [group.to_json() for group in self.versions],
            "harmful": self.harmful,
            "missing": self.missing,
            "broken": {str(annotation): why for annotation, why in self.broken.items()},
            "definitions": dict(DEFINITIONS),
        }


def measure(
    project: int,
    reads: Iterable[ReadAnnotation],
    *,
    waiting: int = 0,
    step: Step | None = None,
    label: str | None = None,
) -> PrelabelReport:
    """Make the report of what was read of a project's annotations.

    Args:
        project: its id.
        reads: in the order in which the annotations were made; none of them is kept in memory.
        waiting: how many annotations are still to be read.
        step: the length of a period; by default a day, or a week where annotations span more than
            three weeks.
        label: count this label only; by default all labels.

    Raises:
        ValueError: `step` is neither day nor week.
    """
    if step is not None and step not in get_args(Step):
        raise ValueError(f"Expected argument `step` to be day or week, but got {step!r}.")
    kinds: Counter[AnnotationOrigin] = Counter()
    broken = {}
    all_sums: defaultdict[tuple[date, str | None], _DaySums] = defaultdict(_DaySums)
    for read in reads:
        kinds[read.kind] += 1
        if read.kind == "broken":
            broken[read.annotation] = read.reason
        if read.kind != "skipped":
            version = read.version if read.kind == "compared" else None
            all_sums[_day(read), version].add(read, label)
    chosen = step or _step([day for day, _ in all_sums])
    days = ((_start(day, chosen).isoformat(), each) for (day, _), each in all_sums.items())
    versions = ((name, each) for (_, name), each in all_sums.items() if name is not None)
    return PrelabelReport(
        project=project,
        kinds={kind: kinds[kind] for kind in get_args(AnnotationOrigin)},
        all=Group.of("all", all_sums.values()),
        periods=_groups(days),
        step=chosen,
        versions=_groups(versions),
        broken=broken,
        waiting=waiting,
        label=label,
    )


def advice(statistics: LabelStatistics) -> str:
    """Return advice on a label whose predictions make more work than none.

    >>> made = LabelStatistics(pictures=9, relabelled={"dog": 7}, corrected=2, predicted_px=5)
    >>> print(advice(made))
    7 of its 9 regions became "dog": give the two labels predicted_values that tell them apart.
    """
    few = _few(statistics)
    prelabels = statistics.prelabels
    if 2 * sum(statistics.relabelled.values()) >= prelabels > 0:
        name, count = next(iter(statistics.relabelled.items()))
        return (
            f'{count} of its {prelabels} regions became "{name}": give the two labels '
            f"predicted_values that tell them apart.{few}"
        )
    if 2 * statistics.deleted >= prelabels > 0:
        return (
            f"{statistics.deleted} of its {prelabels} regions were deleted: raise its "
            "model_score_threshold, or leave the label out of the predictions with "
            f'model_score_threshold="1".{few}'
        )
    wrong = round(100 * (1 - statistics.shared_px / statistics.predicted_px)) if prelabels else 0
    return (
        f"{wrong} % of its predicted pixels were erased: raise its model_score_threshold, or add "
        f"words for it to its predicted_values.{few}"
    )


def _few(statistics: LabelStatistics) -> str:
    return (
        f" So far there are {statistics.pictures} pictures only."
        if statistics.pictures < FEW
        else ""
    )


def to_csv(report: PrelabelReport) -> str:
    """Return the report as CSV: one line for each label, in all, by period and by model version.

    Lines with the label "all" sum up all labels; only they have seconds. A name that a spreadsheet
    would take for a formula gets a ' in front.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    groups = [("all", "all", report.all)]
    groups += [(group.name, "all", group) for group in report.periods]
    groups += [("all", group.name, group) for group in report.versions]
    for period, version, group in groups:
        where = {"period": period, "model_version": _cell(version)}
        figures = {"annotations": group.annotations, **_seconds(group.seconds)}
        writer.writerow({**where, "label": "all", **figures, **_flat(group.total)})
        for label, statistics in group.labels.items():
            writer.writerow({**where, "label": _cell(label), **_flat(statistics)})
    return file.getvalue()


def _cell(text: str) -> str:
    """Return a name as a cell that no spreadsheet takes for a formula.

    >>> _cell("=1+1"), _cell("car")
    ("'=1+1", 'car')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


_COLUMNS: Final = (
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
)


def _flat(statistics: LabelStatistics) -> Json:
    return statistics.to_json() | {"relabelled": sum(statistics.relabelled.values())}


def _seconds(seconds: Seconds) -> Json:
    return {
        "seconds_with_prelabel": seconds.with_prelabel,
        "seconds_without_prelabel": seconds.without_prelabel,
    }


def _groups(all_sums: Iterable[tuple[str, _DaySums]]) -> tuple[Group, ...]:
    """Group running sums by their names, in the order in which these are first seen."""
    found: dict[str, list[_DaySums]] = {}
    for name, sums in all_sums:
        found.setdefault(name, []).append(sums)
    return tuple(Group.of(name, some) for name, some in found.items())


def _day(read: ReadAnnotation) -> date:
    return datetime.fromtimestamp(read.created, timezone.utc).date()


def _step(days: Sequence[date]) -> Step:
    return "week" if days and max(days) - min(days) > timedelta(_DAYS_SHOWN) else "day"


def _start(day: date, step: Step) -> date:
    """Return the first day of the period that a day is in.

    >>> _start(date(2026, 11, 25), "week").isoformat()
    '2026-11-23'
    """
    return day if step == "day" else day - timedelta(day.weekday())


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
