"""One mask from a prompt: clicks or a box, and the label that the annotator means.

A prompt overrules what the whole picture's label map says: the annotator has pointed. What is left
to find is how far the thing reaches. It reaches as far as one can walk from a click without
crossing an edge, in colour or in meaning: the geodesic distance of Bai and Sapiro, "A Geodesic
Framework for Fast Interactive Image and Video Segmentation and Matting" (ICCV 2007). The label's
own probability says how far a walk may be; where the label's text says nothing at the click, it is
the likeness to the click, in meaning and in features. Nearer to a negative click than to a positive
one is outside. In a box, what is far from the box's surroundings stands out (Wei et al., "Geodesic
Saliency Using Background Priors", ECCV 2012).

All of this happens on a grid of cells, about as many for every picture; pixels are looked at once,
at the end, where a cell's neighbours disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.geodesic import STEP, FloatMap, GeodesicGrid, Pixel
from clearclip_core.segmentation.dense_features import DenseFeatures
from clearclip_core.segmentation.masks import BoolMask, drop_islands, fill_holes
from clearclip_core.segmentation.scores import Scores


@dataclass(frozen=True)
class Point:
    """A click.

    Attributes:
        x_px: from the left edge of the picture, EXIF orientation applied; the first pixel's
            centre is at 0.5.
        y_px: from the top edge.
        positive: whether it is on the thing or beside it.
    """

    x_px: float
    y_px: float
    positive: bool = True


@dataclass(frozen=True, eq=False)
class PromptedMask:
    """What a prompt asked for.

    Attributes:
        mask: (H, W) bool, at the picture's size.
        confidence: (H, W) float16 in [0, 1], how surely a pixel belongs to it.
    """

    mask: BoolMask
    confidence: npt.NDArray[np.float16]


def segment_points(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    points: Sequence[Point],
    image: RGBArray,
) -> PromptedMask:
    """The region that clicks point at.

    Every positive point is inside, every negative one outside; of several on one pixel the last
    counts. A negative point only ever takes away. Where no positive point stands, the mask is
    empty.

    Args:
        features: of the picture.
        scores: of the project's labels on it.
        label: index in ``scores.vocabulary.labels`` of the label that is meant.
        points: one or more; those outside the picture count at its nearest pixel.
        image: (H, W, 3) uint8, the picture itself.

    Raises:
        ValueError: no points, an unknown label, or values that are not of one picture.
    """
    if not points:
        raise ValueError("Expected argument `points` to hold one or more, but got none.")
    ground = GeodesicGrid.of(features, scores, label, image)
    clicks = [(_pixel(point, ground.image_hw), point.positive) for point in points]
    last = dict(clicks)
    inside, outside = ([at for at in last if last[at] is each] for each in (True, False))
    if not inside:
        nothing = np.zeros(ground.image_hw)
        return PromptedMask(nothing.astype(bool), nothing.astype(np.float16))
    # One that a later negative point lies on still says what was meant: taking it away could add.
    positive = list(dict.fromkeys(at for at, kept in clicks if kept))
    evidence = _click_evidence(ground, positive, outside)
    fine = np.ones(ground.fine.shape[:2], bool)
    for start in range(0, len(evidence), _MAPS_AT_ONCE):
        fine &= (ground.sharpen(evidence[start : start + _MAPS_AT_ONCE]) > 0).all(axis=0)
    ground.stamp(fine, inside, True)
    ground.stamp(fine, outside, False)
    fine = fill_holes(_touching(fine, ground.fine_pixels(inside)), ground.speck_px)
    ground.stamp(fine, outside, False)
    mask = ground.enlarge(fine)
    for at, kept in last.items():
        mask[at] = kept
    return PromptedMask(mask, ground.confidence(evidence.min(axis=0)))


def segment_box(
    features: DenseFeatures,
    scores: Scores,
    label: int,
    box_xyxy: tuple[float, float, float, float],
    image: RGBArray,
) -> PromptedMask:
    """A label inside a box; where none is found, what stands out against the surroundings.

    Where nothing does, a box smaller than a patch is the thing itself, and the mask of a larger
    one is empty.

    Args:
        features: of the picture.
        scores: of the project's labels on it.
        label: index in ``scores.vocabulary.labels`` of the label that is meant.
        box_xyxy: left, top, right, bottom in px of the picture; what reaches beyond it is cut off.
        image: (H, W, 3) uint8, the picture itself.

    Raises:
        ValueError: a box that covers no pixel of the picture, an unknown label, or a picture that
            the features do not belong to.
    """
    box = _box_slices(box_xyxy, (image.shape[0], image.shape[1]))
    ground = GeodesicGrid.of(features, scores, label, image)
    mask = np.zeros(ground.image_hw, bool)
    for evidence in _box_evidence(ground, box):
        fine = ground.sharpen(evidence[None])[0] > 0
        fine = fill_holes(drop_islands(fine, ground.speck_px), ground.speck_px)
        mask[box] = ground.enlarge(fine)[box]
        if mask.any():
            break
    else:
        mask[box] = ground.within_patch(box)
    return PromptedMask(mask, ground.confidence(evidence))


# Chosen on drawn scenes, where a logistic regression of what belongs to the clicked thing on these
# terms gave about these weights. Colours are compared in CIELAB, whose unit is one of the eye, and
# models by their probabilities: what is particular to drawings is how flat their colours are.

#: So many maps are sharpened at once: 4 MB each.
_MAPS_AT_ONCE = 8


#: Log-odds that a cell belongs to the thing: at the click, less for the logarithm of the distance,
#: less for the logarithm of the label's probability, less for each unit of cosine to the click's
#: feature, and that with a text that says nothing.
_REACH = 16.0
_DISTANCE = 3.4
_TEXT = 0.6
_VISUAL = 0.5
_VISUAL_ALONE = 2.0
#: Further clicks correct: they reach less far.
_CORRECTION = 1.0
#: Log-odds for each logarithm of how many times a negative point is farther than a positive one.
_RIVALRY = 2.0

#: In a box: log-odds next to what is around it; they grow with the logarithm of the distance.
_SURROUNDINGS = -1.5
#: A label whose probability is below this everywhere in a box is not there.
_LIKELY = 0.1
#: Then the logarithm of the distance decides by itself, from this share of the largest on.
_SALIENT = 0.6


_HALF = float(np.log(0.5))


def _click_evidence(
    ground: GeodesicGrid, positive: Sequence[Pixel], negative: Sequence[Pixel]
) -> FloatMap:
    """(1 + negatives, h, w) log-odds: the thing is where all are above 0.

    Each negative point has a map of its own, so that another one can only take away.
    """
    walks = np.stack([ground.distance(ground.cells([pixel])) for pixel in positive])
    reach = np.full(len(positive), _REACH - _CORRECTION)
    reach[0] = _REACH
    said = float(ground.text[ground.cells(positive)].max())
    trust = min(float(np.exp(said - _HALF)), 1.0)  # in the text
    by_text = np.minimum(ground.text - min(said, _HALF), -_HALF)
    by_click = np.stack([ground.likeness(pixel) for pixel in positive]) - _HALF
    visual = trust * _VISUAL + (1 - trust) * _VISUAL_ALONE
    each = reach[:, None, None] - _DISTANCE * np.log1p(walks)
    each += _TEXT * (trust * by_text + (1 - trust) * by_click)
    each += visual * (np.stack([ground.cosines(pixel) for pixel in positive]) - 1)
    evidence = each.max(axis=0)
    near = walks.min(axis=0)
    maps = [evidence]
    for pixel in negative:
        far = ground.distance(ground.cells([pixel]))
        maps.append(np.minimum(evidence, _RIVALRY * np.log((far + STEP) / (near + STEP))))
    return np.stack(maps)


def _box_evidence(ground: GeodesicGrid, box: tuple[slice, slice]) -> Iterator[FloatMap]:
    """(h, w) log-odds that a cell belongs to the thing in a box; the next for want of a mask."""
    cells = ground.box_cells(box)
    likely = ground.text[cells].max() >= np.log(_LIKELY)
    # What is cut off by the box and of its label is not its surroundings.
    around = ~cells & (ground.text < _HALF)
    if likely and around.any():
        apart = np.log1p(ground.distance(around))
        yield np.asarray(_SURROUNDINGS + apart + _TEXT * ground.text)
    elif likely or cells.all():
        yield np.asarray(_TEXT * (ground.text - _HALF))
    if not cells.all():
        apart = np.log1p(ground.distance(~cells))
        yield np.asarray(apart - _SALIENT * apart[cells].max())


def _pixel(point: Point, image_hw: tuple[int, int]) -> Pixel:
    """Row and column of the pixel of the picture that is nearest to a point."""
    y, x = (
        min(max(int(np.floor(px)), 0), side - 1)
        for px, side in zip((point.y_px, point.x_px), image_hw, strict=True)
    )
    return y, x


def _box_slices(
    box_xyxy: tuple[float, float, float, float], image_hw: tuple[int, int]
) -> tuple[slice, slice]:
    """Rows and columns of the whole pixels in a box, as far as it is in the picture."""
    height, width = image_hw
    left, top, right, bottom = box_xyxy
    rows = slice(max(round(top), 0), min(round(bottom), height))
    columns = slice(max(round(left), 0), min(round(right), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(
            f"Expected argument `box_xyxy` to cover pixels of a picture of {width} x {height} px, "
            f"but got {box_xyxy}."
        )
    return rows, columns


def _touching(mask: BoolMask, pixels: Sequence[Pixel]) -> BoolMask:
    """The connected parts of a mask that hold any of these pixels."""
    count, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[[parts[pixel] for pixel in pixels]] = True
    keep[0] = False
    return np.asarray(keep[parts])
