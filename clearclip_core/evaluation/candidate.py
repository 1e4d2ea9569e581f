"""Candidates for a folder of labelled pictures: a model, a method and prompts that are compared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.scores import DEFAULT_OPTIONS, ScoreOptions, Scores
from clearclip_core.segmenter import Segmenter
from clearclip_core.vocabulary import Label, Vocabulary

#: Share of the image below which the backend drops islands and fills holes, by default.
MIN_ISLAND_SHARE: Final = 0.0005


@dataclass(frozen=True)
class PredictionRule:
    """How masks are made of scores.

    Attributes:
        contrast: the model's contrast words compete with the labels.
        refine: masks follow the edges of the image.
        propagate: scores are drawn together where the image has no edge, before that.
        threshold: pixels with a lower probability get no label; one for all labels or one for each.
            A label whose threshold is 1 is never predicted, as in the backend.
        min_island_share: parts of a mask, and holes in it, that are smaller than this share of the
            image are dropped or filled.
    """

    contrast: bool = True
    refine: bool = True
    threshold: float | tuple[float, ...] = 0.0
    min_island_share: float = MIN_ISLAND_SHARE
    propagate: bool = False

    def thresholds(self, labels: int) -> tuple[float, ...]:
        """Return the threshold of each label.

        Args:
            labels: number of labels.

        >>> PredictionRule(threshold=0.5).thresholds(2)
        (0.5, 0.5)
        """
        if isinstance(self.threshold, tuple):
            return self.threshold
        return (self.threshold,) * labels


#: The backend's defaults, and the paper's protocol.
AS_BACKEND: Final = PredictionRule()
AS_PAPER: Final = PredictionRule(contrast=False, refine=False, min_island_share=0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model, a method and prompts.

    Attributes:
        segmenter: of the model and the method. Candidates that share it share its features.
        labels: the labels, with the prompts.
        model: name of the model, in tables.
        prompts: name of the prompts, in tables.
        rule: how masks are made.
        adaptation: scores adapted to corrected images; None: the scores of the words alone.
        options: what counts in scores beside the words.
    """

    segmenter: Segmenter
    labels: tuple[Label, ...]
    model: str
    prompts: str
    rule: PredictionRule = AS_BACKEND
    adaptation: Adaptation | None = None
    options: ScoreOptions = DEFAULT_OPTIONS

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.segmenter.method)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self.segmenter.vocabulary(self.labels, self.rule.contrast)

    @property
    def needs_cls(self) -> bool:
        """Whether features need CLS features."""
        learned = self.adaptation is not None and self.adaptation.needs_cls
        return self.options.needs_cls or learned

    def embed(self) -> None:
        """Embed the words, so that no image's time includes it."""
        self.segmenter.embed(self._vocabulary.queries)

    def masks(self, features: Any, rgb: RGBArray) -> dict[int, BoolMask]:
        """Predict the masks of an image from its features: index of the label -> (H, W) bool."""
        scores = self.segmenter.score(
            features, self._vocabulary, adaptation=self.adaptation, options=self.options
        )
        return draw_masks(self.segmenter, scores, rgb, self.rule)


def draw_masks(
    segmenter: Segmenter, scores: Scores, rgb: RGBArray, rule: PredictionRule
) -> dict[int, BoolMask]:
    """Draw the masks of an image by a rule.

    Args:
        segmenter: decides the labels.
        scores: of the image.
        rgb: (H, W, 3) uint8.
        rule: how masks are made; its `contrast` is that of the scores.

    Returns:
        Index of the label -> (H, W) bool, for labels with a pixel.
    """
    labels = scores.vocabulary.labels
    thresholds = rule.thresholds(len(labels))
    made = segmenter.decide(scores, thresholds, rgb, rule.refine, rule.propagate)
    min_px = round(rule.min_island_share * made.label_map.size)
    index = {label.name: number for number, label in enumerate(labels)}
    masks = {index[name]: mask for name, mask in made.masks(min_px, min_px).items()}
    return {number: mask for number, mask in masks.items() if thresholds[number] < 1}


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a candidate predicts for an image.

    Attributes:
        masks: index of the label -> (H, W) bool, for labels with a pixel.
        seconds: time from the image in memory to the masks, the encoder's share included.
    """

    masks: dict[int, BoolMask]
    seconds: float

    def label_map(self, size_hw: tuple[int, int]) -> npt.NDArray[np.int16]:
        """Return the (H, W) label indices, -1 for no label."""
        made = np.full(size_hw, -1, np.int16)
        for index, mask in self.masks.items():
            made[mask] = index
        return made


def predict_all(candidates: Sequence[Candidate], rgb: RGBArray) -> Iterator[Predicted]:
    """Predict an image with each candidate; it is encoded once for those that share a segmenter.

    Args:
        candidates: the candidates.
        rgb: (H, W, 3) uint8.

    Yields:
        The prediction of each candidate, in order.
    """
    encoded: dict[int, tuple[Any, float]] = {}
    for candidate in candidates:
        key = id(candidate.segmenter)
        if key not in encoded:
            began = time.perf_counter()
            sharing = (each for each in candidates if each.segmenter is candidate.segmenter)
            with_cls = any(each.needs_cls for each in sharing)
            features = candidate.segmenter.encode(rgb, with_cls=with_cls)
            encoded[key] = features, time.perf_counter() - began
        features, encoding_s = encoded[key]
        began = time.perf_counter()
        masks = candidate.masks(features, rgb)
        yield Predicted(masks, encoding_s + time.perf_counter() - began)
