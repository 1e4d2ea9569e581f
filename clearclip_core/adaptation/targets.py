"""What training examples say of their pixels, for one vocabulary.

On a picture that somebody drew on, each pixel has a target:

- **drawn**: the label that was drawn there.
- **kept**: the label that stands there as a prediction showed it. It holds the label in place, also
  where the words have another. Nobody drew it, so it has no part in the balance of the classes,
  and nothing is judged by it.
- **anything else**: the words' own answer, softly, without the labels that were removed there. It
  holds labels in place that paint elsewhere would move.

A picture that nobody drew on says nothing: what a version shows is no evidence for that version,
however many of its masks were accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import softmax

from clearclip_core.adaptation.adaptation import group_names, query_names
from clearclip_core.adaptation.example import UNLABELED, BoolArray, Example, Float32Array
from clearclip_core.vocabulary import TEMPERATURE, Vocabulary

_ABSENT = np.float32(-1e4)  # the logit of a label that could not be chosen
_PIXELS = 12_000  # limit of the pixels of all examples together; of many examples, each gives fewer

#: Exponent of a class's area in the weight of its pixels, and the smallest share of the area that
#: counts: at -1 all classes would weigh the same, at 0 the small ones wither.
_BALANCE = -0.5
_SMALLEST_SHARE = 1e-4

_SHOWN = 2  # number of pixels of a label that make a picture show it

#: Mean cosine of the cells of two layouts from which on their images count as one, at least and at
#: most. In between it depends on how alike the images of the project are: see `_threshold`.
_ALIKE = 0.98
_EQUAL = 0.999


@dataclass(frozen=True, eq=False)
class Targets:
    """The N sampled pixels of all pictures that somebody drew on, for G groups of queries.

    The groups are the labels of the vocabulary and, where there are contrast words, "".
    """

    names: tuple[str, ...]  # names of the groups
    features: npt.NDArray[np.float16]  # (N, D), or (N, D + S) with those of a second encoder
    words_width: int  # how many of these numbers words are compared with, D
    text: Float32Array  # (N, G) float32, logits by the words: the best query of each group
    target: Float32Array  # (N, G) float32, probability of each group
    drawn: BoolArray  # (N,) bool, where the target is what somebody drew
    kept: BoolArray  # (N,) bool, where it is what stands as a prediction showed it
    weights: Float32Array  # (N,) float32, shares of the pixels in their image or near-duplicates
    image: npt.NDArray[np.intp]  # (N,) number of the image, near-duplicates alike, from 0
    pictures: Mapping[str, int]  # key of an image, see `Example.picture_key` -> its number
    annotator: npt.NDArray[np.str_]  # (N,) key of who annotated it, see `Example.annotator`
    balance: float = _BALANCE

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        embeddings: torch.Tensor,
        vocabulary: Vocabulary,
        as_drawn: bool = True,
    ) -> Targets:
        """Put the pixels of examples together.

        Args:
            examples: the training examples; their order is that of the pixels.
            embeddings: (Q, D) unit text embeddings of the vocabulary's queries.
            vocabulary: the words.
            as_drawn: whether only examples count on which somebody drew a label.
        """
        names = group_names(vocabulary)
        used = [each for each in examples if not as_drawn or set(each.names) & set(names)]
        limit = max(1, _PIXELS // max(1, len(used)))
        parts = [_Pixels.of(each, embeddings, vocabulary, limit) for each in used]
        sizes = [len(part.weights) for part in parts]
        width = used[0].width if used else int(embeddings.shape[1])
        pixels = _Pixels.join(parts, len(names), width)

        number = np.unique(cluster(used), return_inverse=True)[1]
        image = np.repeat(number, sizes)
        annotators = np.array([each.annotator for each in used], np.str_)
        return cls(
            names=names,
            features=pixels.features,
            words_width=int(embeddings.shape[1]),
            text=pixels.text,
            target=pixels.target,
            drawn=pixels.drawn,
            kept=pixels.kept,
            weights=(pixels.weights / np.bincount(number)[image]).astype(np.float32),
            image=image,
            pictures={each.picture_key: int(n) for each, n in zip(used, number, strict=True)},
            annotator=np.repeat(annotators, sizes),
        )

    @property
    def images(self) -> int:
        """Number of different images."""
        return int(self.image.max()) + 1 if len(self.image) else 0

    @property
    def labels(self) -> BoolArray:
        """(G,) bool, the groups that are labels."""
        return np.array([name != UNLABELED for name in self.names])

    @cached_property
    def shown(self) -> npt.NDArray[np.intp]:
        """(G,) numbers of images on which somebody drew each group."""
        drawn = np.zeros((self.images, len(self.names)))
        np.add.at(drawn, self.image[self.drawn], self.target[self.drawn] > 0.5)
        return np.asarray((drawn >= _SHOWN).sum(axis=0), np.intp)

    @cached_property
    def fit_weights(self) -> Float32Array:
        """(N,) float32 weights in the fit: what was drawn sums to the number of images.

        Classes are weighed by their area to the power of `balance`, so small ones do not wither.
        """
        drawn = self.target * (self.weights * self.drawn)[:, None]
        area = drawn.sum(axis=0)
        share = np.maximum(area / max(float(area.sum()), 1e-12), _SMALLEST_SHARE)
        balanced = (drawn * share**self.balance).sum(axis=1)
        balanced *= self.images / max(float(balanced.sum()), 1e-12)
        weights: Float32Array = balanced + self.weights * ~self.drawn
        return weights.astype(np.float32)

    @cached_property
    def truth(self) -> Float32Array:
        """(N, G) float32, the area of each group by which held-out pixels are judged.

        Where nobody drew, the words' own answer is right. What stands as it was predicted judges
        nothing: it would praise the version that showed it, and the words where they showed it.
        """
        answer = np.eye(len(self.names), dtype=np.float32)[self.target.argmax(axis=1)]
        truth: Float32Array = answer * (self.weights * ~self.kept)[:, None]
        return truth


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The sampled pixels of one example, see `Targets`; the weights sum to 1. Or of several."""

    features: npt.NDArray[np.float16]
    text: Float32Array
    target: Float32Array
    drawn: BoolArray
    kept: BoolArray
    weights: Float32Array

    @classmethod
    def of(
        cls, example: Example, embeddings: torch.Tensor, vocabulary: Vocabulary, limit: int
    ) -> _Pixels:
        """Say what at most `limit` pixels of an example aim at."""
        places = {name: group for group, name in enumerate(group_names(vocabulary))}
        drawn_as = _groups(example.labels, example.names, places)
        kept_as = _groups(example.kept, example.kept_names, places)
        # A pixel of a label that the vocabulary lacks says nothing of the others.
        is_known = np.maximum(example.labels, example.kept) == -1
        some = _at_equal_steps(np.flatnonzero(is_known | (drawn_as >= 0) | (kept_as >= 0)), limit)
        features, drawn_as, kept_as = example.features[some], drawn_as[some], kept_as[some]
        text = text_logits(features.astype(np.float32), embeddings, vocabulary, example)
        drawn, kept = drawn_as >= 0, kept_as >= 0

        words = softmax(text, axis=1)
        for column, name in enumerate(example.removed_names):
            if name in places:
                words[example.removed[some, column], places[name]] = 0
        left = words.sum(axis=1)
        target = words / np.maximum(left, 1e-9)[:, None]
        stands_as = np.maximum(drawn_as, kept_as)
        stands = stands_as >= 0
        target[stands] = np.eye(len(places), dtype=np.float32)[stands_as[stands]]

        weights = example.weights[some] * (stands | (left > 1e-6))
        weights /= np.float32(max(float(weights.sum()), 1e-12))
        return cls(features, text, target, drawn, kept, weights)

    @classmethod
    def join(cls, parts: Sequence[_Pixels], groups: int, width: int) -> _Pixels:
        """Put the pixels of examples together, in their order; of no example, no pixel.

        Args:
            parts: the pixels of each example.
            groups: number of groups, G.
            width: numbers of a feature.
        """
        every = [*parts, cls._none(groups, width)]
        return cls(
            features=np.concatenate([part.features for part in every]),
            text=np.concatenate([part.text for part in every]),
            target=np.concatenate([part.target for part in every]),
            drawn=np.concatenate([part.drawn for part in every]),
            kept=np.concatenate([part.kept for part in every]),
            weights=np.concatenate([part.weights for part in every]),
        )

    @classmethod
    def _none(cls, groups: int, width: int) -> _Pixels:
        """Return no pixel, which says what shapes and dtypes there are without an example."""
        nobody = np.zeros(0, np.bool_)
        scores = np.zeros((0, groups), np.float32)
        features, weights = np.zeros((0, width), np.float16), np.zeros(0, np.float32)
        return cls(features, scores, scores, nobody, nobody, weights)


