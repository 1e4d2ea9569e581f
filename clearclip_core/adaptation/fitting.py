"""Fit scores to corrected images: text logits plus a linear function of the features a label.

No network is trained. The functions are the mode of a multinomial logistic regression with balanced
classes, whose prior is a Gaussian around the text logits: a convex problem with one solution. How
far each label may move from its words is chosen by cross-validation, and so is how much of the way
is gone. One gate decides whether predictions follow. All terms are linear in the features, as the
text scores are, so label maps stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import block_diag, eigh
from scipy.optimize import minimize
from scipy.special import log_softmax

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.adaptation.example import BoolArray, Example, Float32Array, check_width
from clearclip_core.adaptation.people import (
    FEWEST_ANNOTATORS,
    AnnotatorFinding,
    find_disputed,
    find_exchanged,
    find_mistaken,
    find_moved,
)
from clearclip_core.adaptation.plots import draw_bars, png_of
from clearclip_core.adaptation.targets import Targets
from clearclip_core.segmentation.upsampling import Indices
from clearclip_core.thread_pools import one_blas_thread
from clearclip_core.vocabulary import TEMPERATURE, Labels, Vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Float64Array = npt.NDArray[np.float64]

LABEL_LOSS = 0.03  # how much of a label's IoU an adaptation may cost
FEWEST_IMAGES = 2  # number of different images that a label must be drawn on

#: Precisions of the prior, in images, the strongest first.
_PRECISIONS = (3.0, 0.3, 0.03, 0.01, 0.003)

#: Directions of the whitened features that are kept, and the weight of the identity in their
#: covariance: a few images say little of the directions in which features hardly vary.
_DIRECTIONS = 128
_SHRINKAGE = 3.0
_CHUNK = 1000  # pixels whose features are held in float64 at a time

_STOP = {"maxiter": 100, "maxcor": 10, "ftol": 1e-5, "gtol": 1e-4}

_FOLDS = 10  # folds of cross-validation
_DISPUTED = (
    "It loses on the pictures of most annotators when it is learned from those of the others: they "
    "do not draw it alike."
)
_AMONG_ANNOTATORS = 0.03  # precision by which the pictures of annotators are compared, in images
_DRAWS = 200  # draws of images with replacement (bootstrap)

UNSURE = 0.25  # the share of draws that may say otherwise of a gain
_LIKELY = 0.1  # and of a label's loss: whoever errs on a picture or two must not refuse the others

_MOSTLY = 0.5  # share of a label's truth that somebody has drawn, from which on its IoU is told

#: Shares of the way from the words to the mode that may be gone, and the share of the best one's
#: gain that a shorter one has to keep; that of many priors which has to exceed the gain of one.
_STEPS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_KEPT = 0.9


@dataclass(frozen=True, eq=False)
class HeldOutAdaptations:
    """Adaptations by the image that they have not learned from.

    Attributes:
        by_picture: key of an image, see `Example.picture_key` -> the adaptation to the other folds.
        others: the adaptation to all examples, for images that gave none; None where nothing can
            be learned.
    """

    by_picture: Mapping[str, Adaptation] = field(default_factory=dict, repr=False)
    others: Adaptation | None = None

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        embed: Callable[[Sequence[str]], torch.Tensor],
        vocabulary: Labels,
    ) -> HeldOutAdaptations:
        """Fit an adaptation to all folds of the training examples but one, for each fold.

        The folds are those of `adapt`. No gate is asked: it says what the other annotations say,
        not what predictions use.

        Args:
            examples: one for each correction.
            embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
            vocabulary: the labels in use; corrections of other labels are left out.

        Raises:
            ValueError: examples of another model.
        """
        with one_blas_thread():
            return _Fitting(examples, embed, vocabulary).held_out()

    def propagated(self) -> HeldOutAdaptations:
        """Return the same adaptations, whose scores are propagated; see `Adaptation`.

        >>> HeldOutAdaptations().propagated().by_picture
        {}
        """
        made = {key: replace(each, propagate=True) for key, each in self.by_picture.items()}
        others = None if self.others is None else replace(self.others, propagate=True)
        return HeldOutAdaptations(made, others)

    def of(self, picture: str) -> Adaptation | None:
        """Return the adaptation for an image; None: the words alone.

        Args:
            picture: key of the image, see `Example.picture_key`.

        >>> HeldOutAdaptations().of("a") is None
        True
        """
        return self.by_picture.get(picture, self.others)


@dataclass(frozen=True, eq=False)
class Fit:
    """The outcome of `adapt`.

    IoUs are of held-out pixels, of the labels that somebody drew most of, on enough images to tell
    something of others. Masks that stand as they were predicted are left out. Elsewhere, where
    nobody drew, the words' own answer counts as right, so the IoU of a label that was hardly drawn
    says nothing.

    Attributes:
        adaptation: scores with corrections; None where those of the text are better.
        text_ious: IoU of the text scores by label, in [0, 1].
        adapted_ious: IoU of the adapted scores by label; without an adaptation, those
            of what was tried first.
        pictures: number of images that somebody drew on.
        refused: name of each drawn label that is not adapted -> why, as a sentence.
        shown: name of each drawn label -> number of images that it was drawn on, near-duplicates
            alike.
        found: name of each drawn label -> share of its drawn pixels that the text scores get right.
        held_out: the adaptations by which the adapted IoUs were measured.
        people: annotators whose work most of their own pictures speak against, and why.
        labels: number of labels in use, with those that have no IoU.
        FEWEST_TOLD: images that a label was drawn on, at least, where its IoU is told.
    """

    FEWEST_TOLD: ClassVar = 3

    adaptation: Adaptation | None
    text_ious: Mapping[str, float] = field(default_factory=dict, repr=False)
    adapted_ious: Mapping[str, float] = field(default_factory=dict, repr=False)
    pictures: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, int] = field(default_factory=dict, repr=False)
    found: Mapping[str, float] = field(default_factory=dict, repr=False)
    held_out: HeldOutAdaptations = field(default_factory=HeldOutAdaptations, repr=False)
    people: tuple[AnnotatorFinding, ...] = field(default=(), repr=False)
    labels: int = field(default=0, repr=False)

    @property
    def text_iou(self) -> float:
        """Mean IoU of the text scores over the labels; 0 without one."""
        return _mean(self.text_ious)

    @property
    def adapted_iou(self) -> float:
        """Mean IoU of the adapted scores over the labels; 0 without one."""
        return _mean(self.adapted_ious)

    @property
    def gain(self) -> float:
        """Gain of the mean IoU over all labels in use; those that have no IoU count as unchanged.

        Labels with an IoU are those with much drawn, and they gain most.
        """
        if not self.text_ious:
            return 0.0
        share = len(self.text_ious) / max(self.labels, len(self.text_ious))
        return share * (self.adapted_iou - self.text_iou)

    def plot(self) -> Figure:
        """Draw the IoU of each label by its words and by what was learned, on held-out images.

        Returns:
            A figure of matplotlib; notebooks show it for a fit by itself.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        labels = list(self.text_ious)
        series = {
            "words": [self.text_ious[label] for label in labels],
            "learned": [self.adapted_ious[label] for label in labels],
        }
        return draw_bars(series, labels, "IoU on held-out pictures")

    def _repr_png_(self) -> bytes | None:
        """Show the plot in a notebook, where matplotlib is installed."""
        return png_of(self.plot)


