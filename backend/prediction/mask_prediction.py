"""Predict the masks of an image: of its labels, or of an annotator's prompt."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from backend.inference.engine import Engine
from backend.prediction.images import PredictionSpec, TaskImage
from backend.prediction.interactive import (
    LabelMask,
    competing_labels,
    segment_boxes,
    segment_clicks,
    segment_phrases,
)
from backend.prediction.prompt_parser import Boxes, Clicks, Phrases, PromptRequest
from backend.settings import Settings
from backend.telemetry.tracing import stage
from clearclip_core import (
    Label,
    LabelMasks,
    Scores,
    Segmentation,
)


class MaskPredictor:
    """Asks the engine for scores and makes masks of them, one at a time.

    Args:
        engine: the owner of the model.
        settings: whether scores are propagated and masks refined, and the size of islands that are
            dropped.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def score(
        self, image: TaskImage, spec: PredictionSpec, labels: tuple[Label, ...] | None = None
    ) -> Scores:
        """Return the scores of labels that compete on an image; by default its own labels.

        Raises:
            ModelUnavailable: the model has failed to load, or the engine has stopped.
        """
        return self._engine.score(
            image.prepared,
            labels or image.labels,
            spec.priority,
            spec.project,
            spec.adaptation,
            spec.options,
        )

    def predict_labels(
        self, image: TaskImage, scores: Scores, names: Collection[str] | None = None
    ) -> Iterator[LabelMask]:
        """Yield the masks of labels, where they win against all others.

        A label has one mask for each threshold that a control has for it.

        Args:
            image: the image.
            scores: of the image's own labels.
            names: names of the labels; None for all.
        """
        segmentation = self._decide(scores, image)
        wanted = dict.fromkeys(
            (label.name, label.threshold)
            for control in image.controls
            for label in control.labels
            if (names is None or label.name in names) and not label.is_never_predicted
        )
        cleaned = self._clean_masks(segmentation, wanted)
        for name, threshold in wanted:
            masks, label = cleaned[name, threshold], segmentation.labels.index(name)
            mean = masks.mean_confidence(label)
            yield LabelMask(name, masks.runs(label), segmentation, threshold, mean)

    def predict_prompt(
        self, image: TaskImage, prompt: PromptRequest, spec: PredictionSpec
    ) -> Iterator[LabelMask]:
        """Yield the masks that answer an annotator's prompt."""
        if isinstance(prompt.query, Phrases):
            return self._predict_phrases(image, prompt.query, spec)
        return self._predict_region(image, prompt.query, spec)

    def _predict_phrases(
        self, image: TaskImage, phrases: Phrases, spec: PredictionSpec
    ) -> Iterator[LabelMask]:
        if phrases.whole:
            names = {label.name for label in phrases.whole}
            yield from self.predict_labels(image, self.score(image, spec), names)
        if phrases.phrases:
            scores = self.score(image, spec, competing_labels(phrases, image.labels))
            segmentation = self._decide(scores, image)
            yield from segment_phrases(phrases, segmentation, self._min_px(segmentation))

    def _predict_region(
        self, image: TaskImage, query: Clicks | Boxes, spec: PredictionSpec
    ) -> Iterator[LabelMask]:
        own = image.labels
        competing = own if query.label in own else (*own, query.label)
        encoded = self._engine.encode(
            image.prepared,
            competing,
            spec.priority,
            spec.project,
            spec.adaptation,
            spec.options,
        )
        if isinstance(query, Clicks):
            yield from segment_clicks(query, encoded.features, encoded.scores, image.rgb)
        else:
            yield from segment_boxes(query, encoded.features, encoded.scores, image.rgb)

    @stage("decide")
    def _decide(self, scores: Scores, image: TaskImage) -> Segmentation:
        refine, propagate = self._settings.refine, self._settings.propagate
        return self._engine.segmenter().decide(
            scores, image=image.rgb, refine=refine, propagate=propagate
        )

    def _clean_masks(
        self, segmentation: Segmentation, wanted: Iterable[tuple[str, float]]
    ) -> dict[tuple[str, float], LabelMasks]:
        """Return the masks of pairs of a label and a threshold, cleaned together where they can be.

        Labels are disjoint, so each may have a threshold of its own in one label map. A second
        threshold of a label needs another.
        """
        together: list[dict[str, float]] = []
        for name, threshold in wanted:
            free = next((each for each in together if name not in each), None)
            if free is None:
                together.append(free := {})
            free[name] = threshold
        min_px = self._min_px(segmentation)
        cleaned: dict[tuple[str, float], LabelMasks] = {}
        for thresholds in together:
            masks = segmentation.above(thresholds).label_masks(min_px, min_px)
            cleaned |= dict.fromkeys(thresholds.items(), masks)
        return cleaned

    def _min_px(self, segmentation: Segmentation) -> int:
        height, width = segmentation.size_hw
        return min_island_px(self._settings, height * width)


def min_island_px(settings: Settings, image_px: int) -> int:
    """Return the size in px below which an island is dropped, in masks of so many pixels."""
    return round(settings.min_island_share * image_px)
