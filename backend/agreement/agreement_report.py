"""How far the annotations of a project's people agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

#: A figure of fewer pictures is marked: one picture more may change it much.
FEW_PICTURES: Final = 10

#: What people read in place of the figures of no picture.
NOTHING_YET: Final = (
    "There is nothing to compare yet: no task has annotations of several people with a region of a "
    "label."
)

#: Decimals of shares in JSON.
_DECIMALS: Final = 4


@dataclass(frozen=True)
class LabelFigures:
    """Agreement on a label.

    Attributes:
        label: its name.
        pictures: number of pictures on which somebody has painted it.
        iou: intersection over union of two people's masks: the mean over the pairs of a picture,
            and then over these pictures. 0 where one of a pair has left the label out; a pair that
            has left it out both is not counted.
        boundary_f: boundary F-measure, in the same way; None where no edge lies inside a picture.
        alpha: Krippendorff's alpha over the pixels of all pictures that can have it; None where it
            is on none or all of them.
        disputed: share of the pixels to which some have given it and others not: the mean over
            these pictures.
    """

    label: str
    pictures: int
    iou: float
    boundary_f: float | None
    alpha: float | None
    disputed: float

    @property
    def is_of_few(self) -> bool:
        """Whether the figures are of few pictures."""
        return self.pictures < FEW_PICTURES

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {
            "label": self.label,
            "pictures": self.pictures,
            "few": self.is_of_few,
            "iou": _rounded(self.iou),
            "boundary_f": _rounded(self.boundary_f),
            "alpha": _rounded(self.alpha),
            "disputed": _rounded(self.disputed),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> LabelFigures:
        """Read what `to_json` has written."""
        return cls(
            told["label"],
            told["pictures"],
            told["iou"],
            told["boundary_f"],
            told["alpha"],
            told["disputed"],
        )


@dataclass(frozen=True)
class Confusion:
    """Two labels that people have given to the same pixels.

    Attributes:
        label: name of the one.
        other: name of the other one; "" where a person has given none.
        share: share of the pixels to which one of two people has given the first, and the other the
            second: the mean over the pairs of a picture, and then over all pictures. Where labels
            overlap, the last counts, in the order of the config's controls: brushes come first, and
            rectangles last.
    """

    label: str
    other: str
    share: float

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {"label": self.label, "other": self.other, "share": _rounded(self.share)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Confusion:
        """Read what `to_json` has written."""
        return cls(told["label"], told["other"], told["share"])


@dataclass(frozen=True)
class AnnotatorFigures:
    """Agreement of one annotator with the others.

    Attributes:
        annotator: id of the annotator.
        name: name in Label Studio, else the e-mail address; "" where neither is known.
        pictures: number of pictures with a label that the annotator or another one has painted.
        iou: intersection over union with the others' masks: the mean over labels and others of a
            picture, and then over pictures.
        boundary_f: boundary F-measure, in the same way; None where no edge lies inside a picture.
    """

    annotator: int
    name: str
    pictures: int
    iou: float
    boundary_f: float | None

    @property
    def is_of_few(self) -> bool:
        """Whether the figures are of few pictures."""
        return self.pictures < FEW_PICTURES

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {
            "annotator": self.annotator,
            "name": self.name,
            "pictures": self.pictures,
            "few": self.is_of_few,
            "iou": _rounded(self.iou),
            "boundary_f": _rounded(self.boundary_f),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> AnnotatorFigures:
        """Read what `to_json` has written."""
        return cls(
            told["annotator"], told["name"], told["pictures"], told["iou"], told["boundary_f"]
        )


@dataclass(frozen=True)
class DisputedLabel:
    """A label in dispute on one picture.

    Attributes:
        label: its name.
        iou: the mean over the pairs of people, see `LabelFigures`.
        boundary_f: boundary F-measure, in the same way.
        disputed: share of the picture's pixels that are in dispute about it.
    """

    label: str
    iou: float
    boundary_f: float | None
    disputed: float

    def to_json(self) -> Json:
        """Return it as JSON."""
        return {
            "label": self.label,
            "iou": _rounded(self.iou),
            "boundary_f": _rounded(self.boundary_f),
            "disputed": _rounded(self.disputed),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> DisputedLabel:
        """Read what `to_json` has written."""
        return cls(told["label"], told["iou"], told["boundary_f"], told["disputed"])


@dataclass(frozen=True)
class Dispute:
    """A picture on which people do not agree.

    Attributes:
        task: id of its task.
        item_index: index in a list of pictures; None where the task shows no list.
        people: number of people who have annotated it.
        disputed: share of the pixels to which not all have given the same labels.
        labels: the labels in dispute, those about most pixels first.
        picture: the pixels in dispute over the picture, as a data URL; "" where it cannot be read.
    """

    task: int
    item_index: int | None
    people: int
    disputed: float
    labels: tuple[DisputedLabel, ...]
    picture: str = field(default="", repr=False)

    def to_json(self, rank: int | None = None, *, pictures: bool = True) -> Json:
        """Return it as JSON.

        Args:
            rank: its place in the list, from 1; None: none.
            pictures: with the picture.
        """
        told: Json = {
            "task": self.task,
            "item_index": self.item_index,
            "people": self.people,
            "disputed": _rounded(self.disputed),
            "labels": [each.to_json() for each in self.labels],
        }
        if rank is not None:
            told["rank"] = rank
        if pictures:
            told["picture"] = self.picture
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Dispute:
        """Read what `to_json` has written."""
        return cls(
            told["task"],
            told["item_index"],
            told["people"],
            told["disputed"],
            tuple(map(DisputedLabel.from_json, told["labels"])),
            told["picture"],
        )


@dataclass(frozen=True)
class AgreementReport:
    """Agreement of the people who have annotated a project.

    Attributes:
        tasks: number of tasks that several people have annotated and that were compared.
        pictures: number of pictures of these tasks on which somebody has a region.
        annotations: number of annotations that were compared.
        seconds: time that it took.
        disputed: share of the pixels to which not all have given the same labels: the mean over the
            pictures; None where there is no picture to compare yet.
        labels: the labels that somebody has painted, in the order of the label config.
        confusions: labels that people have given to the same pixels, those of most pixels first; of
            many the first only.
        annotators: by name.
        disputes: the pictures on which people do not agree, the most disputed first; of many the
            first only.
        dispute_count: the number of all such pictures.
        left_out: task -> why it was not compared; of the first tasks only.
        left_out_count: the number of all such tasks.
    """

    tasks: int
    pictures: int
    annotations: int
    seconds: float
    disputed: float | None
    labels: tuple[LabelFigures, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    annotators: tuple[AnnotatorFigures, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    dispute_count: int = 0
    left_out: Mapping[int, str] = field(default_factory=dict)
    left_out_count: int = 0

    def to_json(self, *, pictures: bool = True) -> Json:
        """Return it as JSON.

        Args:
            pictures: with the pictures of the disputes.
        """
        return {
            "tasks": self.tasks,
            "pictures": self.pictures,
            "annotations": self.annotations,
            "seconds": round(self.seconds, 3),
            "disputed": _rounded(self.disputed),
            "labels": [each.to_json() for each in self.labels],
            "confusions": [each.to_json() for each in self.confusions],
            "annotators": [each.to_json() for each in self.annotators],
            "disputes": [
                each.to_json(rank, pictures=pictures) for rank, each in enumerate(self.disputes, 1)
            ],
            "dispute_count": self.dispute_count,
            "left_out": [{"task": task, "reason": why} for task, why in self.left_out.items()],
            "left_out_count": self.left_out_count,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> AgreementReport:
        """Read what `to_json` has written with pictures."""
        return cls(
            told["tasks"],
            told["pictures"],
            told["annotations"],
            told["seconds"],
            told["disputed"],
            tuple(map(LabelFigures.from_json, told["labels"])),
            tuple(map(Confusion.from_json, told["confusions"])),
            tuple(map(AnnotatorFigures.from_json, told["annotators"])),
            tuple(map(Dispute.from_json, told["disputes"])),
            told["dispute_count"],
            {each["task"]: each["reason"] for each in told["left_out"]},
            told["left_out_count"],
        )


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, _DECIMALS)
