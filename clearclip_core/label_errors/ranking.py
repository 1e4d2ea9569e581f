"""Rank annotated images by how far their disagreements are from what is usual."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clearclip_core.label_errors.disagreement import Disagreement, Kind

#: So many images of a label say what is usual for it; with fewer, all labels together do.
_FEW: Final = 5

#: Of the images, this share is not beyond what is usual: there the score of a kind is 1.
_USUAL: Final = 0.95

#: Values so little above what is usual for their label are noise: there the score is 1 at least.
_NOISE: Final[Mapping[Kind, float]] = {"label": 0.02, "missing": 0.03, "edges": 0.002}


@dataclass(frozen=True)
class Ranked:
    """An image with what is most unusual of it.

    Attributes:
        index: its place among the images.
        disagreement: in what it disagrees most.
        score: how far that is beyond what is usual for the label, more than 0; one image in
            twenty has more than 1 of the same kind at most.
    """

    index: int
    disagreement: Disagreement
    score: float


def rank(images: Sequence[Sequence[Disagreement]]) -> list[Ranked]:
    """Rank images, the most suspicious first.

    Of each value, the median of its label's values over the images is taken away: a label that the
    model hardly knows disagrees everywhere. What is left is divided by the value that one image in
    twenty exceeds, so that kinds can be compared. An image counts by its largest score.

    Args:
        images: what `find_disagreements` has found on each image.

    Returns:
        The images that disagree more than is usual; equal scores in the order of the images.
    """
    by_kind: dict[Kind, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, found in enumerate(images):
        for each in found:
            by_kind[each.kind].append((index, each))
    best: dict[int, Ranked] = {}
    for kind, pairs in by_kind.items():
        for ranked in _score(pairs, _NOISE[kind]):
            known = best.get(ranked.index)
            if ranked.score > (0 if known is None else known.score):
                best[ranked.index] = ranked
    return sorted(best.values(), key=lambda each: (-each.score, each.index))


def _score(pairs: Sequence[tuple[int, Disagreement]], noise: float) -> list[Ranked]:
    """Score the disagreements of one kind; one for each image that has any.

    Args:
        pairs: the index of an image, and a disagreement of it.
        noise: the least value that the score is 1 at.
    """
    usual = _usual(pairs)
    worst: dict[int, tuple[float, Disagreement]] = {}
    for index, each in pairs:
        beyond = max(0.0, each.value - usual[each.about])
        if index not in worst or beyond > worst[index][0]:
            worst[index] = beyond, each
    usual_beyond = float(np.quantile([beyond for beyond, _ in worst.values()], _USUAL))
    scale = max(noise, usual_beyond)
    return [Ranked(index, each, beyond / scale) for index, (beyond, each) in worst.items()]


def _usual(pairs: Sequence[tuple[int, Disagreement]]) -> dict[int, float]:
    """Return the median value of each label; of a label on few images, that of all medians."""
    values: dict[int, list[float]] = defaultdict(list)
    for _, each in pairs:
        values[each.about].append(each.value)
    medians = {label: float(np.median(own)) for label, own in values.items()}
    known = [medians[label] for label, own in values.items() if len(own) >= _FEW]
    fallback = float(np.median(known or list(medians.values())))
    return {
        label: medians[label] if len(own) >= _FEW else fallback for label, own in values.items()
    }
