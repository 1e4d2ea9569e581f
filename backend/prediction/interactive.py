"""Clicks, boxes and words -> what they mean -> one mask for a label.

A context is understood first (`parse_prompt`), with nothing but the label config: for which label,
on which picture. Then it is drawn from the features and scores of that picture: `segment_clicks`,
`segment_boxes`, `segment_phrases`.

Words name their label like this; the first rule that fits counts, phrase by phrase (they are
separated by commas):

1. ``all`` is the whole picture, for every label; ``car all`` and ``all car`` for that one.
2. ``red car -> Car`` says so.
3. A label's own name, alias or prompt in the text: the longest, of equal ones the first.
4. The only label there is.
5. The ``prompt_label`` of the text area.
6. The label whose text is nearest; its name goes to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.label_studio.region_reader import Area, area_mask, rectangle_corners, rectangle_mask
from backend.prediction.prompt_parser import Boxes, Clicks, Phrase, Phrases, plain_words
from clearclip_core import (
    BoolMask,
    DenseFeatures,
    Label,
    Point,
    RGBArray,
    Scores,
    Segmentation,
    segment_box,
    segment_points,
)

log = logging.getLogger(__name__)


#: So many clicks count, for each costs a walk over the picture.
_MOST_CLICKS = 50


@dataclass(frozen=True, eq=False)
class LabelMask:
    """One label's mask.

    Attributes:
        label: its name.
        mask: (H, W) bool.
        confidence: (H, W) float16 in [0, 1].
        threshold: which controls want it: those whose label has this threshold; None for all.
    """

    label: str
    mask: BoolMask
    confidence: npt.NDArray[np.float16]
    threshold: float | None = None


def competing_labels(spec: Phrases, labels: Iterable[Label]) -> tuple[Label, ...]:
    """What competes where words are scored: the phrases first, then the project's other labels.

    A label that one of the phrases is for, or that one names ("red car", where there is a label
    "car"), means too much the same to be a rival.
    """
    own = {phrase.label.name for phrase in spec.phrases}
    said = [f" {plain_words(prompt)} " for phrase in spec.phrases for prompt in phrase.prompts]
    phrases = (Label(_competes(i, phrase), phrase.prompts) for i, phrase in enumerate(spec.phrases))
    others = (
        label
        for label in labels
        if label.name not in own
        and not any(f" {plain_words(prompt)} " in text for prompt in label.prompts for text in said)
    )
    return (*phrases, *others)


def _competes(index: int, phrase: Phrase) -> str:
    """What a phrase is called among its rivals: as its label, where it says no more than that.

    So a label that corrections have taught keeps what it has learned; free words have nothing.
    """
    return phrase.label.name if phrase.prompts == phrase.label.prompts else f"words {index}"


def segment_clicks(
    spec: Clicks, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[LabelMask]:
    """The region that clicks point at; nothing without a positive one on the picture.

    Of very many the first positive one counts, which says what is meant, and the newest.
    """
    height, width = image.shape[:2]
    points = [
        Point(point.x_percent / 100 * width, point.y_percent / 100 * height, point.positive)
        for point in spec.points
        if 0 <= point.x_percent <= 100 and 0 <= point.y_percent <= 100
    ]
    meant = [point for point in points[:-_MOST_CLICKS] if point.positive][:1]
    points = [*meant, *points[-_MOST_CLICKS:]]
    if any(point.positive for point in points):
        made = segment_points(features, scores, _index(spec.label, scores), points, image)
        yield LabelMask(spec.label.name, made.mask, made.confidence)


def segment_boxes(
    spec: Boxes, features: DenseFeatures, scores: Scores, image: RGBArray
) -> Iterator[LabelMask]:
    """What is in boxes; nothing where they have no pixel of the picture.

    A turned box is looked at as the upright one around it, and what is outside of it cut off.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    confidence = np.zeros((height, width), np.float16)
    for rectangle in spec.rectangles:
        inside = rectangle_mask(rectangle, (height, width))
        corners = rectangle_corners(rectangle, (height, width)).clip(0, (width, height))
        left, top = np.floor(corners.min(axis=0)).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).tolist()
        if inside.any() and left < right and top < bottom:
            index = _index(spec.label, scores)
            made = segment_box(features, scores, index, (left, top, right, bottom), image)
            found = made.mask & inside
            mask |= found
            confidence[found] = np.maximum(confidence[found], made.confidence[found])
    if mask.any():
        yield LabelMask(spec.label.name, mask, confidence)


def segment_phrases(spec: Phrases, segmentation: Segmentation) -> Iterator[LabelMask]:
    """The masks of phrases, joined where they are for one label.

    Args:
        wish: the phrases.
        segmentation: of the picture, by `competing_labels`.
    """
    masks: dict[str, BoolMask] = {}
    for index, phrase in enumerate(spec.phrases):
        mask = segmentation.label_map == index
        name = phrase.label.name
        masks[name] = masks[name] | mask if name in masks else mask
    for name, mask in masks.items():
        yield LabelMask(name, mask, segmentation.confidence)


def covered(areas: Iterable[Area], controls: Collection[str], size_hw: tuple[int, int]) -> BoolMask:
    """What regions of some controls cover.

    A region that cannot be read, or whose picture had another size, covers nothing.

    Args:
        areas: on one picture.
        controls: names of those that count; nothing of the others is decoded.
        size_hw: height and width of the picture in px.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(size_hw, np.bool_)
    for area in areas:
        if area.control in controls and area.size_hw == size_hw:
            try:
                mask |= area_mask(area)
            except ValueError as error:
                log.warning("A region that is drawn already is not respected: %s", error)
    return mask


def _index(label: Label, scores: Scores) -> int:
    return [own.name for own in scores.vocabulary.labels].index(label.name)
