"""Find annotators whose work would teach what is wrong, by what most of their pictures say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom

from clearclip_core.adaptation.adaptation import group_names
from clearclip_core.adaptation.example import MOVES, Example, Float32Array
from clearclip_core.adaptation.targets import text_logits
from clearclip_core.vocabulary import Vocabulary

FEWEST_PICTURES = 3  # of an annotator who is judged

#: Share of a picture's painted area by which more of it has to agree with the words, moved back.
#: Chosen on photographs and drawn scenes, see `tests.bench.test_people`.
_BETTER = 0.02

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
    """

    annotator: str
    reason: str
    is_left_out: bool = False


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
        if 2 * count > len(judged) and binom.sf(count - 1, len(judged), _BY_CHANCE) < _UNLIKELY:
            reason = (
                f"On {count} of {len(judged)} pictures the masks seem to be {MOVES[move]}: moved "
                "back, they agree better with the words. See whether a tool or an import has "
                "done that. Nothing is learned of them."
            )
            found.append(AnnotatorFinding(annotator, reason, is_left_out=True))
    return found


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
