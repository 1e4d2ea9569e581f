"""Sums up the differences of a label, or of all labels, between predictions and annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.feedback.comparison import LabelDiff
from backend.feedback.sums import SUMMED, LabelSums

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
        return cls.of_sums(sums)

    @classmethod
    def of_sums(cls, sums: LabelSums) -> LabelStatistics:
        """Take the figures of running sums; the most frequent other label comes first."""
        relabelled: Sequence[tuple[str, int]] = ()
        if sums.relabelled:
            relabelled = sorted(sums.relabelled.items(), key=lambda each: (-each[1], each[0]))
        return cls(
            pictures=sums.pictures,
            relabelled=dict(relabelled),
            mean_iou=sums.mean_iou,
            mean_boundary_iou=sums.mean_boundary_iou,
            **dict(zip(SUMMED, sums.counts, strict=True)),
        )

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


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
