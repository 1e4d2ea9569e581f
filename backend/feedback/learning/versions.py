"""Values of learning: a training example, a numbered version, where a project stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.feedback.learning.trials import Rollback
from backend.settings import Adapt
from clearclip_core import Adaptation
from clearclip_core.quantities import quantity

#: What becomes of a new version: it goes live, what was live stays, or the words alone decide.
Promotion = Literal["live", "stays", "words"]

Origin = Literal["step", "import"]


@dataclass(frozen=True)
class TrainingExample:
    """One corrected image, as it is learned from.

    Attributes:
        digest: of its content.
        example: the bytes of a `clearclip_core.Example`.
        threshold_counts: how right the words alone were on the image: name of the label ->
            `backend.feedback.learning.thresholds.ThresholdCounts`, as JSON.
        learned: when its annotation was learned from first, in seconds since the epoch.
        annotation: the id of its annotation; 0 before it is kept.
    """

    digest: str
    example: bytes = field(repr=False)
    threshold_counts: str = field(repr=False)
    learned: float = 0.0
    annotation: int = 0


@dataclass(frozen=True)
class SetAsideAnnotation:
    """An annotation that a version was not fitted to, for one label.

    Attributes:
        annotation: its id.
        label: the name of the label.
        reason: why, in a sentence.
    """

    annotation: int
    label: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that databases keep and answers hold; these names stay."""
        return {"annotation": self.annotation, "label": self.label, "reason": self.reason}


@dataclass(frozen=True)
class Version:
    """What a step has learned from the training examples of a project.

    Attributes:
        annotations: how many annotations it has learned from.
        pictures: how many images it has learned from.
        digest: of what it changes in predictions.
        better: whether its adapted scores are at least as good as the words alone; if not, its
            adaptation is not kept, and only its thresholds can be used.
        text_iou: mean IoU of the words alone on held-out corrections, in [0, 1]; None where it
            is not known.
        adapted_iou: mean IoU of the adapted scores on held-out corrections, in [0, 1].
        text_ious: name of the label -> IoU of the words alone.
        adapted_ious: name of the label -> IoU of the adapted scores.
        thresholds: name of the label -> threshold for the words alone.
        adapted_thresholds: name of the label -> threshold for the adapted scores.
        refused: name of the label -> why what corrections say of it was not taken over.
        set_aside: annotations that were set aside.
        presence: what came of learning presence; empty where nobody asked for it.
        synonyms: what came of joining the words of labels; empty where nobody asked for it.
        objection: why it did not go live though it is better; empty where nothing spoke against it.
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
    refused: Mapping[str, str] = field(default_factory=dict)
    set_aside: tuple[SetAsideAnnotation, ...] = ()
    presence: str = ""
    synonyms: str = ""
    objection: str = ""
    origin: Origin = "step"
    created: float = 0.0
    number: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """The columns that a database keeps together, as JSON; these names stay."""
        return {
            "text_iou": self.text_iou,
            "adapted_iou": self.adapted_iou,
            "text_ious": dict(self.text_ious),
            "adapted_ious": dict(self.adapted_ious),
            "thresholds": dict(self.thresholds),
            "adapted_thresholds": dict(self.adapted_thresholds),
            # later ones are there only where they say something: earlier releases have none
            **({"refused": dict(self.refused)} if self.refused else {}),
            **({"set_aside": [e.to_json() for e in self.set_aside]} if self.set_aside else {}),
            **({"presence": self.presence} if self.presence else {}),
            **({"synonyms": self.synonyms} if self.synonyms else {}),
            **({"objection": self.objection} if self.objection else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of answers; these names stay."""
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
        pinned: whether the live version stays live.
        changed: annotations that were added, changed or deleted since the last step.
        asked: whether somebody has asked for a step.
        annotations: how many annotations it has training examples of.
        pictures: how many images it has training examples of.
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
        """Return the JSON of answers; these names stay."""
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
    """Counts over all projects.

    Attributes:
        live: projects with a live version.
        pictures: images with a training example.
        newest: the version of the last step; None before the first.
        rollbacks: projects with versions that were rolled back in them, the newest first.
    """

    live: int = 0
    pictures: int = 0
    newest: Version | None = None
    rollbacks: tuple[tuple[int, Rollback], ...] = ()


@dataclass(frozen=True)
class StepLease:
    """A leased step of a project.

    Attributes:
        project: its id.
        changed: annotations that had changed when the step was leased.
        live: number of the version that was live then; None: the words alone.
    """

    project: int
    changed: int
    live: int | None = None


@dataclass(frozen=True, eq=False)
class ActiveModel:
    """What predictions of a project use beside the words.

    Attributes:
        annotations: how many annotations it has learned from.
        adaptation: what is added to scores; None: the scores of the words alone.
        thresholds: name of the label -> threshold, where the label config sets none.
    """

    annotations: int
    adaptation: Adaptation | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of all that changes predictions."""
        scores = self.adaptation.digest if self.adaptation is not None else ""
        return scores + json.dumps(dict(self.thresholds), sort_keys=True)


def due_after(every: int, annotations: int) -> int:
    """Return the number of changes after which a step is due: a tenth of all annotations.

    At least `every`.

    >>> due_after(10, 40), due_after(10, 1000)
    (10, 100)
    """
    return max(every, annotations // 10)


def use(version: Version, adaptation: Adaptation | None, mode: Adapt) -> ActiveModel | None:
    """Return what a version changes in predictions of a project; None: nothing."""
    scores = adaptation if mode in ("scores", "all") else None
    thresholds: Mapping[str, float] = {}
    if mode in ("thresholds", "all"):
        thresholds = version.thresholds if scores is None else version.adapted_thresholds
    if scores is None and not thresholds:
        return None
    return ActiveModel(version.annotations, scores, thresholds)


def describe_version(version: Version, promotion: Promotion | None = None) -> str:
    """Describe a version in words; with its promotion, where that was decided just now."""
    compared = ""
    if version.text_iou is not None and version.adapted_iou is not None:
        compared = (
            f", IoU on held-out corrections {100 * version.adapted_iou:.1f} % "
            f"(words alone {100 * version.text_iou:.1f} %)"
        )
    better = "" if version.better else ", not better than the words alone"
    ends = {"live": "; it is live", "stays": "; what was live stays", "words": "", None: ""}
    return (
        f"version {version.number} of {quantity(version.annotations, 'annotation')}{compared}"
        f"{better}"
        f"{ends[promotion]}"
    )
