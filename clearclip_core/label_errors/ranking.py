"""Rank annotated images by how far their disagreements are from what is usual."""

from __future__ import annotations

import math
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

#: Values so little above what is usual for their label are noise: there the score is 1 at most.
_NOISE: Final[Mapping[Kind, float]] = {"label": 0.05, "missing": 0.03, "edges": 0.15}

#: A mean over the edges of n labels varies less than those of one by the square root of n, and by
#: that factor at most: labels of one image have something in common.
_STEADIER: Final = 3.0

#: A usual probability counts as that at least.
_LEAST_PROBABILITY: Final = 0.02

#: An image, a disagreement of it, and how far that is beyond what is usual for its label.
_Beyond = tuple[int, Disagreement, float]


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

    - **label**: what a part lacks of the usual probability of its label, in shares of that
      (`clearclip_core.label_errors.disagreement`; the label's own threshold of confident learning),
      times the square root of the part's share of the image.
    - **edges**: the worst label, and the mean over all edges: careless work shows in all of them.
      The mean counts the more, the more labels it is of.

    Args:
        images: what `find_disagreements` has found on each image.

    Returns:
        The images that disagree more than is usual; equal scores in the order of the images.
    """
    by_kind: dict[Kind, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, found in enumerate(images):
        for each in found:
            by_kind[each.kind].append((index, each))
    labels = _less_usual(_shortfalls(by_kind["label"]))
    missing, edges = (
        _less_usual([(index, each, each.value) for index, each in by_kind[kind]])
        for kind in ("missing", "edges")
    )
    measures = (
        (labels, _NOISE["label"]),
        (missing, _NOISE["missing"]),
        (edges, _NOISE["edges"]),
        (_means(edges), _NOISE["edges"]),
    )
    best: dict[int, Ranked] = {}
    for beyond, noise in measures:
        for ranked in _score(beyond, noise):
            known = best.get(ranked.index)
            if ranked.score > (0 if known is None else known.score):
                best[ranked.index] = ranked
    return sorted(best.values(), key=lambda each: (-each.score, each.index))


def _shortfalls(pairs: Sequence[tuple[int, Disagreement]]) -> list[_Beyond]:
    """Return the part of each image and label that lacks most of the label's usual probability.

    What is usual is a matter of images, not of parts: an image with many has no more to say.
    """
    parts: dict[tuple[int, int], list[Disagreement]] = defaultdict(list)
    for index, each in pairs:
        parts[index, each.about].append(each)
    usual = _usual(
        [
            (label, float(np.average([e.value for e in own], weights=[e.weight for e in own])))
            for (_, label), own in parts.items()
        ]
    )
    worst: dict[tuple[int, int], _Beyond] = {}
    for index, each in pairs:
        own = usual[each.about]
        lacks = max(0.0, each.value - own) / max(1 - own, _LEAST_PROBABILITY)
        value, key = lacks * math.sqrt(each.weight), (index, each.about)
        if key not in worst or value > worst[key][2]:
            worst[key] = index, each, value
    return list(worst.values())


def _less_usual(found: Sequence[_Beyond]) -> list[_Beyond]:
    """Take the median of each label away from its values."""
    usual = _usual([(each.about, value) for _, each, value in found])
    return [(index, each, value - usual[each.about]) for index, each, value in found]


def _means(beyond: Sequence[_Beyond]) -> list[_Beyond]:
    """Return the weighted mean of each image, with what has the largest part in it.

    It is in the unit of a single label, see `_STEADIER`.
    """
    by_image: dict[int, list[_Beyond]] = defaultdict(list)
    for each in beyond:
        by_image[each[0]].append(each)
    made = []
    for index, own in by_image.items():
        weights = [each.weight for _, each, _ in own]
        mean = float(np.average([value for *_, value in own], weights=weights))
        _, most, _ = max(own, key=lambda each: each[1].weight * each[2])
        made.append((index, most, mean * min(math.sqrt(len(own)), _STEADIER)))
    return made


def _score(beyond: Sequence[_Beyond], noise: float) -> list[Ranked]:
    """Score disagreements; one for each image that has any.

    Args:
        beyond: how far disagreements are beyond what is usual.
        noise: the least value that the score is 1 at.
    """
    worst: dict[int, tuple[float, Disagreement]] = {}
    for index, each, value in beyond:
        if index not in worst or value > worst[index][0]:
            worst[index] = max(0.0, value), each
    if not worst:
        return []
    usual_beyond = float(np.quantile([value for value, _ in worst.values()], _USUAL))
    scale = max(noise, usual_beyond)
    return [Ranked(index, each, value / scale) for index, (value, each) in worst.items()]


def _usual(values: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Return the median of each label; where there are few images, that of all medians.

    Args:
        values: a label, and the value of it on an image; one for each image.
    """
    by_label: dict[int, list[float]] = defaultdict(list)
    for label, value in values:
        by_label[label].append(value)
    medians = {label: float(np.median(own)) for label, own in by_label.items()}
    known = [medians[label] for label, own in by_label.items() if len(own) >= _FEW]
    fallback = float(np.median(known or list(medians.values()))) if medians else 0.0
    return {
        label: medians[label] if len(own) >= _FEW else fallback for label, own in by_label.items()
    }
