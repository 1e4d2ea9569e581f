"""Find annotators whose work would teach what is wrong, by what most of their pictures say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, permutations

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.adaptation import group_names
from clearclip_core.adaptation.example import MOVES, BoolArray, Example, Float32Array
from clearclip_core.adaptation.targets import Targets, text_logits
from clearclip_core.vocabulary import Vocabulary

Float64Array = npt.NDArray[np.float64]

FEWEST_PICTURES = 3  # of an annotator who is judged
FEWEST_ANNOTATORS = 3  # of two, nobody knows which one is right

#: Share of a picture's painted area by which more of it has to agree with the words, moved back.
#: Chosen on photographs and drawn scenes, see docs/results/measurements.md.
_BETTER = 0.02
_LEAST_AREA = 0.005  # share of a picture that a label covers, to be judged
_FEWEST_OF_EACH = 2  # pictures that show each of two labels that seem to be exchanged
_LARGE_AREA = 0.02  # and to be named for it: what is smaller often looks like what is around it
#: How the reasons end that name two labels of an annotator.
_WHAT_FOLLOWS = (
    "what the other annotators draw says so. Both labels keep their words meanwhile. Check these "
    "annotations, or learn without them."
)
_MISTAKEN = 0.7  # share of a drawn label's area that has to be another one by what others teach

#: Share of right pictures that may seem moved where words know little, and how unlikely as many as
#: were found have to be then: of three and of four pictures all, of ten six.
_BY_CHANCE = 0.25
_UNLIKELY = 0.02


@dataclass(frozen=True)
class AnnotatorFinding:
    """What most of an annotator's pictures say against learning from them.

    Attributes:
        annotator: key of the annotator, see `Example.annotator`; "" for all whom nobody knows.
        reason: what was found, as a sentence that does not name the annotator.
        is_left_out: whether nothing was learned of the annotator's pictures.
        labels: names of the two labels that the annotator seems to exchange or to mistake, or none.
        refusal: why these labels keep their words, as a sentence.
    """

    annotator: str
    reason: str
    is_left_out: bool = False
    labels: tuple[str, ...] = ()
    refusal: str = ""


def by_annotator(examples: Sequence[Example]) -> Iterator[tuple[str, list[Example]]]:
    """Yield each annotator's key and examples, in the order of the keys."""
    ordered = sorted(examples, key=lambda each: each.annotator)
    for annotator, own in groupby(ordered, lambda each: each.annotator):
        yield annotator, list(own)


def find_moved(
    examples: Sequence[Example], embeddings: torch.Tensor, vocabulary: Vocabulary
) -> list[AnnotatorFinding]:
    """Find annotators most of whose masks agree better with the words when they are moved back.

    Tools mirror masks, turn them where a photograph has an EXIF orientation, or import them beside
    their place. The words are often wrong about a pixel, but hardly ever more so than about the
    pixel on the other side of the picture. Shifts of less than a patch are not seen.

    Args:
        examples: training examples of one model.
        embeddings: (Q, D) unit text embeddings of the vocabulary's queries.
        vocabulary: the words.
    """
    found = []
    for annotator, own in by_annotator(examples):
        gains = [_agreement_gains(each, embeddings, vocabulary) for each in own]
        judged = np.array([gain for gain in gains if gain is not None])
        if len(judged) < FEWEST_PICTURES:
            continue
        is_better = judged > _BETTER
        # Of two moves that as many pictures ask for, the one that more of the area asks for.
        move = int(np.lexsort((judged.mean(axis=0), is_better.sum(axis=0)))[-1])
        count = int(is_better[:, move].sum())
        if _is_most(count, len(judged)):
            reason = (
                f"On {count} of {len(judged)} pictures the masks seem to be {MOVES[move]}: moved "
                "back, they agree better with the words. See whether a tool or an import has "
                "done that. Nothing is learned of them."
            )
            found.append(AnnotatorFinding(annotator, reason, is_left_out=True))
    return found


def _is_most(count: int, pictures: int) -> bool:
    """Whether `count` of an annotator's pictures are most of them, by more than chance."""
    from scipy.stats import binom  # takes a second

    is_likely = binom.sf(count - 1, pictures, _BY_CHANCE) >= _UNLIKELY
    return 2 * count > pictures >= FEWEST_PICTURES and not is_likely


