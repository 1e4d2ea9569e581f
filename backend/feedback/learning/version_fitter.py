"""Fits a version to the training examples of a project, and decides whether it goes live.

`clearclip_core.adapt` fits the adaptation and holds out images to choose how much it counts. An
adaptation that is not at least as good there as the words alone is not kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from backend.feedback.learning.example_builder import NOT_FINITE
from backend.feedback.learning.thresholds import (
    ThresholdCounts,
    add_up,
    best_thresholds,
    counts_from_json,
    measure_patches,
)
from backend.feedback.learning.versions import (
    Promotion,
    SetAsideAnnotation,
    TrainingExample,
    Version,
)
from backend.inference.engine import Engine
from backend.settings import Adapt
from clearclip_core import Adaptation, Example, Fit, Label, Vocabulary

log = logging.getLogger(__name__)

#: Examples, a function that embeds prompts, the labels of today, and the digests of examples that
#: are never set aside -> the fit.
FitExamples = Callable[
    [Sequence[Example], Callable[[Sequence[str]], torch.Tensor], Vocabulary, Collection[str]], Fit
]

#: Examples -> the adaptation that is fitted to them.
FitTo = Callable[[Sequence[Example]], Adaptation | None]


class LabelEmbeddings:
    """The labels of today, with the embeddings of their prompts.

    Args:
        embed: prompts -> (N, D).
        vocabulary: the labels, with their contrast words.
        presence: weight of the presence prior of the project's scores.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], torch.Tensor],
        vocabulary: Vocabulary,
        presence: float = 0.0,
    ) -> None:
        self.embed = embed
        self.vocabulary = vocabulary
        self._presence = presence
        self._embeddings = embed(vocabulary.queries).to("cpu", torch.float32)

    @classmethod
    def of(
        cls, engine: Engine, labels: tuple[Label, ...], presence: float = 0.0
    ) -> LabelEmbeddings:
        """Embed labels and their contrast words; waits for the model."""
        engine.embed(labels)
        segmenter = engine.segmenter()
        return cls(segmenter.embed, segmenter.vocabulary(labels, contrast=True), presence)

    @property
    def width(self) -> int:
        """D, the numbers in a feature."""
        return int(self._embeddings.shape[-1])

    @property
    def names(self) -> set[str]:
        """The names of the labels."""
        return {label.name for label in self.vocabulary.labels}

    def measure(
        self, examples: Sequence[Example], adaptation: Adaptation | None
    ) -> dict[str, ThresholdCounts]:
        """Count right and wrong patches of examples by label; None: by the words alone."""

        def measured(example: Example) -> dict[str, ThresholdCounts]:
            embeddings, bias = example.word_terms(self._embeddings)
            if adaptation is not None:
                image_cls = None if example.cls is None else torch.from_numpy(example.cls).float()
                own = adaptation.without_presence() if image_cls is None else adaptation
                embeddings, learned = own.apply(
                    embeddings, self.vocabulary, image_cls, self._embeddings
                )
                bias = bias + learned
            joined = () if adaptation is None else adaptation.joined
            return measure_patches(example, embeddings, bias, self.vocabulary, joined)

        return add_up(map(measured, examples))

    def read(self, data: bytes) -> Example:
        """Read an example, to be scored with the project's presence prior.

        Raises:
            ValueError: damaged bytes, another format, or features of another model.
        """
        return Example.from_bytes(data, self.width).with_presence(self._presence)

    def fit(
        self, examples: Sequence[Example], fit_examples: FitExamples, trusted: Collection[str]
    ) -> Fit:
        """Fit an adaptation to examples; those with the digests `trusted` are never set aside."""
        return fit_examples(examples, self.embed, self.vocabulary, trusted)

    def iou(self, examples: Sequence[Example], adaptation: Adaptation | None) -> float:
        """Return the mean IoU, in [0, 1], of the labels that the examples show; see `ious`."""
        ious = self.ious(examples, adaptation).values()
        return sum(ious) / len(ious) if ious else 0.0

    def ious(self, examples: Sequence[Example], adaptation: Adaptation | None) -> dict[str, float]:
        """Return name of the label -> IoU, of the labels that the examples show.

        What annotators kept as predicted counts as true: without it, only what a prediction had
        wrong would count against it.
        """
        measured = self.measure([replace(each, kept=None) for each in examples], adaptation)
        return {
            name: float(counts.right.sum() / (counts.true_px + counts.wrong.sum()))
            for name, counts in measured.items()
            if counts.true_px
        }