def _mean(ious: Mapping[str, float]) -> float:
    return sum(ious.values()) / len(ious) if ious else 0.0


def adapt(
    examples: Iterable[Example],
    embed: Callable[[Sequence[str]], torch.Tensor],
    vocabulary: Labels,
    label_loss: float = LABEL_LOSS,
    as_words: Collection[str] = (),
) -> Fit:
    """Fit an adaptation of the text scores to training examples, and judge it on held-out images.

    Near-duplicates count as one image, and one image alone gives no adaptation. Examples with
    numbers that are not finite are left out, and so are those of annotators most of whose masks
    agree better with the words when they are moved back, see `Fit.people`. The order of the
    examples changes nothing.

    Args:
        examples: one for each correction.
        embed: prompts -> (Q, D) unit embeddings, such as `TextEncoder`.
        vocabulary: the labels in use; corrections of other labels are left out.
        label_loss: IoU in [0, 1]; an adaptation is refused where a label loses more than that.
        as_words: names of labels that keep their text scores.

    Raises:
        ValueError: examples of another model.
    """
    # On such small products, threads cost many times what they win, and take the model's cores.
    with one_blas_thread():
        fitting = _Fitting(examples, embed, vocabulary, as_words)
        fit = fitting.fit(label_loss)
        return replace(fit, people=tuple(fitting.people), labels=fitting.labels)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of a regression's weights, given P pixels, for G groups and L that learn."""

    inputs: Float32Array  # (P, W) float32, whitened features and the constant
    text: Float32Array  # (P, G) float32, logits by the words
    target: Float32Array  # (P, G) float32, probability of each group
    counts: Float32Array  # (P,) float32, weights of the pixels
    learning: Indices  # (L,) indices of the labels that learn
    precisions: Float64Array  # (L, 1) of the labels' priors, in images

    def negative_log(self, flat: Float64Array) -> tuple[float, Float64Array]:
        """Return the negative log of the posterior up to a constant, and its gradient.

        Args:
            flat: (L * W,) weights.

        Returns:
            The value, and (L * W,) derivatives by the weights.
        """
        weights = flat.reshape(len(self.learning), -1)
        logits = self.text.copy()
        logits[:, self.learning] += self.inputs @ weights.T.astype(np.float32)
        logarithms = log_softmax(logits, axis=1)

        value = -float(self.counts @ (self.target * logarithms).sum(axis=1))
        value += float((self.precisions * weights * weights).sum()) / 2

        errors = (np.exp(logarithms) - self.target)[:, self.learning] * self.counts[:, None]
        gradient = errors.T @ self.inputs + self.precisions * weights
        return value, gradient.ravel()


