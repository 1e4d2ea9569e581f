"""Fit scores to corrected images: text logits plus a linear function of the features a label.

No network is trained, and no score is made from images alone. For each label that was corrected,
a linear function of the features is added to its text logit. The functions are the mode of the
posterior of a multinomial logistic regression, whose prior is a Gaussian around the text logits:
a convex problem with one solution, found in seconds. The words of a label weigh less where they
are wrong: the precision of its prior is chosen by cross-validation. What goes live has to gain on
held-out images beyond chance, and may cost no label more than a bound. A label without corrections
keeps its text score. All terms are linear in the features, as the text scores are, so label maps
stay exact (`Adaptation`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from clearclip_core.adaptation.acceptance import Comparison
from clearclip_core.adaptation.adaptation import Adaptation, group_names
from clearclip_core.adaptation.batch import Batch
from clearclip_core.adaptation.contradictions import (
    BOX,
    EXCHANGED,
    BoolArray,
    SetAside,
    find_contradictions,
)
from clearclip_core.adaptation.cross_validation import CrossValidation, Trial
from clearclip_core.adaptation.evidence import Evidence, count_images, gather_evidence
from clearclip_core.adaptation.examples import UNLABELED, Example
from clearclip_core.adaptation.fit import Fit, mean_iou
from clearclip_core.adaptation.lessons import Lessons
from clearclip_core.adaptation.posterior import Terms
from clearclip_core.adaptation.selection import Refusal, Selection
from clearclip_core.adaptation.serialization import check_width
from clearclip_core.adaptation.similarity import cluster
from clearclip_core.adaptation.sufficient_statistics import Float64Array
from clearclip_core.segmentation.scores import TEMPERATURE
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import Vocabulary

#: How much of a label's IoU an adaptation may cost.
LABEL_LOSS = 0.03

#: Limit of the patches of all examples together; of many examples, each gives fewer.
PATCHES = 12_000

#: Number of different images that a label must be painted on.
FEWEST_IMAGES = 2


def adapt(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
    trusted: Collection[str] = (),
    label_loss: float = LABEL_LOSS,
    learn_presence: bool = False,
    learn_synonyms: bool = False,
) -> Fit:
    """Fit an adaptation of the text scores to training examples.

    Each image is scored by an adaptation to the others, so all IoUs are of images that were not
    learned from. Near-duplicates count as one image, and one image alone gives no adaptation.
    Examples with numbers that are not finite are left out and not counted. The outcome depends
    neither on the order of the examples nor on the machine that made them.

    Args:
        examples: one for each correction.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use; corrections of other labels are left out.
        trusted: digests of examples of which nothing is set aside.
        label_loss: IoU in [0, 1]; an adaptation is refused where a label loses more than that, see
            `clearclip_core.adaptation.acceptance.find_losing`.
        learn_presence: learn how likely labels are in an image at all, from examples with a CLS
            feature, see `clearclip_core.adaptation.presence`.
        learn_synonyms: learn of which labels the prompts are joined, see
            `clearclip_core.adaptation.synonyms`.

    Raises:
        ValueError: examples of another model.
    """
    # On such small products, threads cost many times what they win, and take the model's cores.
    with one_blas_thread():
        return _adapt(
            examples, embed, vocabulary, trusted, label_loss, learn_presence, learn_synonyms
        )


def _adapt(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
    trusted: Collection[str],
    label_loss: float,
    learn_presence: bool,
    learn_synonyms: bool,
) -> Fit:
    finite = (example for example in examples if example.is_finite)
    ordered = sorted(finite, key=lambda example: (example.picture_key, example.digest))
    names = group_names(vocabulary)
    batches = make_batches(ordered, embed, vocabulary)
    clusters = cluster(ordered)
    aside = find_set_aside(batches, clusters, names, trusted) if batches else []
    evidence: Sequence[Evidence] = gather_evidence(batches, clusters, names, aside)
    pictures = len({example.picture_key for example in ordered})
    fit = _Fitting(evidence, names, pictures, tuple(aside), label_loss).fit()
    if not evidence or not (learn_presence or learn_synonyms):
        return fit
    lessons = Lessons(ordered, embed(vocabulary.queries), vocabulary, label_loss)
    if learn_synonyms:
        fit, evidence = lessons.join_synonyms(fit, evidence)
    return lessons.learn_presence(fit, evidence) if learn_presence else fit


def find_set_aside(
    batches: Sequence[Batch],
    clusters: npt.NDArray[np.intp],
    names: Sequence[str],
    trusted: Collection[str],
) -> list[SetAside]:
    """Find the paint that is not learned from: what the words and the others' paint contradict.

    Args:
        batches: n examples for one vocabulary.
        clusters: (n,) numbers of their images, near-duplicates alike.
        names: names of the G groups.
        trusted: digests of examples of which nothing is set aside.
    """
    aside = find_contradictions(batches, names, trusted)
    certain = [each for each in aside if each.reason in (BOX, EXCHANGED)]
    if len(certain) == len(aside):
        return aside
    evidence = gather_evidence(batches, clusters, names, certain)
    learning = np.any([each.shows(len(names)) for each in evidence], axis=0)
    if not learning.any() or len(np.unique(clusters)) < 2:
        return aside
    held_out = CrossValidation(evidence).predict(learning)
    return find_contradictions(batches, names, trusted, held_out)


class _Fitting:
    """One fit.

    Args:
        evidence: what the examples say.
        names: names of the groups.
        pictures: number of corrected images.
        set_aside: paint that is not learned from.
        label_loss: IoU that a label may lose at most.
    """

    def __init__(
        self,
        evidence: Sequence[Evidence],
        names: Sequence[str],
        pictures: int,
        set_aside: tuple[SetAside, ...],
        label_loss: float,
    ) -> None:
        self._evidence = evidence
        self._names = names
        self._pictures = pictures
        self._set_aside = set_aside
        self._label_loss = label_loss
        self._refused: dict[str, str] = {}

    def fit(self) -> Fit:
        """Select among the labels with enough images, and fit them to all."""
        learning = self._learnable()
        if not learning.any():
            return self._words_alone()
        validation = CrossValidation(self._evidence)
        labels = np.array([name != UNLABELED for name in self._names])
        selection = Selection(validation, self._label_loss, labels)
        trial = selection.select(learning)
        for refusal in selection.refusals:
            self._refuse(refusal)
        if trial is None:
            return self._words_alone(selection.refusals[-1].comparison)
        return self._adapted(trial, validation.fit(trial))

    def _learnable(self) -> BoolArray:
        """Return (G,) bool: the labels that are painted on enough images."""
        groups = len(self._names)
        images = count_images(self._evidence, groups)
        painted: list[set[int]] = [set() for _ in range(groups)]
        for each in self._evidence:
            for group in np.flatnonzero(each.batch.painted.any(axis=0)):
                painted[group].add(each.cluster)
        for group, name in enumerate(self._names):
            some, shown = int(images[group]), len(painted[group])
            if not shown or some >= FEWEST_IMAGES:
                continue
            if self._evidence[0].widely_doubted[group]:
                reason = "Too much of its paint is where the words see labels that nobody paints."
            else:
                reason = (
                    f"It can be learned from {some} of {shown} different pictures that show it, "
                    f"and needs {FEWEST_IMAGES}."
                )
            self._refused[name] = reason
        enough: BoolArray = images >= FEWEST_IMAGES
        return enough

    def _refuse(self, refusal: Refusal) -> None:
        """Write down why labels are not adapted."""
        learning, losing, comparison = refusal.learning, refusal.losing, refusal.comparison
        bound = f"the bound of {100 * self._label_loss:.3g}"
        losers = [f"“{self._names[group]}”" for group in np.flatnonzero(losing)]
        for group in np.flatnonzero(learning):
            lost = 100 * (comparison.before - comparison.after)[group]
            if losing[group]:
                reason = f"It loses {lost:.1f} points of IoU on held-out pictures, above {bound}."
            elif losers:
                reason = f"With it {', '.join(losers)} loses more points of IoU than {bound}."
            elif comparison.gain_bound > 0:
                reason = (
                    "It gains where pictures are painted, but the mean IoU of all labels falls."
                )
            else:
                reason = "That it gains on held-out pictures is not certain."
            self._refused[self._names[group]] = reason

    def _adapted(self, trial: Trial, terms: Terms) -> Fit:
        """Make the adaptation of the labels that learn."""
        learning, comparison = trial.learning, trial.comparison
        adaptation = adaptation_of(terms, learning, self._names, self._pictures)
        found = [self._names[group] for group in np.flatnonzero(learning)]
        priors = dict(zip(found, trial.prior.precisions.tolist(), strict=True))
        for name in found:
            self._refused.pop(name, None)
        return self._fit(adaptation, comparison.before, comparison.after, priors)

    def _words_alone(self, comparison: Comparison | None = None) -> Fit:
        """Return the fit without an adaptation."""
        before = comparison.before if comparison is not None else self._words_ious()
        return self._fit(None, before, before, {})

    def _words_ious(self) -> Float64Array:
        if not self._evidence:
            return np.zeros(len(self._names))
        return CrossValidation(self._evidence).words_ious()

    def _fit(
        self,
        adaptation: Adaptation | None,
        before: Float64Array,
        after: Float64Array,
        priors: Mapping[str, float],
    ) -> Fit:
        text, adapted = (self._by_label(ious) for ious in (before, after))
        return Fit(
            adaptation,
            mean_iou(text),
            mean_iou(adapted),
            text,
            adapted,
            priors,
            self._pictures,
            dict(self._refused),
            self._set_aside,
        )

    def _by_label(self, ious: Float64Array) -> dict[str, float]:
        """IoU by label, of the labels that occur."""
        occurs = {int(group) for each in self._evidence for group in np.unique(each.truth)}
        return {
            name: float(ious[group])
            for group, name in enumerate(self._names)
            if name != UNLABELED and group in occurs
        }


def adaptation_of(
    terms: Terms, learning: BoolArray, names: Sequence[str], pictures: int
) -> Adaptation:
    """Make the adaptation of the labels that learn; terms of logits become cosines'.

    Args:
        terms: of all G groups.
        learning: (G,) bool, the groups that learn.
        names: names of the groups.
        pictures: number of corrected images.
    """
    rows = sorted(np.flatnonzero(learning).tolist(), key=lambda index: names[index])
    directions, offsets = (term[rows] / np.float32(TEMPERATURE) for term in terms)
    return Adaptation(tuple(names[row] for row in rows), directions, offsets, pictures)


def make_batches(
    examples: Sequence[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Vocabulary,
) -> list[Batch]:
    """Make the batch of each example; all together have at most `PATCHES` patches.

    Raises:
        ValueError: examples of another model.
    """
    embeddings = embed(vocabulary.queries).to("cpu", torch.float32).numpy()
    for example in examples:
        check_width(example.width, embeddings.shape[1])
    limit = PATCHES // max(1, len(examples))
    return [Batch.of(example, embeddings, vocabulary, limit) for example in examples]
