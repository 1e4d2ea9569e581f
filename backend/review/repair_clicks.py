"""Answer clicks of the review page with pieces, by the prompts that the editor's tools ask with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from backend.annotations.annotated_image import AnnotatedImage, find_images
from backend.errors import BadRequest
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.prompts import Clicks, Keypoint, PromptRequest
from backend.label_studio.records import PredictionRegions
from backend.label_studio.requests import Task
from backend.prediction.predictor import Predictor
from backend.review.queue import as_version
from backend.review.repair import MOST_STEPS, Piece, Step, piece_at, repair_regions
from clearclip_core import BoolMask

_Share = Annotated[float, Meta(ge=0, le=1)]


class RepairClick(Struct, frozen=True, forbid_unknown_fields=True):
    """A click on the large picture."""

    x: _Share  # of the picture's width, from the left
    y: _Share  # of its height, from the top
    label: Annotated[str, Meta(max_length=1000)] = ""  # that it adds; empty: it takes a piece away


@dataclass(frozen=True, eq=False)
class Repairer:
    """Finds what clicks on a prediction add and take away."""

    predictor: Predictor
    config: LabelConfig
    project: int
    task: Task
    prediction: PredictionRegions

    def images(self, steps: Sequence[Step]) -> list[AnnotatedImage]:
        """Return the task's images with the regions that a repair leaves."""
        _, provenance = as_version(self.prediction)
        regions = repair_regions(self.prediction.regions, steps, self.config)
        return find_images(self.task, [(regions, provenance)], self.config)

    def step(self, before: Sequence[Step], click: RepairClick) -> Step:
        """Return the step that a click asks for, after others.

        Raises:
            BadRequest: there are too many steps, or nothing is at the click.
            TaskError: the picture cannot be read.
        """
        if len(before) >= MOST_STEPS:
            raise BadRequest(f"{MOST_STEPS} changes are the most: mark it as needing work.")
        images = self.images(before)
        if len(images) != 1:
            raise BadRequest("The task has several pictures: mark it as needing work.")
        image = images[0]
        if not click.label:
            return self._taken(image, click)

        mask = self._found(image, click, click.label)
        return Step(click.label, Piece.of(mask, image.tag.name, image.item_index, adds=True))

    def _taken(self, image: AnnotatedImage, click: RepairClick) -> Step:
        if image.size_hw is None:
            raise BadRequest("No mask is on the picture any more.")
        at_px = _pixel(click, image.size_hw)
        label_map = image.label_map()
        number = int(label_map.regions[at_px])
        if not 0 < number <= len(label_map.labels):
            raise BadRequest("No mask is where you have clicked.")

        label = label_map.labels[number - 1]
        mask = piece_at(image.versions[0], label, self._found(image, click, label), at_px)
        return Step(label, Piece.of(mask, image.tag.name, image.item_index, adds=False))

    def _found(self, image: AnnotatedImage, click: RepairClick, name: str) -> BoolMask:
        """Return (H, W) bool what a click with a label finds."""
        there = self.config.labels_of(image.tag.name)
        label = next((each for each in there if each.name == name), None)
        if label is None:
            raise BadRequest(f"The labeling config has no label “{name}” for the picture.")
        point = Keypoint(100 * click.x, 100 * click.y)
        prompt = PromptRequest(image.tag, image.item_index or 0, Clicks(label, (point,)))

        masks = self.predictor.prompted_masks(self.task, self.config, self.project, prompt)
        if not masks:
            raise BadRequest("Nothing was found where you have clicked.")
        return masks[0].mask.to_mask()


def _pixel(click: RepairClick, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the row and the column of a click."""
    height, width = size_hw
    return min(int(click.y * height), height - 1), min(int(click.x * width), width - 1)
