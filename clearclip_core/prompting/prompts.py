"""One mask from a prompt: clicks or a box, and the label that the annotator means.

A prompt overrules the label map of the whole image, because the annotator has pointed. What is
left to find is the extent of the object. It reaches as far as a path from a click crosses no edge
in colour or in class: the geodesic distance of Bai and Sapiro, "A Geodesic Framework for Fast
Interactive Image and Video Segmentation and Matting" (ICCV 2007). The label's own probability
limits the distance; where the label's text has no probability at the click, the similarity to the
click in class and in features does. A pixel nearer to a negative click than to a positive one is
outside. In a box, the object is what is far from the box's surroundings (Wei et al., "Geodesic
Saliency Using Background Priors", ECCV 2012).

All of this is computed on a grid of cells, about as many for every image. Pixels are computed once
at the end, where neighbouring cells disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.geodesic import FloatMap
from clearclip_core.prompting.grid import Box, Pixel
from clearclip_core.prompting.log_odds import box_log_odds, click_log_odds
from clearclip_core.prompting.prompted_image import PromptedImage
from clearclip_core.segmentation.masks import drop_islands, fill_holes
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures
from clearclip_core.thread_pools import one_blas_thread

#: Maps that are sharpened at once: 4 MB each.
_MAP_BATCH_SIZE = 8


@dataclass(frozen=True)
class Point:
    """A click.

    Attributes:
        x_px: distance from the left edge of the image, EXIF orientation applied; the first pixel's
            centre is at 0.5.
        y_px: distance from the top edge.
        positive: whether the click is on the object or beside it.
    """

    x_px: float
    y_px: float
    positive: bool = True


@dataclass(frozen=True, eq=False)
class PromptedMask:
    """The mask of a prompt.

    Attributes:
        mask: (H, W) bool, at the image's size.
        confidence: (H, W) float16 in [0, 1], probability that a pixel belongs to the object.
    """

    mask: BoolMask
    confidence: npt.NDArray[np.float16]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.mask.shape[0], self.mask.shape[1]


@one_blas_thread()
def segment_points(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    points: Sequence[Point],
    image: RGBArray,
) -> PromptedMask:
    """Segment the object that clicks point at.

    Every positive point is inside the mask, every negative one outside; of several points on one
    pixel the last counts. A further negative point never adds a pixel. Without a positive point
    the mask is empty.

    Args:
        features: features of the image.
        scores: scores of the labels on the image.
        label: index in ``scores.vocabulary.labels`` of the prompted label.
        points: one or more; a point outside the image counts at its nearest pixel.
        image: (H, W, 3) uint8, the image itself.

    Raises:
        ValueError: no points, an unknown label, or arguments of different images.
    """
    if not points:
        raise ValueError("Expected argument `points` to hold one or more, but got none.")
    prompted = PromptedImage.of(features, scores, label, image)
    clicks = [(_pixel(point, prompted.geometry.image_hw), point.positive) for point in points]
    last = dict(clicks)
    inside, outside = ([at for at in last if last[at] is kind] for kind in (True, False))
    if not inside:
        return _empty(prompted.geometry.image_hw)
    # A positive click under a later negative one still counts: without it, cells could be added.
    positive = list(dict.fromkeys(pixel for pixel, is_positive in clicks if is_positive))
    log_odds = click_log_odds(prompted, positive, outside)
    mask = prompted.fine.enlarge(_click_mask(prompted, log_odds, inside, outside))
    for pixel, is_positive in last.items():
        mask[pixel] = is_positive
    return PromptedMask(mask, prompted.fine.confidence(log_odds.min(axis=0)))


@one_blas_thread()
def segment_box(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    box_xyxy: tuple[float, float, float, float],
    image: RGBArray,
) -> PromptedMask:
    """Segment a label inside a box; without it, what stands out against the box's surroundings.

    Where nothing stands out, the mask of a box smaller than a patch is the whole box, and that of
    a larger one is empty.

    Args:
        features: features of the image.
        scores: scores of the labels on the image.
        label: index in ``scores.vocabulary.labels`` of the prompted label.
        box_xyxy: left, top, right, bottom in px of the image; a part beyond the image is cut off.
        image: (H, W, 3) uint8, the image itself.

    Raises:
        ValueError: a box that covers no pixel of the image, an unknown label, or arguments of
            different images.
    """
    box = _box_slices(box_xyxy, (image.shape[0], image.shape[1]))
    prompted = PromptedImage.of(features, scores, label, image)
    fine_image, min_px = prompted.fine, prompted.geometry.cell_area_px
    mask = np.zeros(prompted.geometry.image_hw, bool)
    for log_odds in box_log_odds(prompted, box):
        fine = fine_image.sharpen(log_odds[None])[0] > 0
        fine = fill_holes(drop_islands(fine, min_px), min_px)
        mask[box] = fine_image.enlarge(fine)[box]
        if mask.any():
            break
    else:
        mask[box] = prompted.geometry.is_within_patch(box)
    return PromptedMask(mask, fine_image.confidence(log_odds))


def _click_mask(
    image: PromptedImage, log_odds: FloatMap, inside: Sequence[Pixel], outside: Sequence[Pixel]
) -> BoolMask:
    """Decide (h', w') the mask of clicks at the size of the fine image."""
    fine_image = image.fine
    fine: BoolMask = np.ones(image.geometry.fine_hw, bool)
    for start in range(0, len(log_odds), _MAP_BATCH_SIZE):
        fine &= (fine_image.sharpen(log_odds[start : start + _MAP_BATCH_SIZE]) > 0).all(axis=0)
    fine_image.fill_around(fine, inside, True)
    fine_image.fill_around(fine, outside, False)
    fine = fill_holes(fine_image.parts_at(fine, inside), image.geometry.cell_area_px)
    fine_image.fill_around(fine, outside, False)
    return fine


def _empty(image_hw: tuple[int, int]) -> PromptedMask:
    return PromptedMask(np.zeros(image_hw, bool), np.zeros(image_hw, np.float16))


def _pixel(point: Point, image_hw: tuple[int, int]) -> Pixel:
    """Return row and column of the pixel of the image that is nearest to a point."""
    y, x = (
        min(max(int(np.floor(px)), 0), side - 1)
        for px, side in zip((point.y_px, point.x_px), image_hw, strict=True)
    )
    return y, x


def _box_slices(box_xyxy: tuple[float, float, float, float], image_hw: tuple[int, int]) -> Box:
    """Return rows and columns of the whole pixels in the part of a box inside the image."""
    height, width = image_hw
    left, top, right, bottom = box_xyxy
    rows = slice(max(round(top), 0), min(round(bottom), height))
    columns = slice(max(round(left), 0), min(round(right), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(
            f"Expected argument `box_xyxy` to cover pixels of an image of {width} x {height} px, "
            f"but got {box_xyxy}."
        )
    return rows, columns
