"""What is known of learning, as values: a lesson, a numbered version, where a project stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.settings import Adapt
from clearclip_core import Adaptation

#: What becomes of a new version: it goes live, what was live stays, or the words alone decide.
Promotion = Literal["live", "stays", "words"]

Origin = Literal["step", "import"]


@dataclass(frozen=True)
class TrainingExample:
    """What one corrected picture teaches.

    Attributes:
        digest: of its content.
        example: the bytes of a `clearclip_core.Example`.
        paint: `backend.feedback.learning.thresholds.ThresholdCounts` of the words alone, by label, as JSON.
        learned: when its annotation was learned from first, in seconds since the epoch.
        annotation: whose it is, by id; 0 before it is kept.
    """

    digest: str
    example: bytes = field(repr=False)
    paint: str = field(repr=False)
    learned: float = 0.0
    annotation: int = 0


@dataclass(frozen=True)
class Version:
    """What came of the lessons of a project.

    Attributes:
        annotations: how many it has learned from.
        pictures: likewise.
        digest: of what it changes in predictions.
        better: whether its scores are at least as good as the words alone; if not, they are not
            kept, and only its thresholds can be used.
        text_iou: mean IoU of the words alone on held-out corrections, in [0, 1]; None where it
            is not known.
        adapted_iou: the same of the version.
        text_ious: by label.
        adapted_ious: by label.
        thresholds: by label, for the words alone.
        adapted_thresholds: by label, for its scores.
        origin: a step here, or a file.
        created: when it was made, in seconds since the epoch.
        number: counts up from 1 in each project; 0 before it is kept.
    """

    annotations: int
    pictures: int
    digest: str
    better: bool
    text_iou: float | None = None
    adapted_iou: float | None = None
    text_ious: Mapping[str, float] = field(default_factory=dict)
    adapted_ious: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    adapted_thresholds: Mapping[str, float] = field(default_factory=dict)
    origin: Origin = "step"
    created: float = 0.0
    number: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What a database keeps of it in one column, as JSON; these names stay."""
        return {
            "text_iou": self.text_iou,
            "adapted_iou": self.adapted_iou,
            "text_ious": dict(self.text_ious),
            "adapted_ious": dict(self.adapted_ious),
            "thresholds": dict(self.thresholds),
            "adapted_thresholds": dict(self.adapted_thresholds),
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as answers have it; these names stay."""
        return {
            "annotations": self.annotations,
            "pictures": self.pictures,
            "digest": self.digest,
            "better": self.better,
            **self.facts,
            "origin": self.origin,
            "created": self.created,
            "number": self.number,
        }


@dataclass(frozen=True)
class LearningState:
    """Where a project stands.

    Attributes:
        project: its id.
        live: number of the version that predictions use; None: the words alone.
        pinned: whether that stays as it is.
        changed: annotations that were added, changed or deleted since the last step.
        asked: whether somebody has asked for a step.
        annotations: how many it has lessons of.
        pictures: likewise.
        trouble: why the last step has failed; empty where it has not.
    """

    project: int
    live: int | None = None
    pinned: bool = False
    changed: int = 0
    asked: bool = False
    annotations: int = 0
    pictures: int = 0
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it as answers have it; these names stay."""
        return {
            "project": self.project,
            "live": self.live,
            "pinned": self.pinned,
            "changed": self.changed,
            "asked": self.asked,
            "annotations": self.annotations,
            "pictures": self.pictures,
            "trouble": self.trouble,
        }


@dataclass(frozen=True)
class Summary:
    """What all projects have learned.

    Attributes:
        live: projects with a version that predictions use.
        pictures: that there are lessons of.
        newest: the version of the last step; None before the first.
    """

    live: int = 0
    pictures: int = 0
    newest: Version | None = None


@dataclass(frozen=True)
class StepLease:
    """A leased step of a project; `changed` as it was when its lessons were to be read."""

    project: int
    changed: int
    live: int | None = None


@dataclass(frozen=True, eq=False)
class ActiveModel:
    """What predictions of a project use.

    Attributes:
        annotations: how many it has learned from.
        adaptation: what scores get; None: the words alone.
        thresholds: of labels for which the label config sets none.
    """

    annotations: int
    adaptation: Adaptation | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all that changes predictions."""
        scores = self.adaptation.digest if self.adaptation is not None else ""
        return scores + json.dumps(dict(self.thresholds), sort_keys=True)


def due_after(every: int, annotations: int) -> int:
    """Changes after which a step is due: a tenth of all annotations, at least `every`.

    >>> due_after(10, 40), due_after(10, 1000)
    (10, 100)
    """
    return max(every, annotations // 10)


def use(version: Version, adaptation: Adaptation | None, mode: Adapt) -> ActiveModel | None:
    """What a version changes in predictions of a project; None: nothing."""
    scores = adaptation if mode in ("scores", "all") else None
    thresholds: Mapping[str, float] = {}
    if mode in ("thresholds", "all"):
        thresholds = version.thresholds if scores is None else version.adapted_thresholds
    if scores is None and not thresholds:
        return None
    return ActiveModel(version.annotations, scores, thresholds)
