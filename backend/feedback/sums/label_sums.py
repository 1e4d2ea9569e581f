"""Running sums over the differences of one label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

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
        changes: how many differences are in the sums.
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
