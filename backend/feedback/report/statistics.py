"""What the prelabels of a project save: figures by label, by time and by model version.

All of it comes from what `backend.feedback.annotation_reader` has read. `DEFINITIONS` says what each figure is.
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

Step = Literal["day", "week"]

#: Days from the first to the last annotation that are shown one by one; beyond, in weeks.
_DAYS_SHOWN: Final = 21

#: Pictures of a label below which its figures say little.
FEW: Final = 5

#: Model versions that people are shown, the newest; files have all.
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

#: Of annotations that are not compared.
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
    """Sums over what became of labels on pictures.

    Attributes:
        pictures: where the label was predicted or is annotated.
        accepted: predicted regions that were left as they are.
        corrected: that have other pixels.
        deleted: that are gone.
        relabelled: name of a label -> how many have that one instead.
        added: regions that the annotator drew.
        received: regions that were predicted with another label.
        predicted_px: pixels of the predictions.
        true_px: pixels of the annotations.
        shared_px: pixels of both.
        mean_iou: over `pictures`; None where there is none.
        mean_boundary_iou: likewise.

    >>> made = LabelStatistics.of([LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)])
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
        """The sums of these changes."""
        sums = _LabelSums()
        for change in changes:
            sums.add(change)
        return sums.quality()

    @property
    def prelabels(self) -> int:
        """Regions that were predicted."""
        return self.accepted + self.corrected + self.false

    @property
    def false(self) -> int:
        """Those that were deleted or given another label."""
        return self.deleted + sum(self.relabelled.values())

    @property
    def missed(self) -> int:
        """Regions that were drawn by hand, or given this label in place of another."""
        return self.added + self.received

    @property
    def accepted_share(self) -> float | None:
        """Accepted regions among those that were predicted; None where there is none."""
        return self.accepted / self.prelabels if self.prelabels else None

    @property
    def saved_paint(self) -> float | None:
        """See `DEFINITIONS`; None where no pixel is annotated."""
        wrong = self.predicted_px + self.true_px - 2 * self.shared_px
        return 1 - wrong / self.true_px if self.true_px else None

    @property
    def harms(self) -> bool:
        """Whether the predictions make more work than none would."""
        return self.predicted_px - self.shared_px > self.shared_px

    @property
    def misses(self) -> bool:
        """Whether the predictions, harmless as they are, lack most of what was left to draw."""
        return not self.harms and 2 * self.shared_px < self.true_px

    def to_json(self) -> Json:
        """Its figures; shares to six digits."""
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
    """A `LabelStatistics` in the making: changes are added one by one, and none is kept."""

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

    def quality(self) -> LabelStatistics:
        return LabelStatistics(
            pictures=self.pictures,
            relabelled=dict(self.relabelled.most_common()),
            mean_iou=self.iou / self.pictures if self.pictures else None,
            mean_boundary_iou=self.boundary_iou / self.bands if self.bands else None,
            **dict(zip(_SUMMED, self.counts, strict=True)),
        )


@dataclass
class _DaySums:
    """What is counted of the annotations of a day that began alike, one by one likewise."""

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
    """How long annotations took.

    Attributes:
        with_prelabel: median; None where none was measured.
        without_prelabel: likewise.
        n_with: how many were measured.
        n_without: likewise.
    """

    with_prelabel: float | None = None
    without_prelabel: float | None = None
    n_with: int = 0
    n_without: int = 0

    @classmethod
    def of(cls, with_: Sequence[float], without: Sequence[float]) -> Seconds:
        """Of the times of annotations that began with a prediction, and of those without."""
        return cls(
            median(with_) if with_ else None,
            median(without) if without else None,
            len(with_),
            len(without),
        )

    def to_json(self) -> Json:
        """Its figures."""
        return {
            "with_prelabel": self.with_prelabel,
            "without_prelabel": self.without_prelabel,
            "n_with": self.n_with,
            "n_without": self.n_without,
        }


