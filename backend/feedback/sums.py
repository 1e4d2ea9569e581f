"""Adds up annotations of a project as they are read: by label, group of annotations and period."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar, get_args

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff

#: The counts of a `LabelDiff` that are added up, in the order of `LabelSums.counts`.
SUMMED: Final = (
    "accepted",
    "corrected",
    "deleted",
    "added",
    "received",
    "predicted_px",
    "true_px",
    "shared_px",
)

#: An IoU is kept as a whole number of these parts. Whole numbers can be taken away again without a
#: rounding error, in whatever order they were added.
_PARTS: Final = 1 << 36

_summed: Final[Callable[[LabelDiff], tuple[int, ...]]] = attrgetter(*SUMMED)


@dataclass
class LabelSums:
    """Running sums: differences are added, or taken away, one by one and not kept.

    Attributes:
        counts: sums of `SUMMED`.
        relabelled: name of another label -> predicted regions that have that label now.
        pictures: images where the label was predicted or is annotated.
        bands: images where it has a boundary band.
        scored: score, in hundredths, rounded down -> images whose predicted regions have it, the
            lowest of them.
        unchanged: those of `scored` on which all regions were accepted and none was added.

    >>> sums = LabelSums()
    >>> sums.add(LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6))
    >>> sums.mean_iou, sums.mean_boundary_iou
    (0.5, None)
    """

    changes: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(SUMMED))
    relabelled: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    bands: int = 0
    _iou_parts: int = 0
    _boundary_iou_parts: int = 0
    scored: Counter[int] = field(default_factory=Counter)
    unchanged: Counter[int] = field(default_factory=Counter)

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over `pictures`, in [0, 1]; None where there is none."""
        return self._iou_parts / _PARTS / self.pictures if self.pictures else None

    @property
    def mean_boundary_iou(self) -> float | None:
        """Mean boundary IoU over `bands`, in [0, 1]; None where there is none."""
        return self._boundary_iou_parts / _PARTS / self.bands if self.bands else None

    def add(self, change: LabelDiff, times: int = 1) -> None:
        """Add a difference; with ``times=-1``, take it away."""
        self.changes += times
        self.counts = [
            sum_ + times * count for sum_, count in zip(self.counts, _summed(change), strict=True)
        ]
        for label, count in change.relabelled.items():
            add_count(self.relabelled, label, times * count)
        if (iou := change.iou) is not None:
            self.pictures += times
            self._iou_parts += times * round(iou * _PARTS)
        if (boundary_iou := change.boundary_iou) is not None:
            self.bands += times
            self._boundary_iou_parts += times * round(boundary_iou * _PARTS)
        if change.score is not None:
            score = int(100 * change.score + 1e-6)
            add_count(self.scored, score, times)
            if not change.needed_change:
                add_count(self.unchanged, score, times)

    def add_all(self, other: LabelSums) -> None:
        """Add all differences of other sums."""
        self.changes += other.changes
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        self.relabelled.update(other.relabelled)
        self.pictures += other.pictures
        self.bands += other.bands
        self._iou_parts += other._iou_parts
        self._boundary_iou_parts += other._boundary_iou_parts
        self.scored.update(other.scored)
        self.unchanged.update(other.unchanged)

    def to_json(self) -> list[Any]:
        """Return the JSON that databases keep; the order stays."""
        return [
            self.changes,
            self.pictures,
            self._iou_parts,
            self.bands,
            self._boundary_iou_parts,
            *self.counts,
            dict(self.relabelled),
            [[score, count, self.unchanged[score]] for score, count in sorted(self.scored.items())],
        ]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> LabelSums:
        """Read what `to_json` has written."""
        changes, pictures, iou_parts, bands, boundary_iou_parts, *counts, relabelled, scores = value
        return cls(
            changes,
            counts,
            Counter(relabelled),
            pictures,
            bands,
            iou_parts,
            boundary_iou_parts,
            Counter({score: count for score, count, _ in scores}),
            Counter({score: unchanged for score, _, unchanged in scores if unchanged}),
        )


def add_count(counter: Counter[Any], key: object, count: int) -> None:
    """Add a count, and forget a key that has none left."""
    counter[key] += count
    if not counter[key]:
        del counter[key]


#: Times are kept to so many significant digits, so that a million of them are a short list.
_TIME_DIGITS: Final = 3

_T = TypeVar("_T")

_Medians = tuple[float | None, float | None]