def _groups(
    labels: npt.NDArray[np.int16], names: Sequence[str], places: Mapping[str, int]
) -> npt.NDArray[np.intp]:
    """Return the group of each index of `names`; -1 for none, or where the vocabulary lacks it."""
    return np.array([*(places.get(name, -1) for name in names), -1])[labels]


def _at_equal_steps(indices: npt.NDArray[np.intp], limit: int) -> npt.NDArray[np.intp]:
    count = min(len(indices), limit)
    return indices[((np.arange(count) + 0.5) * len(indices) / max(count, 1)).astype(np.intp)]


def text_logits(
    features: Float32Array, embeddings: torch.Tensor, vocabulary: Vocabulary, example: Example
) -> Float32Array:
    """Compute the logits of G groups at pixels: (N, G) float32, of a group's best query.

    A label that was added after the correction could not be chosen and has no chance.

    Args:
        features: (N, D) float32, or more columns, of a second encoder.
        embeddings: (Q, D).
    """
    place = {name: group for group, name in enumerate(group_names(vocabulary))}
    words = embeddings.numpy()
    logits = np.float32(TEMPERATURE) * (features[:, : words.shape[1]] @ words.T)
    text = np.full((len(place), len(features)), _ABSENT, np.float32)
    could = {*example.known, UNLABELED}
    for name, of_query in zip(query_names(vocabulary), logits.T, strict=True):
        if name in could:
            np.maximum(text[place[name]], of_query, out=text[place[name]])
    return text.T