def find_exchanged(targets: Targets, logits: Float32Array) -> list[AnnotatorFinding]:
    """Find annotators who draw one label where the others draw another, and the other way round.

    Whoever does what most others do is right: what a project calls its things is its own.

    Args:
        targets: the pixels.
        logits: (N, G) of each pixel, by what the pictures of other annotators teach.
    """
    annotators = sorted({*targets.annotator.tolist()} - {""})
    counts = {each: _exchanged(targets, logits, each) for each in annotators}

    found = []
    for one, other in combinations(np.flatnonzero(targets.labels).tolist(), 2):
        judged = {
            annotator: counted[:, one, other]
            for annotator, counted in counts.items()
            if counted[1, one, other] >= _FEWEST_OF_EACH
        }
        exchanging = [each for each, (count, shown) in judged.items() if _is_most(count, shown)]
        if len(judged) < FEWEST_ANNOTATORS or 2 * len(exchanging) >= len(judged):
            continue

        labels = targets.names[one], targets.names[other]
        for annotator in exchanging:
            count, shown = judged[annotator]
            reason = (
                f"On {count} of {shown} pictures “{labels[0]}” and “{labels[1]}” seem to be "
                f"exchanged: {_WHAT_FOLLOWS}"
            )
            refusal = f"Somebody seems to exchange “{labels[0]}” and “{labels[1]}”."
            found.append(AnnotatorFinding(annotator, reason, labels=labels, refusal=refusal))
    return found


def find_mistaken(targets: Targets, logits: Float32Array) -> list[AnnotatorFinding]:
    """Find annotators who alone draw one label where what the others teach has another.

    Who draws the grass as a tree, and no tree, exchanges nothing and spoils the trees all the same.
    Labels that look alike on most pictures of somebody else are nobody's mistake.

    Args:
        targets: the pixels.
        logits: (N, G) of each pixel, by what the pictures of other annotators teach.
    """
    annotators = sorted({*targets.annotator.tolist()} - {""})
    # What stands as a prediction showed it is nobody's mistake.
    pairs = {
        each: list(_pairs_by_image(targets, logits, each, targets.drawn)) for each in annotators
    }
    drawing = {each: images for each, images in pairs.items() if images}
    every = {each: _mistaken(images, _LEAST_AREA) for each, images in drawing.items()}
    large = {each: _mistaken(images, _LARGE_AREA) for each, images in drawing.items()}

    found = []
    for drawn, seen in permutations(np.flatnonzero(targets.labels).tolist(), 2):
        annotator = _alone(every, drawn, seen)
        if annotator is None:
            continue
        count, shown = int(large[annotator][drawn, seen]), int(large[annotator][drawn, drawn])
        if not _is_most(count, shown):
            continue

        labels = targets.names[drawn], targets.names[seen]
        reason = (
            f"On {count} of {shown} pictures “{labels[0]}” seems to be “{labels[1]}”: "
            f"{_WHAT_FOLLOWS}"
        )
        refusal = f"Somebody seems to draw “{labels[0]}” where the others draw “{labels[1]}”."
        found.append(AnnotatorFinding(annotator, reason, labels=labels, refusal=refusal))
    return found


def _alone(counts: Mapping[str, npt.NDArray[np.intp]], drawn: int, seen: int) -> str | None:
    """Return the only annotator on most of whose pictures a drawn label is seen as another one.

    None where there is none or more than one, or where too few annotators draw the label.

    Args:
        counts: annotator -> what `_mistaken` counts.
        drawn: index of the drawn label.
        seen: index of the other one.
    """
    judged = [each for each in counts if counts[each][drawn, drawn] >= _FEWEST_OF_EACH]
    most = [each for each in judged if 2 * counts[each][drawn, seen] > counts[each][drawn, drawn]]
    return most[0] if len(judged) >= FEWEST_ANNOTATORS and len(most) == 1 else None


def find_disputed(targets: Targets, logits: Float32Array, bound: float) -> BoolArray:
    """Find labels that lose on the pictures of most annotators: (G,) bool.

    Args:
        targets: the pixels.
        logits: (N, G) of each pixel, by what the pictures of other annotators teach.
        bound: IoU in [0, 1] that a label has to lose, by the share of it that was drawn.
    """
    judged = np.zeros(len(targets.names), np.intp)
    losing = np.zeros_like(judged)
    for annotator in np.unique(targets.annotator):
        own = targets.annotator == annotator
        truth, is_drawn = targets.truth[own], targets.drawn[own]
        pictures = np.zeros((targets.images, len(targets.names)), np.bool_)
        np.logical_or.at(pictures, targets.image[own], (truth > 0) & is_drawn[:, None])
        is_judged = targets.labels & (pictures.sum(axis=0) >= FEWEST_PICTURES)
        share = truth[is_drawn].sum(axis=0) / np.maximum(truth.sum(axis=0), 1e-12)
        change = _ious(truth, logits[own]) - _ious(truth, targets.text[own])
        judged += is_judged
        losing += is_judged & (change * share < -bound)
    disputed: BoolArray = (judged >= FEWEST_ANNOTATORS) & (2 * losing > judged)
    return disputed