@dataclass
class GroupSums:
    """Running sums: annotations are added, or taken away, one by one and not kept.

    Attributes:
        kinds: kind -> number of annotations.
        pictures: images of compared annotations that any label covers.
        labels: name of a label -> its sums.
        with_prelabel: time that an annotation with a prediction took, in seconds, to three
            significant digits -> number of annotations.
        without_prelabel: the times of annotations that began from nothing.
    """

    kinds: Counter[AnnotationOrigin] = field(default_factory=Counter)
    pictures: int = 0
    total: LabelSums = field(default_factory=LabelSums)
    labels: dict[str, LabelSums] = field(default_factory=dict)
    with_prelabel: Counter[float] = field(default_factory=Counter)
    without_prelabel: Counter[float] = field(default_factory=Counter)
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def medians_s(self) -> tuple[float | None, float | None]:
        """The median times with and without a prediction, in seconds; None where there is none."""
        return self.kept(_times)[0]

    @property
    def measured(self) -> tuple[int, int]:
        """How many annotations with and without a prediction were measured."""
        return self.kept(_times)[1]

    @property
    def is_empty(self) -> bool:
        """Whether no annotation is in the sums."""
        return not self.kinds

    def add(self, read: ReadAnnotation, times: int = 1) -> None:
        """Add an annotation; with ``times=-1``, take it away. Of a skipped one, its kind counts."""
        self._made.clear()
        add_count(self.kinds, read.kind, times)
        if read.kind == "skipped":
            return
        for change in read.changes:
            self.total.add(change, times)
            sums = self.labels.setdefault(change.label, LabelSums())
            sums.add(change, times)
            if not sums.changes:
                del self.labels[change.label]
        self.pictures += times * count_pictures(read.changes)
        measured = {"compared": self.with_prelabel, "scratch": self.without_prelabel}
        if read.kind in measured and read.seconds is not None and read.seconds > 0:
            add_count(measured[read.kind], _rounded(read.seconds), times)

    def renamed(self, names: Mapping[str, str]) -> GroupSums:
        """Return the sums with labels that have another name; those of one name are added up."""
        labels: dict[str, LabelSums] = {}
        for label, sums in self.labels.items():
            made = labels.setdefault(names.get(label, label), LabelSums())
            made.add_all(sums)
        for made in labels.values():
            relabelled: Counter[str] = Counter()
            for label, count in made.relabelled.items():
                relabelled[names.get(label, label)] += count
            made.relabelled = relabelled
        return replace(self, labels=labels)

    def kept(self, make: Callable[[GroupSums], _T]) -> _T:
        """Return what a function makes of the sums; it is kept until an annotation is added.

        Args:
            make: a function of a module; nobody may change what it returns.
        """
        if make not in self._made:
            self._made[make] = make(self)
        made: _T = self._made[make]
        return made

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that databases keep; these names stay."""
        return {
            "kinds": dict(self.kinds),
            "pictures": self.pictures,
            "total": self.total.to_json(),
            "labels": {label: sums.to_json() for label, sums in self.labels.items()},
            "with": _flat(self.with_prelabel),
            "without": _flat(self.without_prelabel),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GroupSums:
        """Read what `to_json` has written."""
        return cls(
            Counter(value["kinds"]),
            value["pictures"],
            LabelSums.from_json(value["total"]),
            {label: LabelSums.from_json(sums) for label, sums in value["labels"].items()},
            _from_flat(value["with"]),
            _from_flat(value["without"]),
        )


def _times(sums: GroupSums) -> tuple[_Medians, tuple[int, int]]:
    """Return the medians and the counts of the times with and without a prediction."""
    both = sums.with_prelabel, sums.without_prelabel
    with_, without = map(median, both)
    n_with, n_without = (sum(times.values()) for times in both)
    return (with_, without), (n_with, n_without)


def count_pictures(changes: Sequence[LabelDiff]) -> int:
    """Count the images of an annotation's differences, without those that nothing covers.

    Differences of before images were numbered all have number 0: of these, the label that occurs
    most often tells how many images there are at least.

    >>> count_pictures([LabelDiff("car", true_px=1), LabelDiff("dog", true_px=1)])
    1
    >>> count_pictures([LabelDiff("car", true_px=1), LabelDiff("dog", true_px=1, image=1)])
    2
    """
    covered = [change for change in changes if change.iou is not None]
    labels = Counter(change.label for change in covered)
    return max(len({change.image for change in covered}), *labels.values(), 0)


def median(times: Mapping[float, int]) -> float | None:
    """Return the median; None where there is no time.

    Args:
        times: time -> how often it is there.

    >>> median({10.0: 1, 30.0: 1}), median({10.0: 1, 30.0: 2}), median({})
    (20.0, 30.0, None)
    """
    in_order = sorted(time for time, count in times.items() if count > 0)
    ends = list(accumulate(times[time] for time in in_order))
    if not ends:
        return None
    low, high = (in_order[bisect_right(ends, at)] for at in ((ends[-1] - 1) // 2, ends[-1] // 2))
    return (low + high) / 2


def _rounded(seconds: float) -> float:
    """Round a time.

    >>> _rounded(83.456), _rounded(12345.6)
    (83.5, 12300.0)
    """
    return float(f"{seconds:.{_TIME_DIGITS}g}")


def _flat(times: Counter[float]) -> list[float]:
    """Return each time and its count, one after the other: many short lists are slow to read.

    >>> _flat(Counter({9.5: 2, 3.0: 1}))
    [3.0, 1, 9.5, 2]
    """
    return [number for pair in sorted(times.items()) for number in pair]


def _from_flat(flat: Sequence[Any]) -> Counter[float]:
    return Counter(dict(zip(flat[::2], flat[1::2], strict=True)))


Step = Literal["day", "week"]
Grouping = Literal["all", "day", "week", "version"]

#: Days from the first to the last annotation that are shown one by one; longer spans in weeks.
_DAYS_SHOWN: Final = 21


@dataclass(frozen=True)
class ProjectSums:
    """The sums of a project.

    Attributes:
        all: over all annotations.
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
        """
        check_period(step)
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

    def renamed(self, names: Mapping[str, str]) -> ProjectSums:
        """Return the sums with labels that have another name, old -> new."""
        return replace(
            self,
            all=self.all.renamed(names),
            periods={name: sums.renamed(names) for name, sums in self.periods.items()},
            versions={name: sums.renamed(names) for name, sums in self.versions.items()},
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


def check_period(step: str | None) -> None:
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
