"""The masks that a project's predictions have, to be compared with what annotations say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.label_config import LabelConfig, least_thresholds, prediction_rule
from backend.settings import Settings
from clearclip_core import Adaptation, BoolMask, Label, PreparedImage, RGBArray
from clearclip_core.evaluation.comparison import PredictionRule, draw_masks


@dataclass(frozen=True, eq=False)
class MaskPredictor:
    """Predicts images as predictions of a project do."""

    engine: Engine
    settings: Settings
    config: LabelConfig
    project: int

    def thresholds(self, tag: str) -> list[float]:
        """Return the probability from which on each label of a tag's images is predicted."""
        controls = [each for each in self.config.controls_of(tag) if each.is_predicted]
        return least_thresholds(controls, self.config.labels_of(tag))

    def rule(self, tag: str) -> PredictionRule:
        """Return how scores of a tag's images become masks."""
        return prediction_rule(self.settings, self.thresholds(tag))

    def predict(
        self,
        tag: str,
        rgb: RGBArray,
        *,
        prepared: PreparedImage | None = None,  # where it is prepared already
        adaptation: Adaptation | None = None,
        labels: Sequence[Label] = (),  # of the tag with other words; by default with their own
    ) -> dict[int, BoolMask]:
        """Predict an image (H, W, 3) uint8 of a tag; waits for the model.

        Return index of a label in `LabelConfig.labels_of` the tag -> (H, W) bool, if not empty.
        """
        segmenter = self.engine.segmenter()
        image = prepared or segmenter.prepare(rgb)
        labels = tuple(labels or self.config.labels_of(tag))
        encoded = self.engine.encode(image, labels, Priority.BATCH, self.project, adaptation)
        return draw_masks(segmenter, encoded.scores, rgb, self.rule(tag))

    def predict_map(
        self,
        tag: str,
        rgb: RGBArray,
        *,
        prepared: PreparedImage | None = None,
        adaptation: Adaptation | None = None,
    ) -> npt.NDArray[np.int16]:
        """Predict an image as `predict` does.

        Returns:
            (H, W) int16, indices in `LabelConfig.labels_of` the tag, -1 for no label.
        """
        masks = self.predict(tag, rgb, prepared=prepared, adaptation=adaptation)
        return _label_map(masks, rgb)

    def predict_propagated(
        self, tag: str, image: PreparedImage, rgb: RGBArray, adaptation: Adaptation
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Predict an image with its scores as they are, and propagated; encode it once.

        Args:
            tag: name of the image's tag.
            image: the image, prepared.
            rgb: (H, W, 3) uint8, the image itself.
            adaptation: what the scores follow.

        Returns:
            Two label maps, see `predict_map`.
        """
        labels = self.config.labels_of(tag)
        encoded = self.engine.encode(image, labels, Priority.BATCH, self.project, adaptation)
        segmenter, rule = self.engine.segmenter(), self.rule(tag)
        plain = draw_masks(segmenter, encoded.scores, rgb, rule)
        propagated = draw_masks(segmenter, encoded.scores, rgb, replace(rule, propagate=True))
        return _label_map(plain, rgb), _label_map(propagated, rgb)


def _label_map(masks: Mapping[int, BoolMask], rgb: RGBArray) -> npt.NDArray[np.int16]:
    """Return (H, W) int16 indices of the labels of masks, -1 for none."""
    label_map = np.full(rgb.shape[:2], -1, np.int16)
    for index, mask in masks.items():
        label_map[mask] = index
    return label_map
