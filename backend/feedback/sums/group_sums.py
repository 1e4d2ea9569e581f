"""Running sums over the annotations of a group: of a day, a week, a model version, or all."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, TypeVar

from backend.feedback.comparison import LabelDiff
from backend.feedback.read_annotation import AnnotationOrigin, ReadAnnotation
from backend.feedback.sums.label_sums import LabelSums, add_count

#: Times are kept to so many significant digits, so that a million of them are a short list.
_TIME_DIGITS: Final = 3

T = TypeVar("T")

_Medians = tuple[float | None, float | None]


@dataclass
class GroupSums:
    """Running sums: annotations are added, or taken away, one by one and not kept.

    Attributes:
        kinds: kind -> number of annotations.
        pictures: images of compared annotations that any label covers.
        total: the sums of all labels together.
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

    def kept(self, make: Callable[[GroupSums], T]) -> T:
        """Return what a function makes of the sums; it is kept until an annotation is added.

        Args:
            make: a function of a module; nobody may change what it returns.
        """
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
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
