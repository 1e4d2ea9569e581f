"""Draw masks as regions of the controls that want them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from backend.label_studio.region_reader import drawn_areas
from backend.label_studio.region_writer import Region, draw_regions
from backend.label_studio.requests import Task
from backend.prediction.images import ImagePrediction, PredictionSpec, TaskImage
from backend.prediction.interactive import LabelMask, covered
from backend.prediction.mask_prediction import min_island_px
from backend.prediction.prompt_parser import PromptRequest
from backend.settings import Settings
from backend.telemetry.tracing import stage
from clearclip_core import BoolMask, RunMask, drop_islands

log = logging.getLogger(__name__)


class MaskDrawer:
    """Draws the masks of an image as regions.

    Args:
        settings: the size of islands that are dropped.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @stage("draw")
    def draw(
        self, masks: Iterable[LabelMask], image: TaskImage, spec: PredictionSpec
    ) -> ImagePrediction:
        """Draw masks, each in the form of all controls that want it.

        The regions of each answer to a prompt have ids of their own: accepted, they replace none
        that is there.
        """
        # Only answers to prompts stay clear of regions that are drawn already.
        taken = None if spec.prompt is None else _taken(image, spec.prompt)
        owner = str(image.task.id) if spec.prompt is None else secrets.token_hex(8)
        regions: list[tuple[int, Region]] = []
        union = RunMask.union([], image.size_hw)
        total = 0.0
        for mask in masks:
            regions += self._draw_mask(mask, taken, image, spec, owner)
            total += _added_confidence(mask, union)
            union = RunMask.union([union, mask.mask], image.size_hw)
        pixels = union.area
        ordered = [region for _, region in sorted(regions, key=lambda pair: pair[0])]
        return ImagePrediction(ordered, total / pixels if pixels else 0.0, pixels)

    def _draw_mask(
        self,
        mask: LabelMask,
        taken: BoolMask | None,
        image: TaskImage,
        spec: PredictionSpec,
        owner: str,
    ) -> Iterator[tuple[int, Region]]:
        """Yield a mask's regions, each with the place of its control in the label config."""
        config = spec.config
        order = [control.name for control in (*config.controls, *config.boxes)]
        for control, label in config.controls_for(image.tag, mask.label):
            if not spec.draws(control) or mask.threshold not in (None, label.threshold):
                continue
            drawn, mean = mask.mask, mask.mean_confidence
            if taken is not None and not control.overlap:
                drawn, mean = self._free(mask.mask, taken, image.task), None
            for region in draw_regions(
                drawn,
                mask.source,
                control,
                label if mask.threshold is not None else replace(label, threshold=0.0),
                image.tag,
                mean_confidence=mean,
                item_index=image.item_index,
                owner=owner,
            ):
                yield order.index(control.name), region

    def _free(self, runs: RunMask, taken: BoolMask, task: Task) -> RunMask:
        """Return the part of a mask that is not taken, without slivers along the taken part.

        An annotation that covers most of the mask is taken for another annotator's and ignored.
        """
        mask = runs.to_mask()
        size = runs.area
        share = np.count_nonzero(mask & taken) / max(1, size)
        if share == 0 or (share > 0.5 and not task.is_draft):
            return runs
        # What an annotator points at may be smaller than what counts as an island elsewhere.
        min_px = min(min_island_px(self._settings, mask.size), size // 4)
        free = drop_islands(mask & ~taken, min_px)
        if not free.any():
            log.info("Nothing is left of a mask: regions of task %s cover it already.", task.id)
        return RunMask.of(free)


def _added_confidence(mask: LabelMask, union: RunMask) -> float:
    """Sum the confidence of a mask's pixels that are in no mask before."""
    mean = mask.mean_confidence
    mean = mask.mask.mean(mask.source.confidence) if mean is None else mean
    total, before = mean * mask.mask.area, mask.mask.common(union)
    return total - before.mean(mask.source.confidence) * before.area if before.area else total


def _taken(image: TaskImage, prompt: PromptRequest) -> BoolMask | None:
    """Return the mask of what may not be covered; None where no control asks for that.

    Returns:
        (H, W) bool: what the regions of controls without overlap cover on the image.
    """
    exclusive = {control.name for control in image.controls if not control.overlap}
    if not exclusive:
        return None
    drawn = (
        area
        for area in drawn_areas(image.task)
        if area.image == image.tag
        and (area.item_index or 0) == (image.item_index or 0)
        and area.id not in prompt.region_ids
    )
    return covered(drawn, exclusive, image.size_hw)
