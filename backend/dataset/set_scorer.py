"""Score a model version on exactly the label maps that a data set has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from backend.dataset.dataset_report import SetScore
from backend.learning.predicted_masks import MaskPredictor
from backend.learning.versions import VersionStore
from clearclip_core import RGBArray
from clearclip_core.evaluation.comparison import mask_overlaps
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth


class SetScorer:
    """Predicts pictures with a project's live version, and sums up how label maps are met."""

    def __init__(self, predictor: MaskPredictor, versions: VersionStore) -> None:
        self._predictor = predictor
        self._active = versions.active(predictor.project, predictor.config.adapt)
        self._sums: defaultdict[str, MaskOverlap] = defaultdict(MaskOverlap)

    def add(self, rgb: RGBArray, tag: str, label_map: Truth, names: Sequence[str]) -> None:
        """Predict an image (H, W, 3) uint8 of a tag; waits for the model.

        Args:
            label_map: (H, W) uint8, as it is written: 255 for pixels that do not count.
            names: of its values.
        """
        pairs = zip(
            self._predictor.config.labels_of(tag), self._predictor.thresholds(tag), strict=True
        )
        # What is never predicted is not missed.
        index = {label.name: at for at, (label, least) in enumerate(pairs) if least < 1}
        if not index:
            return
        table = np.full(IGNORE + 1, NOTHING, np.uint8)
        table[IGNORE] = IGNORE
        table[: len(names)] = [index.get(name, NOTHING) for name in names]
        adaptation = self._active.adaptation if self._active else None
        masks = self._predictor.predict(tag, rgb, adaptation=adaptation)
        overlaps = mask_overlaps(masks, table.take(label_map), max(index.values()) + 1)
        for name, at in index.items():
            self._sums[name] += overlaps[at]

    def score(self) -> SetScore:
        """Return the score on all images so far."""
        ious = {name: each.iou for name, each in self._sums.items()}
        known = {name: round(iou, 4) for name, iou in ious.items() if iou is not None}
        mean, live = round(fmean(known.values()), 4) if known else None, self._active
        return SetScore(mean, known, *((live.number, live.annotations) if live else ()))