def _ious(truth: Float32Array, logits: Float32Array) -> Float32Array:
    """Return the (G,) IoUs of (P, G) areas and the best groups of (P, G) logits."""
    chosen = np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(axis=1)]
    right = (chosen * truth).sum(axis=0)
    taken = (chosen * truth.sum(axis=1, keepdims=True)).sum(axis=0)
    ious: Float32Array = right / np.maximum(truth.sum(axis=0) + taken - right, 1e-12)
    return ious


def _exchanged(targets: Targets, logits: Float32Array, annotator: str) -> npt.NDArray[np.intp]:
    """Count an annotator's pictures that speak for an exchange, and those that show either label.

    (2, G, G): where more of the area of two labels agrees with the logits once they are exchanged,
    and where one of them stands. Whoever takes one label for the other exchanges nothing: no
    picture speaks for an exchange unless most of each label is the other by the logits, and each
    stands on `_FEWEST_OF_EACH` pictures.
    """
    groups = len(targets.names)
    counts = np.zeros((2, groups, groups), np.intp)
    total, shown = np.zeros((groups, groups)), np.zeros(groups, np.intp)

    for pairs in _pairs_by_image(targets, logits, annotator, targets.drawn | targets.kept):
        area, right = pairs.sum(axis=1), pairs.diagonal()
        total += pairs
        shown += area >= _LEAST_AREA
        either = np.maximum.outer(area, area) >= _LEAST_AREA
        gain = pairs + pairs.T - right - right[:, None]
        counts += either & np.stack([gain > _BETTER * (area + area[:, None]), either])

    is_other = total > total.diagonal()[:, None]
    is_shown = np.minimum.outer(shown, shown) >= _FEWEST_OF_EACH
    counts[0] *= is_other & is_other.T & is_shown
    return counts


def _mistaken(images: Iterable[Float64Array], least_area: float) -> npt.NDArray[np.intp]:
    """Count images on which a drawn label is another one by the logits: (G, G).

    On the diagonal stand all images on which the label was drawn.

    Args:
        images: for each image, what `_pairs_by_image` yields of what was drawn on it.
        least_area: share of an image that a label covers, to be counted.
    """
    counts: list[BoolArray] = []
    for pairs in images:
        area = pairs.sum(axis=1, keepdims=True)
        is_mistaken = pairs > _MISTAKEN * area
        np.fill_diagonal(is_mistaken, True)
        counts.append(is_mistaken & (area >= least_area))
    total: npt.NDArray[np.intp] = np.stack(counts).sum(axis=0, dtype=np.intp)
    return total


def _pairs_by_image(
    targets: Targets, logits: Float32Array, annotator: str, counted: BoolArray
) -> Iterator[Float64Array]:
    """Yield for each image of an annotator the areas that stand as one label and look like one.

    Args:
        targets: the pixels.
        logits: (N, G) of each pixel.
        annotator: key of the annotator.
        counted: (N,) bool, the pixels that count.

    Yields:
        (G, G) shares of the image: rows are the labels that stand, columns those by the logits.
    """
    own = (targets.annotator == annotator) & counted
    for image in np.unique(targets.image[own]):
        some = own & (targets.image == image)
        stands, best = targets.target[some].argmax(axis=1), logits[some].argmax(axis=1)
        pairs = np.zeros((len(targets.names), len(targets.names)))
        np.add.at(pairs, (stands, best), targets.weights[some])
        yield pairs


def _agreement_gains(
    example: Example, embeddings: torch.Tensor, vocabulary: Vocabulary
) -> Float32Array | None:
    """Return by what share of the painted area more agrees with the words after each of `MOVES`.

    (7,) float32; None where nothing is painted, or nobody knows what stands elsewhere.
    """
    standing = standing_labels(example)
    area = float(example.weights[standing >= 0].sum())
    if not area or (example.elsewhere < 0).all():
        return None
    place = {name: index for index, name in enumerate(example.known)}
    groups = np.array([place.get(name, -2) for name in group_names(vocabulary)])
    text = text_logits(example.features.astype(np.float32), embeddings, vocabulary, example)
    words = groups[text.argmax(axis=1)]
    as_painted = example.weights @ (standing == words)
    moved_back = example.weights @ (example.elsewhere == words[:, None])
    gains: Float32Array = (moved_back - as_painted) / np.float32(area)
    return gains


def standing_labels(example: Example) -> npt.NDArray[np.intp]:
    """Return the index in `known` of the label that stands on each pixel: (N,), -1 for none."""

    def in_known(labels: npt.NDArray[np.int16], names: Sequence[str]) -> npt.NDArray[np.intp]:
        return np.array([*map(example.known.index, names), -1])[labels]

    drawn = in_known(example.labels, example.names)
    kept = in_known(example.kept, example.kept_names)
    return np.maximum(drawn, kept)
