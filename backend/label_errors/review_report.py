"""What a review of a project's annotations has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from clearclip_core.label_errors.disagreement import Kind

Json = dict[str, Any]

#: What is said of each kind of disagreement; `{label}` is the annotation's. `{other}` is the label
#: that the part looks like, which the scores alone need not see there, or for what is missing, the
#: scores'.
_SENTENCES: Final[Mapping[Kind, str]] = {
    "label": "Painted “{label}”, but it looks like “{other}”.",
    "missing": "No “{other}” is painted where the scores see one.",
    "edges": "The edges of “{label}” lie where the picture has fewer edges than usual.",
}


@dataclass(frozen=True)
class Suspicion:
    """An annotation on one image that disagrees with what the others teach.

    Attributes:
        task: id of its task.
        annotation: its id.
        updated: when it was changed last, in seconds since the epoch: its version.
        item_index: index in a list of images; None where the tag shows no list.
        kind: in what it disagrees most.
        label: name of the label that is painted there; "" where none is.
        other: name of the label that the part looks like, or that the scores see where none is
            painted; "" for edges.
        score: how far its disagreement is from what is usual for the label, 0 and more.
        is_set_aside: whether learning sets it aside.
        preview: the place in the annotation, as a data URL; "" where the annotation was changed
            while the review ran, or it or its image can be read no more.
        suggestion: the place by the scores, as a data URL; "" as for `preview`.
    """

    task: int
    annotation: int
    updated: float
    item_index: int | None
    kind: Kind
    label: str
    other: str
    score: float
    is_set_aside: bool = False
    preview: str = field(default="", repr=False)
    suggestion: str = field(default="", repr=False)

    @property
    def sentence(self) -> str:
        """What is found, for people."""
        return _SENTENCES[self.kind].format(label=self.label, other=self.other)

    def to_json(self, rank: int | None = None, *, pictures: bool = True) -> Json:
        """Return it as JSON.

        Args:
            rank: its place in the list, from 1; None: none.
            pictures: with the two pictures.
        """
        told: Json = {
            "task": self.task,
            "annotation": self.annotation,
            "updated": self.updated,
            "item_index": self.item_index,
            "kind": self.kind,
            "label": self.label,
            "other": self.other,
            "score": round(self.score, 4),
            "set_aside": self.is_set_aside,
            "sentence": self.sentence,
        }
        if rank is not None:
            told["rank"] = rank
        if pictures:
            told |= {"preview": self.preview, "suggestion": self.suggestion}
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Suspicion:
        """Read what `to_json` has written."""
        return cls(
            told["task"],
            told["annotation"],
            told["updated"],
            told["item_index"],
            told["kind"],
            told["label"],
            told["other"],
            told["score"],
            told["set_aside"],
            told["preview"],
            told["suggestion"],
        )


@dataclass(frozen=True)
class ReviewReport:
    """A review of the annotations of a project.

    Attributes:
        reviewed: number of annotated images that were looked at: an image counts once for each of
            its annotations.
        examples: number of training examples that the scores were learned from, in folds.
        seconds: time that it took.
        suspicions: of all these images, the most suspicious first.
        left_out: task -> why an image of it was not looked at; of the first tasks only.
        left_out_count: the number of all such tasks.
        annotations: number of annotations that were looked at; None in reviews that were kept
            before it was counted.
        pictures: number of different images that these are of, copies counted once; None as for
            `annotations`.
    """

    reviewed: int
    examples: int
    seconds: float
    suspicions: tuple[Suspicion, ...] = ()
    left_out: Mapping[int, str] = field(default_factory=dict)
    left_out_count: int = 0
    annotations: int | None = None
    pictures: int | None = None

    def without(self, confirmed: Mapping[int, float]) -> ReviewReport:
        """Return the report without annotations that people confirmed as they were reviewed.

        Args:
            confirmed: annotation -> which version of it, see `Suspicion.updated`.
        """
        left = (s for s in self.suspicions if confirmed.get(s.annotation) != s.updated)
        return replace(self, suspicions=tuple(left))

    def to_json(self, *, pictures: bool = True) -> Json:
        """Return it as JSON.

        Args:
            pictures: with the pictures of the suspicions.
        """
        return {
            "reviewed": self.reviewed,
            "annotations": self.annotations,
            "pictures": self.pictures,
            "examples": self.examples,
            "seconds": round(self.seconds, 3),
            "suspicions": [
                each.to_json(rank, pictures=pictures)
                for rank, each in enumerate(self.suspicions, 1)
            ],
            "left_out": [{"task": task, "reason": why} for task, why in self.left_out.items()],
            "left_out_count": self.left_out_count,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> ReviewReport:
        """Read what `to_json` has written with pictures."""
        return cls(
            told["reviewed"],
            told["examples"],
            told["seconds"],
            tuple(map(Suspicion.from_json, told["suspicions"])),
            {each["task"]: each["reason"] for each in told["left_out"]},
            told.get("left_out_count", len(told["left_out"])),  # the first reviews have none
            told.get("annotations"),
            told.get("pictures"),
        )