@dataclass(frozen=True, eq=False)
class FittedVersion:
    """A version that was fitted to examples, before it is kept.

    Attributes:
        version: without number and time.
        adaptation: what it adds to scores; None where it is not better than the words alone.
        stored: the examples that it was fitted to.
        examples: the same examples, read, in the same order.
        labels: the labels of today.
    """

    version: Version
    adaptation: Adaptation | None
    stored: Sequence[TrainingExample]
    examples: Sequence[Example]
    labels: LabelEmbeddings

    def promotion(
        self, mode: Adapt, live: Version | None, live_adaptation: Adaptation | None
    ) -> Promotion:
        """Decide what becomes of the version.

        A version that is not better than the words leaves the live one, if that one is at least as
        good as the words on images that were corrected since it was made and not before. A version
        from a file leaves only to a version that is better than it.

        Args:
            mode: what follows corrections; not "off".
            live: the version that is live now; None where none is.
            live_adaptation: the adaptation of that version.
        """
        if mode == "thresholds":
            return "live"
        if live is None or live_adaptation is None:
            return "live" if self.version.better or mode == "all" else "words"
        if self.version.better:
            iou = self.version.adapted_iou or 0
            imported = live.origin == "import"
            stays = imported and self.labels.iou(self.examples, live_adaptation) > iou
            return "stays" if stays else "live"
        unseen = self._unseen(live)
        if unseen and self.labels.iou(unseen, live_adaptation) >= self.labels.iou(unseen, None):
            return "stays"
        return "live" if mode == "all" else "words"

    def split(self, annotations: Collection[int]) -> tuple[list[Example], list[Example]]:
        """Return the examples of some annotations, and those of all others."""
        pairs = list(zip(self.stored, self.examples, strict=True))
        return (
            [example for stored, example in pairs if stored.annotation in annotations],
            [example for stored, example in pairs if stored.annotation not in annotations],
        )

    @property
    def pictures(self) -> set[str]:
        """The keys of the images that it was fitted to."""
        return {example.picture_key for example in self.examples}

    def _unseen(self, live: Version) -> list[Example]:
        """Examples of images that the live version was not fitted to."""
        seen = {
            example.picture_key
            for stored, example in zip(self.stored, self.examples, strict=True)
            if stored.learned <= live.created and live.origin == "step"
        }
        return [example for example in self.examples if example.picture_key not in seen]


def fit_version(
    stored: Sequence[TrainingExample],
    labels: LabelEmbeddings,
    fit_examples: FitExamples,
    trusted: Collection[int] = (),
) -> FittedVersion:
    """Fit a version to the training examples of a project.

    Examples with numbers that are not finite are left out, and the log says which.

    Args:
        stored: the examples as they are kept, at least one.
        labels: the labels of today.
        fit_examples: `clearclip_core.adapt`.
        trusted: annotations whose examples are never set aside.
    """
    stored, examples = _read(stored, labels)
    fit = labels.fit(examples, fit_examples, digests_of(stored, trusted))
    better = fit.adaptation is not None and fit.adapted_iou >= fit.text_iou
    adaptation = fit.adaptation if better else None
    counts = add_up(counts_from_json(each.threshold_counts) for each in stored)
    thresholds = _only(labels.names, best_thresholds(counts))
    adapted_thresholds = {}
    if adaptation is not None:
        adapted_counts = labels.measure(examples, adaptation)
        adapted_thresholds = _only(labels.names, best_thresholds(adapted_counts))
    version = Version(
        annotations=len({each.annotation for each in stored}),
        pictures=fit.pictures,
        digest=_digest(adaptation, thresholds, adapted_thresholds),
        better=adaptation is not None,
        text_iou=fit.text_iou,
        adapted_iou=fit.adapted_iou,
        text_ious=dict(fit.text_ious),
        adapted_ious=dict(fit.adapted_ious),
        thresholds=thresholds,
        adapted_thresholds=adapted_thresholds,
        refused=dict(fit.refused),
        set_aside=_set_aside(fit, stored),
        presence=fit.presence,
        synonyms=fit.synonyms,
    )
    return FittedVersion(version, adaptation, stored, examples, labels)


def _read(
    stored: Sequence[TrainingExample], labels: LabelEmbeddings
) -> tuple[list[TrainingExample], list[Example]]:
    """Read the examples that can be learned from; return them as they are kept, and read."""
    kept, examples = [], []
    for each in stored:
        example = labels.read(each.example)
        if example.is_finite:
            kept.append(each)
            examples.append(example)
        else:
            log.warning("Annotation %d is not learned from: %s", each.annotation, NOT_FINITE)
    return kept, examples


def digests_of(stored: Iterable[TrainingExample], annotations: Collection[int]) -> frozenset[str]:
    """Return the digests of the examples of some annotations."""
    return frozenset(each.digest for each in stored if each.annotation in annotations)


def _set_aside(fit: Fit, stored: Iterable[TrainingExample]) -> tuple[SetAsideAnnotation, ...]:
    """Name the annotations whose examples were set aside, each label once."""
    annotations: dict[str, list[int]] = {}
    for example in stored:
        annotations.setdefault(example.digest, []).append(example.annotation)
    found = {
        (annotation, each.label): SetAsideAnnotation(annotation, each.label, each.reason)
        for each in fit.set_aside
        for annotation in annotations.get(each.example, ())
    }
    return tuple(found[key] for key in sorted(found))


def _digest(
    adaptation: Adaptation | None,
    thresholds: Mapping[str, float],
    adapted_thresholds: Mapping[str, float],
) -> str:
    digest = hashlib.sha256()
    digest.update(adaptation.digest.encode() if adaptation is not None else b"")
    digest.update(json.dumps([thresholds, adapted_thresholds], sort_keys=True).encode())
    return digest.hexdigest()


def _only(names: set[str], values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name in names}
