"""Rank annotated images by how far their disagreements are from what is usual."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clearclip_core.label_errors.disagreement import BESIDE_LABELS, Disagreement, Kind
from clearclip_core.label_errors.discriminant import held_out_log_probabilities

#: So many images of a label say what is usual for it; with fewer, all labels together do.
_FEW: Final = 5

#: Of the images, this share is not beyond what is usual: there the score of a kind is 1. Careless
#: edges lie far beyond the others, so fewer are looked at for those that do not.
_USUAL: Final[Mapping[Kind, float]] = {"label": 0.95, "missing": 0.95, "edges": 0.98}

#: Values so little above what is usual for their label are noise: there the score is 1 at most. A
#: hundredth of an image has that of a label at odds of 150 to 1 for another one.
_NOISE: Final[Mapping[Kind, float]] = {"label": 0.5, "missing": 0.03, "edges": 0.15}

#: A mean over the edges of n labels varies less than those of one by the square root of n, and by
#: that factor at most: labels of one image have something in common.
_STEADIER: Final = 3.0

#: Larger log odds are as good as that: how parts are spread so far from their means is not known.
_MOST_LOG_ODDS: Final = 50.0

#: An image, a disagreement of it, and how far that is beyond what is usual for its label.
_Beyond = tuple[int, Disagreement, float]


@dataclass(frozen=True)
class Ranked:
    """An image with what is most unusual of it.

    Attributes:
        index: its place among the images.
        disagreement: in what it disagrees most.
        score: how far that is beyond what is usual for the label, more than 0; one image in
            twenty has more than 1 of the same kind at most, and of edges one in fifty by each of
            their two measures.
    """

    index: int
    disagreement: Disagreement
    score: float


def rank(
    images: Sequence[Sequence[Disagreement]], vocabularies: Sequence[Hashable] | None = None
) -> list[Ranked]:
    """Rank images, the most suspicious first.

    Of each value, the median of its label's values over the images is taken away: a label that the
    model hardly knows disagrees everywhere. What is left is divided by the value that one image in
    twenty exceeds, of edges one in fifty, so that kinds can be compared. An image counts by its
    largest score.

    - **label**: the log odds for the label that a part looks like most over the painted one, by
      what such parts are painted as on other images
      (`clearclip_core.label_errors.discriminant`), times the square root of the part's share of
      the image. 0 where that is the painted one, so no median is taken away.
    - **edges**: the worst label, and the mean over all edges: careless work shows in all of them.
      The mean counts the more, the more labels it is of.

    Args:
        images: what `find_disagreements` has found on each image.
        vocabularies: what the indices of labels mean on each image, equal for equal labels; None
            where they mean the same on all.

    Returns:
        The images that disagree more than is usual; equal scores in the order of the images.
    """
    by_kind: dict[Kind, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, found in enumerate(images):
        for each in found:
            by_kind[each.kind].append((index, each))
    meant = [None] * len(images) if vocabularies is None else vocabularies
    parts: dict[Hashable, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, each in by_kind["label"]:
        parts[meant[index]].append((index, each))
    labels = [each for same in parts.values() for each in _unlike_others(same)]
    missing, edges = (
        _less_usual([(index, each, each.value) for index, each in by_kind[kind]], meant)
        for kind in ("missing", "edges")
    )
    measures: tuple[tuple[Kind, list[_Beyond]], ...] = (
        ("label", labels),
        ("missing", missing),
        ("edges", edges),
        ("edges", _means(edges)),
    )
    best: dict[int, Ranked] = {}
    for kind, beyond in measures:
        for ranked in _score(beyond, kind):
            known = best.get(ranked.index)
            if ranked.score > (0 if known is None else known.score):
                best[ranked.index] = ranked
    return sorted(best.values(), key=lambda each: (-each.score, each.index))


def _unlike_others(pairs: Sequence[tuple[int, Disagreement]]) -> list[_Beyond]:
    """Return each part with the label that it looks like, and how much more so than its own.

    Parts without a description, or with one that is not finite, are not judged.
    """
    parts = [(index, each, each.description) for index, each in pairs]
    described = [
        (index, each, what)
        for index, each, what in parts
        if what is not None and np.isfinite(what).all()
    ]
    if not described:
        return []
    images = np.array([index for index, *_ in described])
    labels = np.array([each.label for _, each, _ in described])
    descriptions = np.stack([what for *_, what in described])
    count = descriptions.shape[1] - BESIDE_LABELS
    logarithms = held_out_log_probabilities(descriptions, labels, images, count)
    likely = logarithms.argmax(axis=1)
    odds = logarithms.max(axis=1) - logarithms[np.arange(len(labels)), labels]
    made = []
    for (index, each, _), other, value in zip(
        described, likely.tolist(), odds.tolist(), strict=True
    ):
        unlike = replace(each, other=other) if value > 0 else each
        made.append((index, unlike, min(value, _MOST_LOG_ODDS) * math.sqrt(each.weight)))
    return made


def _less_usual(found: Sequence[_Beyond], vocabularies: Sequence[Hashable]) -> list[_Beyond]:
    """Take the median of each label away from its values."""
    usual = _usual([((vocabularies[index], each.about), value) for index, each, value in found])
    return [
        (index, each, value - usual[vocabularies[index], each.about])
        for index, each, value in found
    ]


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


def _score(beyond: Sequence[_Beyond], kind: Kind) -> list[Ranked]:
    """Score each image by the disagreement of a kind that is farthest beyond what is usual."""
    worst: dict[int, tuple[float, Disagreement]] = {}
    for index, each, value in beyond:
        if index not in worst or value > worst[index][0]:
            worst[index] = max(0.0, value), each
    if not worst:
        return []
    usual_beyond = float(np.quantile([value for value, _ in worst.values()], _USUAL[kind]))
    scale = max(_NOISE[kind], usual_beyond)
    return [Ranked(index, each, value / scale) for index, (value, each) in worst.items()]


def _usual(values: Sequence[tuple[Hashable, float]]) -> dict[Hashable, float]:
    """Return the median of each label; where there are few images, that of all medians.

    Args:
        values: a label, and the value of it on an image; one for each image.
    """
    by_label: dict[Hashable, list[float]] = defaultdict(list)
    for label, value in values:
        by_label[label].append(value)
    medians = {label: float(np.median(own)) for label, own in by_label.items()}
    known = [medians[label] for label, own in by_label.items() if len(own) >= _FEW]
    fallback = float(np.median(known or list(medians.values()))) if medians else 0.0
    return {
        label: medians[label] if len(own) >= _FEW else fallback for label, own in by_label.items()
    }
