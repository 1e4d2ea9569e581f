"""Rank annotated images by how far their disagreements are from what is usual."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clearclip_core.label_errors.disagreement import (
    BESIDE_LABELS,
    Disagreement,
    Kind,
    held_out_log_probabilities,
)

#: So many images of a label say what is usual for it; with fewer, all labels together do.
_FEW: Final = 5

#: Of the images, this share is not beyond what is usual: there the score of a kind is 1. Careless
#: edges lie far beyond the others, so fewer are checked for those that do not.
_USUAL: Final[Mapping[Kind, float]] = {"label": 0.95, "missing": 0.95, "edges": 0.98}

#: Values so little above what is usual for their label are noise: there the score is 1 at most.
_NOISE: Final[Mapping[Kind, float]] = {"label": 0.05, "missing": 0.03, "edges": 0.15}

#: Such log odds are noise, too: a hundredth of an image has these at 150 to 1 for another label.
_NOISE_ODDS: Final = 0.5

#: A mean over the edges of n labels varies less than those of one by the square root of n, and by
#: that factor at most: labels of one image have something in common.
_STEADIER: Final = 3.0

#: Larger log odds are as good as that: how parts are spread so far from their means is not known.
_MOST_LOG_ODDS: Final = 50.0

#: A usual probability counts as that at least.
_LEAST_PROBABILITY: Final = 0.02

#: An image, a disagreement of it, and how far that is beyond what is usual for its label.
_Beyond = tuple[int, Disagreement, float]


@dataclass(frozen=True)
class Ranked:
    """An image with what is most unusual of it.

    Attributes:
        disagreement: in what it disagrees most.
        score: how far that is beyond what is usual for the label, more than 0; one image in
            twenty has more than 1 of the same kind at most, and of edges one in fifty by each of
            their two measures.
    """

    index: int
    disagreement: Disagreement
    score: float


def rank(
    images: Sequence[Sequence[Disagreement]],
    vocabularies: Sequence[Hashable] | None = None,
    pictures: Sequence[Hashable] | None = None,
) -> list[Ranked]:
    """Rank annotated images, the most suspicious first.

    Of each value, the median of its label's values over the images is taken away: a label that the
    model hardly knows disagrees everywhere. What is left is divided by the value that one image in
    twenty exceeds, of edges one in fifty, so that kinds can be compared. An image counts by its
    largest score.

    - **label**: the log odds for the label that a part looks like most over the painted one, by
      what such parts are painted as on other images
      (`clearclip_core.label_errors.disagreement`), times the square root of the part's share of
      the image. 0 where that is the painted one, so no median is taken away.
    - **label**, where too few other images have the painted label: what a part lacks of the usual
      probability of its label, in shares of that (`clearclip_core.label_errors.disagreement`; the
      label's own threshold of confident learning), times that square root.
    - **edges**: the worst label, and the mean over all edges: careless work shows in all of them.
      The mean counts the more, the more labels it is of.

    Args:
        images: what `find_disagreements` has found on each annotated image.
        vocabularies: what the indices of labels mean on each image, equal for equal labels; None
            where they mean the same on all.
        pictures: which picture each is, equal for several annotations of one, which do not speak
            for each other; None where each is another.

    Returns:
        The images that disagree more than is usual; equal scores in the order of the images.
    """
    by_kind: dict[Kind, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, found in enumerate(images):
        for each in found:
            by_kind[each.kind].append((index, each))
    meant = [None] * len(images) if vocabularies is None else vocabularies
    numbers: dict[Hashable, int] = {}
    picture = [
        numbers.setdefault(key, len(numbers))
        for key in (range(len(images)) if pictures is None else pictures)
    ]
    parts: dict[Hashable, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, each in by_kind["label"]:
        parts[meant[index]].append((index, each))
    judged: list[_Beyond] = []
    lacking: list[_Beyond] = []
    not_judged: list[_Beyond] = []
    for same in parts.values():
        odds = _log_odds(same, picture)
        judged += [each for each in odds if each is not None]
        shortfalls = _shortfalls(same)
        lacking += shortfalls
        not_judged += [each for each, own in zip(shortfalls, odds, strict=True) if own is None]
    missing, edges = (
        _less_usual([(index, each, each.value) for index, each in by_kind[kind]], meant)
        for kind in ("missing", "edges")
    )
    means = _means(edges)
    measures = (
        (judged, _scale(judged, _USUAL["label"], _NOISE_ODDS)),
        (not_judged, _scale(lacking, _USUAL["label"], _NOISE["label"])),
        (missing, _scale(missing, _USUAL["missing"], _NOISE["missing"])),
        (edges, _scale(edges, _USUAL["edges"], _NOISE["edges"])),
        (means, _scale(means, _USUAL["edges"], _NOISE["edges"])),
    )
    best: dict[int, Ranked] = {}
    for beyond, scale in measures:
        for index, disagreement, value in beyond:
            known = best.get(index)
            if value / scale > (0 if known is None else known.score):
                best[index] = Ranked(index, disagreement, value / scale)
    return sorted(best.values(), key=lambda each: (-each.score, each.index))


def _log_odds(
    pairs: Sequence[tuple[int, Disagreement]], pictures: Sequence[int]
) -> list[_Beyond | None]:
    """Return each part with the label that it looks like, and how much more so than its own.

    None for parts that are not judged: without a description, with one that is not finite, or
    with a label that too few other images have.
    """
    made: list[_Beyond | None] = [None] * len(pairs)
    described = [
        (place, each.description)
        for place, (_, each) in enumerate(pairs)
        if each.description is not None and np.isfinite(each.description).all()
    ]
    if not described:
        return made
    images = np.array([pictures[pairs[place][0]] for place, _ in described])
    labels = np.array([pairs[place][1].label for place, _ in described])
    descriptions = np.stack([what for _, what in described])
    count = descriptions.shape[1] - BESIDE_LABELS
    logarithms = held_out_log_probabilities(descriptions, labels, images, count)
    own = logarithms[np.arange(len(labels)), labels]
    for number in np.flatnonzero(np.isfinite(own)).tolist():
        place = described[number][0]
        index, each = pairs[place]
        other = int(logarithms[number].argmax())
        value = min(float(logarithms[number, other] - own[number]), _MOST_LOG_ODDS)
        unlike = replace(each, other=other) if value > 0 else each
        made[place] = index, unlike, value * math.sqrt(each.weight)
    return made


def _shortfalls(pairs: Sequence[tuple[int, Disagreement]]) -> list[_Beyond]:
    """Return what each part lacks of the usual probability of its label.

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
    made = []
    for index, each in pairs:
        own = usual[each.about]
        lacks = max(0.0, each.value - own) / max(1 - own, _LEAST_PROBABILITY)
        made.append((index, each, lacks * math.sqrt(each.weight)))
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


def _scale(beyond: Sequence[_Beyond], share: float, noise: float) -> float:
    """Return the value at which the score is 1.

    Args:
        beyond: how far disagreements are beyond what is usual for their labels.
        share: of the images with any, that many have no more.
        noise: the least value that is returned.
    """
    worst: dict[int, float] = {}
    for index, _, value in beyond:
        worst[index] = max(value, worst.get(index, 0.0))
    return max(noise, float(np.quantile([*worst.values()], share))) if worst else noise


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