def cluster(examples: Sequence[Example]) -> npt.NDArray[np.intp]:
    """Number the images of examples, near-duplicates alike.

    Examples of one image are in one cluster, and so are images whose coarse layouts of features
    are nearly equal, such as frames of one video, also through a chain of such images.

    Args:
        examples: n training examples of one model.

    Returns:
        (n,) ints from 0, one number for each cluster.
    """
    image = np.unique([each.picture_key for each in examples], return_inverse=True)[1]
    if len(examples) < 2:
        return np.asarray(image, np.intp)
    cosines = _cosines([each.layout for each in examples])
    alike = (image[:, None] == image[None]) | (cosines > _threshold(cosines))
    _, clusters = connected_components(csr_array(alike), directed=False)
    return np.asarray(clusters, np.intp)


def _cosines(cells: Sequence[npt.NDArray[np.float16]]) -> Float32Array:
    """Return the (n, n) mean cosines of the cells of n layouts."""
    layouts = np.stack(cells).astype(np.float32)
    lengths = np.sqrt(np.einsum("ncd,ncd->nc", layouts, layouts))
    layouts /= np.maximum(lengths, 1e-9)[..., None]
    unit = layouts.reshape(len(layouts), -1)
    cosines: Float32Array = unit @ unit.T / np.float32(layouts.shape[1])
    return cosines


def _threshold(cosines: Float32Array) -> float:
    """Choose from which cosine on images count as one.

    Features of one model share a direction, so the cosines of images that have nothing in common
    differ from model to model. Near-duplicates stand out from the less alike pairs of a project.
    """
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    unlike = float(np.percentile(pairs, 10))
    return float(np.clip(1 - 0.2 * (1 - unlike), _ALIKE, _EQUAL))
