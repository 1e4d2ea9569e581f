"""The prediction of one image, and the score by which predictions are sorted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backend.label_studio.label_config import Control, LabelConfig
from backend.label_studio.region_writer import Region
from backend.settings import ScoreKind, Settings
from clearclip_core import Label, Scores, Uncertainty
from clearclip_core.evaluation.comparison import PredictionRule


@dataclass(frozen=True)
class ImagePrediction:
    """The regions of one image.

    Attributes:
        regions: in the order of the controls and their labels.
        score: the score for sorting, in [0, 1]: the mean probability over the pixels of all
            masks, unless the team wants one of `clearclip_core.Uncertainty`.
        pixels: the number of pixels that the score is the mean of.
    """

    regions: list[Region]
    score: float
    pixels: int

    def sorted_by(
        self, kind: ScoreKind, scores: Scores, thresholds: Sequence[float]
    ) -> ImagePrediction:
        """Return the prediction with the score of a kind, over all pixels of the image.

        Args:
            kind: ``"confidence"`` changes nothing.
            scores: of the image.
            thresholds: the probability from which on each label is drawn, in [0, 1].
        """
        if kind == "confidence":
            return self
        uncertainty = Uncertainty.of(scores, thresholds)
        score = uncertainty.uncertainty if kind == "uncertainty" else uncertainty.effort
        height, width = scores.plan.image_hw
        return replace(self, score=score, pixels=height * width)


def score_kind(settings: Settings, config: LabelConfig) -> ScoreKind:
    """Return the kind of score that sorts predictions: the config's, else the settings'."""
    return config.score or settings.score


def least_thresholds(controls: Iterable[Control], labels: Iterable[Label]) -> list[float]:
    """Return the probability from which on any of the controls draws each label; 1 where none does.

    >>> from backend.label_studio.label_config_parser import parse_label_config
    >>> config = parse_label_config('''<View><Image name="img" value="$image"/>
    ...   <BrushLabels name="b" toName="img" model_score_threshold="0.4"><Label value="sky"/>
    ...     <Label value="car"/></BrushLabels>
    ...   <PolygonLabels name="p" toName="img"><Label value="sky"/></PolygonLabels></View>''')
    >>> least_thresholds(config.controls, config.labels)
    [0.0, 0.4]
    """
    own = [label for control in controls for label in control.labels]
    return [
        min((each.threshold for each in own if each.name == label.name), default=1.0)
        for label in labels
    ]


def prediction_rule(settings: Settings, thresholds: Sequence[float]) -> PredictionRule:
    """Return the rule by which the backend draws masks.

    Args:
        settings: how masks are made.
        thresholds: the probability from which on each label is drawn, in [0, 1].
    """
    return PredictionRule(
        True,
        settings.refine,
        tuple(thresholds),
        min_island_share=settings.min_island_share,
        propagate=settings.propagate,
    )


def mean_score(predictions: list[ImagePrediction]) -> float:
    """Return the mean of the images' scores by their pixels, in [0, 1]; 0 without any pixel.

    >>> mean_score([ImagePrediction([], 0.5, 1), ImagePrediction([], 0.9, 3)])
    0.8
    """
    pixels = sum(each.pixels for each in predictions)
    total = sum(each.score * each.pixels for each in predictions)
    return round(total / pixels, 6) if pixels else 0.0
