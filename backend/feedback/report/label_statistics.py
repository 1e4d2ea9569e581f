"""Sums up the differences of a label, or of all labels, between predictions and annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import add, attrgetter
from typing import Any, Final

from backend.feedback.comparison import LabelDiff

Json = dict[str, Any]


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
        sums = LabelSums()
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
        wrong = self.predicted_px + self.true_px - 2 * self.shared_px
        return 1 - wrong / self.true_px if self.true_px else None

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
class LabelSums:
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

    def add_all(self, other: LabelSums) -> None:
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


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