class Regression:
    """A multinomial logistic regression around the text logits.

    The features are whitened and reduced to `_DIRECTIONS`, with a mean square of 1, half of them of
    each encoder where there are two; a constant one stands beside them. The prior is a Gaussian
    around weights of 0, at which the logits are the text's. Only the labels that learn have
    weights.

    Args:
        targets: the pixels.
        learning: (L,) indices of the labels that learn.
        width: how many of the features' numbers it is linear in, the first ones; None: all.
    """

    def __init__(self, targets: Targets, learning: Indices, width: int | None = None) -> None:
        self._targets, self._learning = targets, learning
        features, words = targets.features[:, :width], targets.words_width
        self._mean = features.mean(axis=0, dtype=np.float64)
        parts = [part for part in (slice(words), slice(words, width)) if features[:, part].size]
        roots = [_whitening(features[:, part], _DIRECTIONS // len(parts)) for part in parts]
        self._root = block_diag(*roots) / len(parts) ** 0.5
        self._inputs = np.ones((len(features), self._root.shape[1] + 1), np.float32)
        for rows in _chunks(features):
            self._inputs[rows, :-1] = (features[rows] - self._mean) @ self._root

    @property
    def shape(self) -> tuple[int, int]:
        """Labels that learn, and weights of each; the last one is the constant's."""
        return len(self._learning), self._inputs.shape[1]

    def mode(
        self, pixels: BoolArray, precisions: Float64Array, start: Float64Array | None = None
    ) -> Float64Array:
        """Find the mode of the posterior of some pixels.

        Args:
            pixels: (N,) bool.
            precisions: (L,) of the labels' priors, in images.
            start: (L, W) weights to begin at; None begins at the text's.

        Returns:
            (L, W) weights.
        """
        posterior = self.posterior(pixels, precisions)
        first = np.zeros(self.shape) if start is None else start
        found = minimize(
            posterior.negative_log, first.ravel(), method="L-BFGS-B", jac=True, options=_STOP
        )
        weights: Float64Array = found.x.reshape(self.shape)
        return weights

    def posterior(self, pixels: BoolArray, precisions: Float64Array) -> Posterior:
        """Return the posterior of the weights, given some pixels.

        Args:
            pixels: (N,) bool.
            precisions: (L,) of the labels' priors, in images.
        """
        some = pixels & (self._targets.fit_weights > 0)
        return Posterior(
            inputs=self._inputs[some],
            text=self._targets.text[some],
            target=self._targets.target[some],
            counts=self._targets.fit_weights[some],
            learning=self._learning,
            precisions=precisions[:, None],
        )

    def logits(self, weights: Float64Array, pixels: BoolArray) -> Float32Array:
        """Return the (P, G) logits of some pixels."""
        logits = self._targets.text[pixels].copy()
        logits[:, self._learning] += self._inputs[pixels] @ weights.T.astype(np.float32)
        return logits

    def adaptation(self, weights: Float64Array, pictures: int) -> Adaptation:
        """Return weights as terms of the features' cosines.

        Args:
            weights: (L, W).
            pictures: number of corrected images.
        """
        names = [self._targets.names[label] for label in self._learning]
        directions = weights[:, :-1] @ self._root.T
        biases = weights[:, -1] - directions @ self._mean
        order = sorted(range(len(names)), key=lambda row: names[row])
        return Adaptation(
            tuple(names[row] for row in order),
            (directions[order] / TEMPERATURE).astype(np.float32),
            (biases[order] / TEMPERATURE).astype(np.float32),
            pictures,
        )


def _whitening(features: npt.NDArray[np.float16], count: int) -> Float64Array:
    """Return (D, count) directions along which (N, D) features are white, of a mean square of 1."""
    width = features.shape[1]
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for rows in _chunks(features):
        centred = features[rows] - mean
        covariance += centred.T @ centred
    covariance /= len(features)
    mean_variance = covariance.trace() / width

    # Of a wide second encoder, all vectors would take several times the memory of the few kept.
    kept = min(count, width)
    values, vectors = eigh(
        covariance, subset_by_index=(width - kept, width - 1), overwrite_a=True, check_finite=False
    )
    top = np.maximum(values[::-1], 0)
    scale = top + _SHRINKAGE * mean_variance
    square = max(float((top / scale).sum()), 1e-12)
    whitening: Float64Array = vectors[:, ::-1] / np.sqrt(scale * square)
    return whitening


def _chunks(features: npt.NDArray[np.float16]) -> Iterator[slice]:
    """Yield slices of the rows, few enough that float64 copies of them are small."""
    return (slice(at, at + _CHUNK) for at in range(0, len(features), _CHUNK))


class Judge:
    """IoUs of held-out pixels, and of draws of their images.

    Args:
        targets: the pixels.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._area = targets.truth.sum(axis=1)
        images = targets.images
        draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), _DRAWS)
        self._draws = np.vstack([np.ones((1, images)), draws])
        self._true = self._by_image(targets.truth)
        drawn = targets.truth[targets.drawn].sum(axis=0, dtype=np.float64)
        #: (G,) share of each label's truth that somebody drew: the rest is the words' own answer.
        self.share = targets.labels * drawn / np.maximum(self._true.sum(axis=0), 1e-12)

    def ious(self, logits: Float32Array) -> Float64Array:
        """Return the (1 + draws, G) IoUs of all images and of each draw."""
        chosen = np.eye(logits.shape[1], dtype=np.float32)[logits.argmax(axis=1)]
        right = self._draws @ self._by_image(chosen * self._targets.truth)
        taken = self._draws @ self._by_image(chosen * self._area[:, None])
        union = self._draws @ self._true + taken - right
        ious: Float64Array = right / np.maximum(union, 1e-12)
        return ious

    @cached_property
    def words(self) -> Float64Array:
        """(1 + draws, G) IoUs of the words alone."""
        return self.ious(self._targets.text)

    def gains(self, logits: Float32Array) -> Float64Array:
        """Return the (1 + draws, G) differences of IoU from the words'."""
        return self.ious(logits) - self.words

    def means(self, ious: Float64Array) -> Float64Array:
        """Return the means over the labels, weighed by how much of each was drawn."""
        means: Float64Array = (
            ious @ self.share.astype(np.float64) / max(float(self.share.sum()), 1e-12)
        )
        return means

    @cached_property
    def found(self) -> Float64Array:
        """(G,) share of each label's drawn pixels that have it by the words."""
        truth = self._targets.truth * self._targets.drawn[:, None]
        by_words = np.eye(truth.shape[1])[self._targets.text.argmax(axis=1)]
        found: Float64Array = (by_words * truth).sum(axis=0) / np.maximum(truth.sum(axis=0), 1e-12)
        return found

    def _by_image(self, values: Float32Array) -> Float64Array:
        sums = np.zeros((self._targets.images, values.shape[1]))
        np.add.at(sums, self._targets.image, values)
        return sums


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """A choice of features and of the prior, and what that gives on held-out images."""

    regression: Regression  # of all features, or of those alone that words are compared with
    precisions: Float64Array  # (L,), in images
    weights: Sequence[Float64Array]  # (L, W) of each fold, fitted to the others
    logits: Float32Array  # (N, G), of pixels by weights that have not seen them, all of the way
    gains: Float64Array  # (1 + draws, G) of IoU beside the words, after the step
    step: float = 1.0  # share of the way from the words that is gone


class _CrossValidation:
    """Fits of some labels to folds of the images.

    Args:
        targets: the pixels.
        judge: judges held-out pixels.
        learning: (L,) indices of the labels that learn.
    """

    def __init__(self, targets: Targets, judge: Judge, learning: Indices) -> None:
        self._targets, self._judge, self._learning = targets, judge, learning
        widths = sorted({targets.words_width, targets.features.shape[1]}, reverse=True)
        self._regressions = [Regression(targets, learning, width) for width in widths]
        self._folds = targets.image % min(_FOLDS, targets.images)
        self._every = np.ones_like(targets.drawn)

    @cached_property
    def candidates(self) -> list[_HeldOut]:
        """All choices after steps, the one that gains most first.

        No step is longer than the shortest that keeps most of the gain: the words still have a say
        there, which spares labels on other images.
        """
        made = []
        for choice in chain.from_iterable(map(self._choices, self._regressions)):
            stepped = [self._after(choice, step) for step in _STEPS]
            gains = np.array([self._gain(each) for each in stepped])
            made += stepped[: 1 + int(np.argmax(gains >= _KEPT * gains.max()))]
        return sorted(made, key=self._rank, reverse=True)

    def _choices(self, regression: Regression) -> list[_HeldOut]:
        """Hold out by each precision for all labels, and by one for each label.

        The latter is the one under which the label's own IoU gains most in three draws in four: the
        smallest where its words find nothing, the largest where they are right.
        """
        tried: list[_HeldOut] = []
        for precision in _PRECISIONS:
            start = tried[-1].weights if tried else None
            every = np.full(len(self._learning), precision)
            tried.append(self._hold_out(regression, every, start))
        own = np.array([np.quantile(each.gains[1:], UNSURE, axis=0) for each in tried])
        by_label = np.array(_PRECISIONS)[own[:, self._learning].argmax(axis=0)]
        return [*tried, self._hold_out(regression, by_label, tried[-1].weights)]

    def _gain(self, held_out: _HeldOut) -> float:
        return float(self._judge.means(held_out.gains[0]))

    def _rank(self, held_out: _HeldOut) -> float:
        """Return the gain, less of it where labels have chosen priors of their own.

        They chose on the very pictures that judge them, so unseen ones give less.
        """
        own = bool(np.ptp(held_out.precisions))
        return self._gain(held_out) * (_KEPT if own else 1)

    def bound(self, held_out: _HeldOut) -> float:
        """Return the gain of the mean IoU that three draws in four exceed."""
        return float(np.quantile(self._judge.means(held_out.gains[1:]), UNSURE))

    def of_folds(self, held_out: _HeldOut, pictures: int) -> list[Adaptation]:
        return [
            held_out.regression.adaptation(held_out.step * weights, pictures)
            for weights in held_out.weights
        ]

    def of_all(self, held_out: _HeldOut, pictures: int) -> Adaptation:
        start = np.mean(held_out.weights, axis=0)
        weights = held_out.regression.mode(self._every, held_out.precisions, start)
        return held_out.regression.adaptation(held_out.step * weights, pictures)

    def _hold_out(
        self,
        regression: Regression,
        precisions: Float64Array,
        start: Sequence[Float64Array] | None,
    ) -> _HeldOut:
        logits = np.empty_like(self._targets.text)
        weights = []
        for fold in range(int(self._folds.max()) + 1):
            held = self._folds == fold
            first = None if start is None else start[fold]
            weights.append(regression.mode(~held, precisions, first))
            logits[held] = regression.logits(weights[-1], held)
        return _HeldOut(regression, precisions, weights, logits, self._judge.gains(logits))

    def _after(self, held_out: _HeldOut, step: float) -> _HeldOut:
        text = self._targets.text
        logits = text + np.float32(step) * (held_out.logits - text)
        return replace(held_out, gains=self._judge.gains(logits), step=step)


def find_losing(change: Float64Array, bound: float) -> BoolArray:
    """Find labels that lose more than the bound in nine draws in ten: (G,) bool.

    `change` is (1 + draws, G) of IoU, of all images and of each draw.
    """
    losing: BoolArray = np.quantile(change[1:], 1 - _LIKELY, axis=0) < -bound
    return losing


class _Fitting:
    """One fit; see `adapt` for the arguments."""

    def __init__(
        self,
        examples: Iterable[Example],
        embed: Callable[[Sequence[str]], torch.Tensor],
        vocabulary: Labels,
        as_words: Collection[str] = (),
    ) -> None:
        vocabulary = Vocabulary.of(vocabulary)
        embeddings = embed(vocabulary.queries).to("cpu", torch.float32)
        finite = [example for example in examples if example.is_finite]
        for example in finite:
            check_width(example.words_width, embeddings.shape[1])
            check_width(example.width, finite[0].width)
        finite.sort(key=lambda example: (example.picture_key, example.digest))
        self.people = find_moved(finite, embeddings, vocabulary)
        left_out = {each.annotator for each in self.people}
        used = [example for example in finite if example.annotator not in left_out]
        self._targets = Targets.of(used, embeddings, vocabulary)
        self._pictures = len(self._targets.pictures)
        self.labels = len(vocabulary.labels)
        self._refused: dict[str, str] = {}
        self._learning = self._learnable(as_words)
        self._compare_annotators()

    def _learnable(self, as_words: Collection[str]) -> Indices:
        """Return the labels that somebody drew on enough images."""
        targets = self._targets
        enough = np.zeros(len(targets.names), np.bool_)
        for name, shown in self._shown.items():
            if name in as_words:
                self._refused[name] = "It is left as the words have it."
            elif shown < FEWEST_IMAGES:
                self._refused[name] = (
                    f"Drawn on {shown} picture, near-duplicates counted once; {FEWEST_IMAGES} are "
                    "needed."
                )
            else:
                enough[targets.names.index(name)] = True
        return np.flatnonzero(enough)

    def _compare_annotators(self) -> None:
        """Hold out by annotator; refuse labels that somebody draws unlike the others.

        Pictures that are held out by chance have the same annotators as those that are learned
        from, so what one of them does wrong looks right there.
        """
        targets = self._targets
        annotators = np.unique(targets.annotator)
        if len(annotators) < FEWEST_ANNOTATORS or not self._can_learn:
            return
        regression = Regression(targets, self._learning)
        precisions = np.full(len(self._learning), _AMONG_ANNOTATORS)
        number = np.searchsorted(annotators, targets.annotator)
        folds = number % min(_FOLDS, len(annotators))
        logits = np.empty_like(targets.text)
        for fold in range(int(folds.max()) + 1):
            held = folds == fold
            logits[held] = regression.logits(regression.mode(~held, precisions), held)

        found = find_exchanged(targets, logits)
        exchanged = {frozenset(each.labels) for each in found}
        mistaken = find_mistaken(targets, logits)
        found += [each for each in mistaken if frozenset(each.labels) not in exchanged]
        self.people += found
        for each in found:
            self._refused |= dict.fromkeys(each.labels, each.refusal)
        for label in np.flatnonzero(find_disputed(targets, logits, LABEL_LOSS)).tolist():
            self._refused.setdefault(targets.names[label], _DISPUTED)
        names = np.array(targets.names)[self._learning]
        self._learning = self._learning[[name not in self._refused for name in names]]

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self._targets)

    @property
    def _can_learn(self) -> bool:
        return bool(len(self._learning)) and self._targets.images >= FEWEST_IMAGES

    def fit(self, label_loss: float) -> Fit:
        """Fit, and use the first candidate that the gate lets pass."""
        if not self._targets.images:
            return Fit(None, pictures=self._pictures, refused=self._refused)
        if not self._can_learn:
            ious = self._by_label(self._judge.words[0])
            refused = self._why_words_alone("Another picture is needed.")
            return Fit(
                adaptation=None,
                text_ious=ious,
                adapted_ious=ious,
                pictures=self._pictures,
                refused=refused,
                shown=self._shown,
                found=self._found,
            )

        validation = _CrossValidation(self._targets, self._judge, self._learning)
        reasons = []
        for candidate in validation.candidates:
            reasons.append(self._why_refused(validation, candidate, label_loss))
            if not reasons[-1]:
                return self._adapted(validation, candidate)
        tried = self._adapted(validation, validation.candidates[0])
        return replace(tried, adaptation=None, refused=self._why_words_alone(reasons[0]))

    def held_out(self) -> HeldOutAdaptations:
        if not self._can_learn:
            return HeldOutAdaptations()
        validation = _CrossValidation(self._targets, self._judge, self._learning)
        return self._by_picture(validation, validation.candidates[0])

    def _by_picture(self, validation: _CrossValidation, candidate: _HeldOut) -> HeldOutAdaptations:
        made = validation.of_folds(candidate, self._pictures)
        by_picture = {key: made[image % len(made)] for key, image in self._targets.pictures.items()}
        return HeldOutAdaptations(by_picture, validation.of_all(candidate, self._pictures))

    def _why_refused(self, validation: _CrossValidation, candidate: _HeldOut, bound: float) -> str:
        """Return why a candidate is not used, as a sentence; "" where it is.

        Three draws in four have to say that the mean IoU gains, and no label may lose too much, as
        far as somebody drew it.
        """
        if validation.bound(candidate) <= 0:
            return "On held-out pictures it may gain nothing."
        change = candidate.gains * self._judge.share
        losing = np.flatnonzero(find_losing(change, bound))
        names = ", ".join(f"“{self._targets.names[label]}”" for label in losing)
        points = f"{100 * bound:.3g} points of IoU"
        return f"On held-out pictures {names} may lose more than {points}." if names else ""

    def _adapted(self, validation: _CrossValidation, candidate: _HeldOut) -> Fit:
        before = self._judge.words[0]
        held_out = self._by_picture(validation, candidate)
        return Fit(
            adaptation=held_out.others,
            text_ious=self._by_label(before),
            adapted_ious=self._by_label(before + candidate.gains[0]),
            pictures=self._pictures,
            refused=self._refused,
            shown=self._shown,
            found=self._found,
            held_out=held_out,
        )

    def _why_words_alone(self, reason: str) -> dict[str, str]:
        """Return why each drawn label keeps its words where no label learns."""
        names = [self._targets.names[label] for label in self._learning]
        return self._refused | dict.fromkeys(names, reason)

    @property
    def _shown(self) -> dict[str, int]:
        targets = self._targets
        drawn = np.flatnonzero(targets.labels & (targets.shown > 0)).tolist()
        return {targets.names[label]: int(targets.shown[label]) for label in drawn}

    @property
    def _found(self) -> dict[str, float]:
        found = dict(zip(self._targets.names, self._judge.found.tolist(), strict=True))
        return {name: found[name] for name in self._shown}

    def _by_label(self, ious: Float64Array) -> dict[str, float]:
        index = self._targets.names.index
        told = (
            name
            for name, images in self._shown.items()
            if images >= Fit.FEWEST_TOLD and self._judge.share[index(name)] >= _MOSTLY
        )
        return {name: float(ious[index(name)]) for name in told}
