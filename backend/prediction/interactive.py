"""Segment what an annotator's clicks, boxes or words ask for: one mask for each label.

A prompt is parsed first (`backend.prediction.prompt_parser`). Its masks are then made from the
features and scores of its image.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from backend.label_studio.drawing_steps import drawing_steps
from backend.label_studio.region_reader import Area, draw_area, rectangle_corners, rectangle_mask
from backend.label_studio.region_writer import HasConfidence
from backend.prediction.prompt_parser import Boxes, Clicks, Phrase, Phrases, plain_words
from clearclip_core import (
    BoolMask,
    DenseFeatures,
    Label,
    Point,
    PromptedMask,
    RGBArray,
    RunMask,
    Scores,
    Segmentation,
    segment_box,
    segment_points,
)

log = logging.getLogger(__name__)

#: Most clicks that count: the time for a mask grows with each.
_MAX_CLICKS = 50

#: Most work, in steps of `drawing_steps`, for the regions that an answer may not cover: seconds.
#: A thousand outlines on 12 megapixels, each over a tenth of them, take a quarter of it.
_MAX_COVERED_STEPS = 5_000_000_000


@dataclass(frozen=True, eq=False)
class LabelMask:
    """The mask of a label.

    Attributes:
        label: name of the label.
        mask: its pixels.
        source: has the probability of each pixel.
        threshold: it is drawn by the controls whose label has this threshold; by all where None.
        mean_confidence: mean of the confidence in the mask, where it is known.
    """

    label: str
    mask: RunMask
    source: HasConfidence
    threshold: float | None = None
    mean_confidence: float | None = None


def competing_labels(phrases: Phrases, labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return the labels that compete where phrases are scored: the phrases, then other labels.

    A label does not compete if a phrase is for it, or if a phrase names it ("red car", where there
    is a label "car"): the two mean too much the same.
    """
    own = {phrase.label.name for phrase in phrases.phrases}
    texts = [f" {plain_words(prompt)} " for phrase in phrases.phrases for prompt in phrase.prompts]
    others = (
        label
        for label in labels
        if label.name not in own
        and not any(
            f" {plain_words(prompt)} " in text for prompt in label.prompts for text in texts
        )
    )
    return (*map(_phrase_label, range(len(phrases.phrases)), phrases.phrases), *others)


def segment_clicks(
    clicks: Clicks, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[LabelMask]:
    """Yield the mask of the region that clicks point at; none without a positive one on the image.

    Of more than 50 clicks, the first positive one and the newest count: the first one chooses the
    object.
    """
    height, width = image.shape[:2]
    points = [
        Point(point.x_percent / 100 * width, point.y_percent / 100 * height, point.positive)
        for point in clicks.points
        if 0 <= point.x_percent <= 100 and 0 <= point.y_percent <= 100
    ]
    first = [point for point in points[:-_MAX_CLICKS] if point.positive][:1]
    points = [*first, *points[-_MAX_CLICKS:]]
    if any(point.positive for point in points):
        made = segment_points(features, scores, _index(clicks.label, scores), points, image)
        yield LabelMask(clicks.label.name, RunMask.of(made.mask), made)


def segment_boxes(
    boxes: Boxes, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[LabelMask]:
    """Yield the mask of the object in boxes; none where they have no pixel of the image.

    A rotated box is segmented as the upright one around it; pixels outside of it are cut off.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    confidence = np.zeros((height, width), np.float16)
    for rectangle in boxes.rectangles:
        inside = rectangle_mask(rectangle, (height, width))
        corners = rectangle_corners(rectangle, (height, width)).clip(0, (width, height))
        left, top = np.floor(corners.min(axis=0)).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).tolist()
        if inside.any() and left < right and top < bottom:
            index = _index(boxes.label, scores)
            made = segment_box(features, scores, index, (left, top, right, bottom), image)
            found = made.mask & inside
            mask |= found
            confidence[found] = np.maximum(confidence[found], made.confidence[found])
    if mask.any():
        yield LabelMask(boxes.label.name, RunMask.of(mask), PromptedMask(mask, confidence))


def segment_phrases(
    phrases: Phrases, segmentation: Segmentation, min_px: int
) -> Iterator[LabelMask]:
    """Yield the masks of phrases, joined where they are for one label.

    Args:
        phrases: the phrases.
        segmentation: of the image, into `competing_labels`.
        min_px: islands and holes of fewer pixels are dropped and filled.
    """
    own = [phrase.label.name for phrase in phrases.phrases]
    names = list(dict.fromkeys(own))
    numbers = np.full(len(segmentation.labels) + 1, -1)
    numbers[: len(own)] = [names.index(name) for name in own]
    masks = segmentation.label_masks(min_px, min_px, numbers)
    for number, name in enumerate(names):
        mean = masks.mean_confidence(number)
        yield LabelMask(name, masks.runs(number), segmentation, mean_confidence=mean)


def covered(areas: Iterable[Area], controls: Collection[str], size_hw: tuple[int, int]) -> BoolMask:
    """Return the mask that regions of some controls cover.

    A region that cannot be read, or whose image had another size, covers nothing. So do those that
    are left when the first ones have taken all the work that a click may take.

    Args:
        areas: the regions of one image.
        controls: names of the controls; regions of others are not decoded.
        size_hw: height and width of the image in px.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(size_hw, np.bool_)
    steps = 0
    for area in areas:
        if area.control in controls and area.size_hw == size_hw:
            try:
                steps += drawing_steps(area)
                if steps > _MAX_COVERED_STEPS:
                    log.warning("Of the regions that are drawn already, some are not respected.")
                    break
                draw_area(area, mask)
            except ValueError as error:
                log.warning("A region that is drawn already is not respected: %s", error)
    return mask


def _index(label: Label, scores: Scores) -> int:
    return [own.name for own in scores.vocabulary.labels].index(label.name)


def _phrase_label(index: int, phrase: Phrase) -> Label:
    """Return a phrase as a label: by its label's name if it has the label's own prompts.

    Adaptations go by name: so a label that has learned keeps what it has learned, and free words
    follow nothing.
    """
    own = phrase.prompts == phrase.label.prompts
    return Label(phrase.label.name if own else f"words {index}", phrase.prompts)