@dataclass(frozen=True)
class Group:
    """Some of the annotations.

    Attributes:
        name: the first day of a period, or a model version.
        annotations: how many of them are compared.
        total: all labels together.
        labels: name -> of this one.
        seconds: how long they took.
    """

    name: str
    annotations: int
    total: LabelStatistics
    labels: Mapping[str, LabelStatistics]
    seconds: Seconds

    @classmethod
    def of(cls, name: str, tallies: Iterable[_DaySums]) -> Group:
        """What they count together."""
        whole, total = _DaySums(), _LabelSums()
        for tally in tallies:
            whole.compared += tally.compared
            whole.with_prelabel += tally.with_prelabel
            whole.without_prelabel += tally.without_prelabel
            for label, sums in tally.labels.items():
                whole.labels[label].add_all(sums)
                total.add_all(sums)
        return cls(
            name,
            whole.compared,
            total.quality(),
            {name: whole.labels[name].quality() for name in sorted(whole.labels, key=str.casefold)},
            Seconds.of(whole.with_prelabel, whole.without_prelabel),
        )

    def to_json(self) -> Json:
        """Its figures."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "total": self.total.to_json(),
            "labels": {label: quality.to_json() for label, quality in self.labels.items()},
            "seconds": self.seconds.to_json(),
        }


@dataclass(frozen=True)
class PrelabelReport:
    """What the prelabels of a project save.

    Attributes:
        project: its number.
        kinds: how many annotations there are of each kind.
        all: all of them.
        periods: by the day or week (from Monday, UTC) in which they were submitted.
        step: which of the two.
        versions: by model version, in the order in which they were first seen.
        broken: annotations that could not be read, with the reason.
        waiting: how many are still to be read.
        label: of which alone the figures are; None for all.
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
        """Labels whose predictions make more work than none -> what to do."""
        found = {name: made for name, made in self.all.labels.items() if made.harms}
        return {name: advice(made) for name, made in found.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Labels whose predictions do no harm, but lack most pixels -> what to do."""
        return {
            name: f"{round(100 * (1 - made.shared_px / made.true_px))} % of its pixels were "
            "painted by hand: add words for it to its predicted_values. What was painted "
            f"teaches the project's next version, where that is on.{_few(made)}"
            for name, made in self.all.labels.items()
            if made.misses
        }

    def to_json(self) -> Json:
        """All of it."""
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
    """Add up what was read of a project's annotations.

    Args:
        project: its number.
        reads: in the order in which the annotations were made; none of them is kept.
        waiting: how many are still to be read.
        step: length of a period; by default days, or weeks where there are more than three of them.
        label: look at what became of this one only; at all by default.

    Raises:
        ValueError: a step that is none.
    """
    if step is not None and step not in get_args(Step):
        raise ValueError(f"Expected argument `step` to be day or week, but got {step!r}.")
    kinds: Counter[AnnotationOrigin] = Counter()
    broken = {}
    tallies: defaultdict[tuple[date, str | None], _DaySums] = defaultdict(_DaySums)
    for read in reads:
        kinds[read.kind] += 1
        if read.kind == "broken":
            broken[read.annotation] = read.reason
        if read.kind != "skipped":
            version = read.version if read.kind == "compared" else None
            tallies[_day(read), version].add(read, label)
    chosen = step or _step([day for day, _ in tallies])
    days = ((_start(day, chosen).isoformat(), each) for (day, _), each in tallies.items())
    versions = ((name, each) for (_, name), each in tallies.items() if name is not None)
    return PrelabelReport(
        project=project,
        kinds={kind: kinds[kind] for kind in get_args(AnnotationOrigin)},
        all=Group.of("all", tallies.values()),
        periods=_groups(days),
        step=chosen,
        versions=_groups(versions),
        broken=broken,
        waiting=waiting,
        label=label,
    )


def advice(quality: LabelStatistics) -> str:
    """What to do about a label whose predictions make more work than none.

    >>> print(advice(LabelStatistics(pictures=9, relabelled={"dog": 7}, corrected=2, predicted_px=5)))
    7 of its 9 regions became "dog": give the two labels predicted_values that tell them apart.
    """
    few = _few(quality)
    prelabels = quality.prelabels
    if 2 * sum(quality.relabelled.values()) >= prelabels > 0:
        name, count = next(iter(quality.relabelled.items()))
        return (
            f'{count} of its {prelabels} regions became "{name}": give the two labels '
            f"predicted_values that tell them apart.{few}"
        )
    if 2 * quality.deleted >= prelabels > 0:
        return (
            f"{quality.deleted} of its {prelabels} regions were deleted: raise its "
            "model_score_threshold, or leave the label out of the predictions with "
            f'model_score_threshold="1".{few}'
        )
    wrong = round(100 * (1 - quality.shared_px / quality.predicted_px)) if prelabels else 0
    return (
        f"{wrong} % of its predicted pixels were erased: raise its model_score_threshold, or add "
        f"words for it to its predicted_values.{few}"
    )


def _few(quality: LabelStatistics) -> str:
    return f" So far there are {quality.pictures} pictures only." if quality.pictures < FEW else ""


def to_csv(savings: PrelabelReport) -> str:
    """One line for each label, of all, of each period and of each model version.

    A line with the label "all" has them together; only these have seconds. A name that a
    spreadsheet would take for a formula has a ' before it.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    groups = [("all", "all", savings.all)]
    groups += [(group.name, "all", group) for group in savings.periods]
    groups += [("all", group.name, group) for group in savings.versions]
    for period, version, group in groups:
        where = {"period": period, "model_version": _cell(version)}
        figures = {"annotations": group.annotations, **_seconds(group.seconds)}
        writer.writerow({**where, "label": "all", **figures, **_flat(group.total)})
        for label, quality in group.labels.items():
            writer.writerow({**where, "label": _cell(label), **_flat(quality)})
    return file.getvalue()


def _cell(text: str) -> str:
    """A name that no spreadsheet takes for a formula.

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


def _flat(quality: LabelStatistics) -> Json:
    return quality.to_json() | {"relabelled": sum(quality.relabelled.values())}


def _seconds(seconds: Seconds) -> Json:
    return {
        "seconds_with_prelabel": seconds.with_prelabel,
        "seconds_without_prelabel": seconds.without_prelabel,
    }


def _groups(tallies: Iterable[tuple[str, _DaySums]]) -> tuple[Group, ...]:
    """By their names, in the order in which these are first seen."""
    found: dict[str, list[_DaySums]] = {}
    for name, tally in tallies:
        found.setdefault(name, []).append(tally)
    return tuple(Group.of(name, some) for name, some in found.items())


def _day(read: ReadAnnotation) -> date:
    return datetime.fromtimestamp(read.created, timezone.utc).date()


def _step(days: Sequence[date]) -> Step:
    return "week" if days and max(days) - min(days) > timedelta(_DAYS_SHOWN) else "day"


def _start(day: date, step: Step) -> date:
    """The first day of the period of a day.

    >>> _start(date(2026, 11, 25), "week").isoformat()
    '2026-11-23'
    """
    return day if step == "day" else day - timedelta(day.weekday())


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
