"""Which labels' words are joined: chosen on corrected images, and judged on held-out ones.

The best of a label's words counts at each place, unless they are joined by a weighted log-sum-exp
(`clearclip_core.segmentation.scores`). Joining has no parameter: what is chosen is for which
labels. A label is left out where its IoU does not rise on the images that choose. What is left has
to gain on the images that were held out from the choice, and no label may lose more than a bound.
What corrections add to a label's logit is the same for all its words, so it is added to the joined
one as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.acceptance import Comparison, compare, count_patches, why_refused
from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.batch import added_logits, text_logits
from clearclip_core.adaptation.contradictions import BoolArray
from clearclip_core.adaptation.evidence import Evidence
from clearclip_core.adaptation.examples import Example, Float32Array
from clearclip_core.adaptation.sufficient_statistics import Float64Array
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.scores import is_joinable
from clearclip_core.vocabulary import Vocabulary

#: Different images that are needed.
_FEWEST_IMAGES = 5

#: How often labels are left out and the rest is tried again.
_ROUNDS = 3

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class SynonymsFit:
    """What came of joining words.

    Attributes:
        joined: names of the labels whose words are joined, sorted; none where it was refused.
        comparison: IoU with joined words against without, on images that did not choose the
            labels; None where nothing was tried.
        evidence: what the examples say, with the text logits of these labels.
        refused: why it was refused, as a sentence; "" where it was not.
    """

    joined: tuple[str, ...]
    comparison: Comparison | None
    evidence: Sequence[Evidence]
    refused: str = ""


def learn_synonyms(
    examples: Sequence[Example],
    evidence: Sequence[Evidence],
    embeddings: torch.Tensor,
    vocabulary: Vocabulary,
    names: Sequence[str],
    adaptation: Adaptation | None,
    label_loss: float,
) -> SynonymsFit:
    """Choose the labels whose words are joined, and compare scores with and without that.

    Args:
        examples: n training examples.
        evidence: what each of them says.
        embeddings: (Q, D) unit text embeddings of the vocabulary's queries.
        vocabulary: the words.
        names: names of the G groups.
        adaptation: what is added to scores; None for nothing.
        label_loss: IoU in [0, 1] that a label may lose at most.
    """
    several = {label.name for label in vocabulary.labels if is_joinable(label)}
    if not several:
        return SynonymsFit((), None, evidence, "No label has several words.")
    clusters = np.unique([each.cluster for each in evidence], return_inverse=True)[1]
    images = int(clusters.max()) + 1
    if images < _FEWEST_IMAGES:
        there = quantity(images, "different picture")
        reason = f"It can be learned from {there}, and needs {_FEWEST_IMAGES}."
        return SynonymsFit((), None, evidence, reason)
    words = embeddings.to("cpu", torch.float32).numpy()
    texts = [
        text_logits(each.batch.patches, words, vocabulary, example, several)
        for each, example in zip(evidence, examples, strict=True)
    ]
    terms = [added_logits(each.batch, adaptation, names) for each in evidence]
    choice = _Choice(evidence, texts, terms, np.array([name in several for name in names]))
    folds = clusters % min(_FOLDS, images)
    after = [np.zeros(0)] * len(evidence)
    for fold in range(int(folds.max()) + 1):
        chosen = choice.choose(folds != fold, clusters)
        for row in np.flatnonzero(folds == fold).tolist():
            after[row] = choice.count(row, chosen)
    comparison = compare(choice.plain, after, clusters)
    chosen = choice.choose(np.ones(len(evidence), np.bool_), clusters)
    refused = "No label gains by it."
    if chosen.any():
        refused = why_refused(comparison, names, label_loss)
    if refused:
        return SynonymsFit((), comparison, evidence, refused)
    joined = tuple(sorted(names[group] for group in np.flatnonzero(chosen)))
    with_joined = [
        replace(each, batch=replace(each.batch, text=np.where(chosen, text, each.batch.text)))
        for each, text in zip(evidence, texts, strict=True)
    ]
    return SynonymsFit(joined, comparison, with_joined)


class _Choice:
    """Counts of patches for any choice of labels.

    Args:
        evidence: what n examples say.
        texts: (N, G) text logits of each, with the words of all candidates joined.
        terms: (N, G) of each, what is added to them.
        candidates: (G,) bool, the labels with several words.

    Attributes:
        plain: counts of each example, its words apart.
    """

    def __init__(
        self,
        evidence: Sequence[Evidence],
        texts: Sequence[Float32Array],
        terms: Sequence[Float32Array],
        candidates: BoolArray,
    ) -> None:
        self._evidence = evidence
        self._texts = texts
        self._terms = terms
        self._candidates = candidates
        self._counted: dict[tuple[int, bytes], Float64Array] = {}
        nothing = np.zeros_like(candidates)
        self.plain = [self.count(row, nothing) for row in range(len(evidence))]

    def count(self, row: int, chosen: BoolArray) -> Float64Array:
        """Count the patches of an example, the words of some (G,) labels joined."""
        key = (row, chosen.tobytes())
        if key not in self._counted:
            own = self._evidence[row]
            logits = np.where(chosen, self._texts[row], own.batch.text) + self._terms[row]
            self._counted[key] = count_patches(own, logits)
        return self._counted[key]

    def choose(self, rows: npt.NDArray[np.bool_], clusters: npt.NDArray[np.intp]) -> BoolArray:
        """Choose (G,) labels by some of the examples: those whose IoU rises."""
        own = np.flatnonzero(rows).tolist()
        before = [self.plain[row] for row in own]
        numbers = np.unique(clusters[rows], return_inverse=True)[1]
        chosen = self._candidates
        for _ in range(_ROUNDS):
            after = [self.count(row, chosen) for row in own]
            comparison = compare(before, after, numbers)
            falls: BoolArray = chosen & (comparison.after <= comparison.before)
            if not falls.any():
                return chosen
            chosen = chosen & ~falls
        return chosen
