"""The outcome of learning from corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.contradictions import SetAside


@dataclass(frozen=True, eq=False)
class Fit:
    """The outcome of `adapt`.

    IoUs are of patches of held-out images. Where nobody painted, or paint stands as it was
    predicted, the words' own answer counts as right, as far as they are sure and paint bears them
    out: what changes there counts as a loss. Paint that is set aside shares the truth with it, by
    half each.

    Attributes:
        adaptation: scores with corrections; None where none is better than the text scores.
        text_iou: IoU of the text scores, mean over labels, in [0, 1].
        adapted_iou: IoU of the adapted scores, mean over labels.
        text_ious: IoU of the text scores by label.
        adapted_ious: IoU of the adapted scores by label.
        priors: precision of the prior of each adapted label, in images.
        pictures: number of corrected images.
        refused: name of each corrected label that is not adapted -> why, as a sentence.
        set_aside: paint that was not learned from.
        presence: what came of learning presence, as a sentence; "" where nobody asked for it.
        synonyms: what came of joining words, as a sentence; "" where nobody asked for it.
    """

    adaptation: Adaptation | None
    text_iou: float
    adapted_iou: float
    text_ious: Mapping[str, float]
    adapted_ious: Mapping[str, float]
    priors: Mapping[str, float]
    pictures: int
    refused: Mapping[str, str]
    set_aside: tuple[SetAside, ...]
    presence: str = ""
    synonyms: str = ""


def mean_iou(ious: Mapping[str, float]) -> float:
    """Return the mean over labels; 0 without one."""
    return sum(ious.values()) / len(ious) if ious else 0.0
