"""One mask from a prompt: clicks or a box, and the label that the annotator means.

A prompt overrules the label map of the whole image, because the annotator has pointed. What is
left to find is the extent of the object. It reaches as far as a path from a click crosses no edge
in colour or in class: the geodesic distance of Bai and Sapiro, "A Geodesic Framework for Fast
Interactive Image and Video Segmentation and Matting" (ICCV 2007). The label's own probability
limits the distance; where the label's text has no probability at the click, the similarity to the
click in class and in features does. A pixel nearer to a negative click than to a positive one is
outside. In a box, the object is what is far from the box's surroundings (Wei et al.,
"Geodesic Saliency Using Background Priors", ECCV 2012), what the label's text finds, and what is
near the box's middle, since people draw boxes around things. It takes as many of these pixels as
make the expected IoU of the mask largest.

Distances and similarities are computed on a grid of cells, about as many for every image. Pixels
are decided once, at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan, isqrt
from typing import Literal, overload

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.prompting.extent import correction_level, extents, three_sizes
from clearclip_core.prompting.prompted_image import STEP, FloatMap, Pixel, PromptedImage
from clearclip_core.segmentation.masks import drop_islands, fill_holes
from clearclip_core.segmentation.runs import BoolMask, PixelBox
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.windows import DenseFeatures
from clearclip_core.thread_pools import one_blas_thread

_CLICK = 16.0  # log-odds at the clicked cell itself
#: Log-odds that each further positive click has less: it corrects, so it reaches less far.
_CORRECTION = 1.0
_DISTANCE = 3.4  # subtracted for each unit of the logarithm of the geodesic distance
#: Added for each unit of the logarithm of the label's probability, or of the similarity to the
#: click's classes.
_TEXT = 1.2
_VISUAL = 2.0  # added for each unit of the cosine to the click's feature
_VISUAL_WITHOUT_TEXT = 4.0  # as `_VISUAL`, where the label's text has no probability at the click
#: Log-odds for each unit of the logarithm of the quotient of the distances from a negative and
#: from a positive click.
_NEGATIVE = 2.0

# The next six come from a logistic regression on pixels in boxes around things: of drawn scenes,
# and of street photographs with features of colours and of a network; tight boxes, and some that
# are up to a tenth too large on each side. The two that are constant in a box were moved a little
# by hand. Regressions on any two of these worlds did about as well in the third.
#: In a box, log-odds in its middle, next to its surroundings, where words say neither yes nor no.
_IN_BOX = 3.2
#: In a box, added for each unit of the log-odds of the label's probability. Where that is below a
#: half all over the box, the words tell nothing of the place, and count as if they said no.
_TEXT_IN_BOX = 0.38
#: In a box, added for each unit of the logarithm of the distance from the box's surroundings.
_APART = 0.81
#: In a box, for each unit of the squared distance from its middle, where its sides are at 1; and
#: what is added to that where the words are certain: they need no prior of the place.
_OFF_CENTRE = -2.56
_OFF_CENTRE_BY_WORDS = 1.89
#: In a box, added where the words are certain.
_CERTAIN_WORDS = -5.4

_LEAST = 1e-3  # probabilities are at least this far from 0 and 1
_LOG_HALF = float(np.log(0.5))


def click_log_odds(
    image: PromptedImage, text: FloatMap, positive: Sequence[Pixel], negative: Sequence[Pixel]
) -> list[FloatMap]:
    """Compute log-odds from clicks for each size that the first one may mean, the likeliest first.

    The object is where all maps of a size are above 0. Each negative click has a map of its own,
    so that a further one can only remove cells.

    Args:
        image: the image.
        text: (h, w) float32, logarithms of the label's probability.
        positive: pixels on the object, one or more.
        negative: pixels beside it.

    Returns:
        (1 + negatives, h, w) float32 for each of one to three sizes.
    """
    geodesic, geometry = image.geodesic, image.geometry
    distances = np.stack([geodesic.distance_from(geometry.cell(pixel)) for pixel in positive])
    near = distances.min(axis=0)
    nearer = []
    for pixel in negative:
        far = geodesic.distance_from(geometry.cell(pixel))
        nearer.append(_NEGATIVE * np.log((far + STEP) / (near + STEP)))
    return [
        np.stack([log_odds, *(np.minimum(log_odds, each) for each in nearer)])
        for log_odds in _positive_log_odds(image, text, positive, distances)
    ]


def _positive_log_odds(
    image: PromptedImage, text: FloatMap, pixels: Sequence[Pixel], distances: FloatMap
) -> list[FloatMap]:
    """Return (h, w) for each size: for each cell the largest of the log-odds of all clicks.

    Further clicks correct, see `correction_level`.
    """
    similarity = image.similarity
    clicked = float(text[image.geometry.cells(pixels)].max())
    trust = min(float(np.exp(clicked - _LOG_HALF)), 1.0)  # in the label's text
    by_text = np.minimum(text - min(clicked, _LOG_HALF), -_LOG_HALF)
    classes = np.stack([similarity.classes(pixel) for pixel in pixels])
    by_click = classes - _LOG_HALF
    visual = trust * _VISUAL + (1 - trust) * _VISUAL_WITHOUT_TEXT
    start = np.full(len(pixels), _CLICK - _CORRECTION)
    start[0] = _CLICK
    log_odds = start[:, None, None] - _DISTANCE * np.log1p(distances)
    log_odds += _TEXT * (trust * by_text + (1 - trust) * by_click)
    log_odds += visual * (np.stack([similarity.cosines(pixel) for pixel in pixels]) - 1)

    cells = [image.geometry.cell(pixel) for pixel in pixels]
    by_words = np.exp(text - clicked)
    masks = []
    for number, cell in enumerate(cells):
        alike = trust * by_words + (1 - trust) * np.exp(classes[number])
        masks.append(extents(log_odds[number], alike.clip(0, 1), cell))

    first_cells = int(masks[0][0].mask.sum())
    corrections = [
        log_odds[number] - correction_level(masks[number], first_cells)
        for number in range(1, len(pixels))
    ]
    return [
        np.stack([log_odds[0] - size.level, *corrections]).max(axis=0)
        for size in three_sizes(masks[0])
    ]


def box_log_odds(image: PromptedImage, text: FloatMap, box: PixelBox) -> FloatMap:
    """Compute the log-odds that pixels in a box belong to the object that it is drawn around.

    Args:
        image: the image.
        text: (h, w) float32, logarithms of the label's probability.
        box: rows and columns of the image's pixels.

    Returns:
        (height, width) float32, of the pixels of the box at the fine size.
    """
    cells = image.geometry.box_cells(box)
    probability = np.exp(text).clip(_LEAST, 1 - _LEAST)
    inside = probability[cells]
    trust = min(1.0, 4 * float(inside.max()) ** 2)  # in the label's words
    certainty = float(inside.max() * np.abs(2 * inside - 1).mean())  # of the words, in [0, 1]

    words = trust * logit(probability) + (1 - trust) * logit(_LEAST)
    log_odds = _TEXT_IN_BOX * words
    if not cells.all():
        log_odds += _APART * np.log1p(image.geodesic.distance(~cells))
    fine = image.geometry.fine_box(box)
    sharp = image.fine.sharpen_in(fine, log_odds.astype(np.float32))

    off_centre = _off_centre(box, image.geometry.image_hw, sharp.shape)
    place = (_OFF_CENTRE + _OFF_CENTRE_BY_WORDS * certainty) * off_centre
    return np.asarray(sharp + place + (_IN_BOX + _CERTAIN_WORDS * certainty), np.float32)


def _off_centre(box: PixelBox, image_hw: tuple[int, int], size_hw: tuple[int, ...]) -> FloatMap:
    """Return squared distances from the middle of a box, whose sides are at 1.

    Towards a side at the border of the image they are 0: there, the image ends and not the thing.

    Args:
        box: rows and columns of the image's pixels.
        image_hw: size of the image in px.
        size_hw: size of the box as it is to be returned.

    Returns:
        (h, w) float in [0, 2).
    """
    squares = []
    for side, full, count in zip(box, image_hw, size_hw, strict=True):
        place = (2 * np.arange(count) + 1) / count - 1  # from -1 to 1
        lowest = 0 if side.start == 0 else -1
        highest = 0 if side.stop == full else 1
        squares.append(place.clip(lowest, highest) ** 2)
    return np.asarray(np.add.outer(squares[0], squares[1]))


_LEVEL_PIXELS = 40_000  # number of log-odds at most by which the level is chosen


def best_level(log_odds: FloatMap) -> float:
    """Return the log-odds above which pixels are taken: those of the largest expected IoU.

    Of n pixels taken, with probabilities p, and others with probabilities q, about
    ``sum(p) / (n + sum(q))`` is expected, the quotient of the expected intersection and union. Half
    is not the best threshold: where all pixels have 0.4, taking all of them gives an IoU of 0.4,
    and taking none gives 0.

    Args:
        log_odds: (h, w) float32 of the pixels that can be taken, one or more.

    >>> bool(best_level(np.full((2, 3), -1.0)) < -1)
    True
    >>> -2 < best_level(np.array([[3.0, 2.0, -2.0]])) < 2
    True
    """
    some = log_odds.ravel()[:: -(-log_odds.size // _LEVEL_PIXELS)]
    ordered = np.sort(some)[::-1]
    probability = expit(ordered)
    taken, count = np.cumsum(probability), np.arange(1, len(ordered) + 1)
    last = int((taken / (count + taken[-1] - taken)).argmax())
    following = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 2
    return float(ordered[last] + following) / 2


_MAP_BATCH_SIZE = 8  # maps that are sharpened at once: 4 MB each


@dataclass(frozen=True)
class Point:
    """A click."""

    x_px: float  #: from the left edge, EXIF orientation applied; the first pixel's centre is at 0.5
    y_px: float
    positive: bool = True  #: whether the click is on the object or beside it


def points_of(given: Sequence[Point | tuple[float, float]]) -> list[Point]:
    """Return what `click` was given as points.

    Raises:
        ValueError: there are none, or a place that is no number.
        TypeError: one is none, as in ``click(60, 40)``.
    """
    if not given:
        raise ValueError("Expected argument `points` to hold one or more, but got none.")
    try:
        points = [point if isinstance(point, Point) else Point(*point) for point in given]
        places = [replace(each, x_px=float(each.x_px), y_px=float(each.y_px)) for each in points]
    except TypeError:
        told = "Expected argument `points` to hold (x, y) in px or `Point`s"
        raise TypeError(f"{told}, but got {tuple(given)}.") from None
    if any(isnan(place) for each in places for place in (each.x_px, each.y_px)):
        raise ValueError(f"Expected argument `points` to hold numbers, but got {tuple(given)}.")
    return places


def label_index(scores: Scores, label: str | None) -> int | None:
    """Return the index of a label that a prompt names, None for none; refuse an unknown one."""
    names = scores.vocabulary.names
    if label is not None and label not in names:
        raise ValueError(f"Expected argument `label` to be in {names}, but got {label!r}.")
    return None if label is None else names.index(label)


_GREYS = 256  # values of a byte
_MEAN_PX = 10_000  # number of a mask's pixels from which their mean is taken of a part of them
_PROBABILITIES = (np.arange(_GREYS) / (_GREYS - 1)).astype(np.float16)


@dataclass(frozen=True, eq=False, repr=False)
class PromptedMask:
    """The mask of a prompt.

    The probability of each pixel takes more time and memory than the mask. So it is kept as it was
    found, and enlarged when it is asked for.
    """

    mask: BoolMask  #: (H, W) bool, at the image's size
    #: (h, w) uint8, probability of the object in steps of 1/255, to be enlarged to `part`
    grey: npt.NDArray[np.uint8]
    part: PixelBox  #: rows and columns of the image; outside of it the probability is 0

    @classmethod
    def of(cls, mask: BoolMask, probability: FloatMap) -> "PromptedMask":
        """Return a mask with a probability of the whole image.

        Args:
            mask: (H, W) bool.
            probability: (h, w) float in [0, 1], of any size; it is rounded to steps of 1/255.
        """
        return cls(mask, greys(probability), (slice(0, len(mask)), slice(0, mask.shape[1])))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.mask.shape[0], self.mask.shape[1]

    @cached_property
    def confidence(self) -> npt.NDArray[np.float16]:
        """(H, W) float16 in [0, 1], probability of the object."""
        # OpenCV looks up whole numbers, and five times as fast as NumPy's indexing.
        rows, columns = self.part
        grey = _resized(self.grey, (rows.stop - rows.start, columns.stop - columns.start))
        found = np.asarray(cv2.LUT(grey, _PROBABILITIES.view(np.int16)))
        own: npt.NDArray[np.float16] = found.view(np.float16)
        if own.shape == self.mask.shape:
            return own
        confidence = np.zeros(self.size_hw, np.float16)
        confidence[self.part] = own
        return confidence

    @cached_property
    def mean_confidence(self) -> float:
        """Mean of the confidence in the mask, of some of the pixels of a large one; 0 for none."""
        own = np.ascontiguousarray(self.mask[self.part]).view(np.uint8)
        step = max(1, isqrt(cv2.countNonZero(own) // _MEAN_PX))
        size_hw = -(-own.shape[0] // step), -(-own.shape[1] // step)
        inside = own if step == 1 else _resized(own, size_hw, cv2.INTER_NEAREST)
        return float(cv2.mean(_resized(self.grey, size_hw), inside)[0]) / (_GREYS - 1)


def _resized(
    grey: npt.NDArray[np.uint8], size_hw: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
) -> npt.NDArray[np.uint8]:
    if grey.shape == size_hw:
        return grey
    return np.asarray(cv2.resize(grey, size_hw[::-1], interpolation=interpolation), np.uint8)


def greys(probability: FloatMap) -> npt.NDArray[np.uint8]:
    """Return probabilities in steps of 1/255."""
    return np.round(probability * (_GREYS - 1)).astype(np.uint8)


@dataclass(frozen=True, eq=False, repr=False)
class PromptPredictor:
    """An encoded image that answers clicks and boxes, each with one mask.

    ``Segmenter.set_image`` makes it. What does not depend on the prompt is computed once, with the
    first one; it may be shared by threads.

    Raises:
        ValueError: arguments of different images.
    """

    features: DenseFeatures
    scores: Scores  #: of `features`; the labels that prompts may name, and what competes with them
    image: RGBArray  #: (H, W, 3) uint8, the image itself

    def __post_init__(self) -> None:
        plan, image = self.scores.plan, self.image
        if self.features.plan != plan:
            raise ValueError(
                "Expected arguments `features` and `scores` to be of one image, but their windows "
                "differ."
            )
        if image.shape != (*plan.image_hw, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"Expected argument `image` to be {(*plan.image_hw, 3)} uint8, but got "
                f"{image.shape} {image.dtype}."
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image in px."""
        return self.scores.plan.image_hw

    @cached_property
    def _prompted(self) -> PromptedImage:
        return PromptedImage.of(self.features, self.scores, self.image)

    def _text(self, label: str | None) -> FloatMap:
        """Return (h, w) logarithms of the label's probability in the cells."""
        index = label_index(self.scores, label)
        return self._prompted.similarity.log_probability(index)

    @overload
    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: Literal[False] = False,
    ) -> PromptedMask: ...

    @overload
    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: Literal[True],
    ) -> list[PromptedMask]: ...

    @one_blas_thread()
    def click(
        self,
        *points: Point | tuple[float, float],
        label: str | None = None,
        several: bool = False,
    ) -> PromptedMask | list[PromptedMask]:
        """Segment the object that clicks point at.

        Every positive point is inside the mask, every negative one outside; of several points on
        one pixel the last counts. A further negative point never adds a pixel. Without a positive
        point the mask is empty.

        Args:
            points: one or more, (x, y) in px for a positive one; a point outside the image counts
                at its nearest pixel.
            label: name of the label that is meant. Without one, what is alike at the clicks counts.
            several: whether to return a mask of each size that the first positive point may mean,
                such as a wheel, a car and a row of cars, rather than that of the likeliest.

        Returns:
            The likeliest mask; with `several` one to three, the likeliest first.

        Raises:
            ValueError: no points, or an unknown label.
            TypeError: a point that is none, as in ``click(60, 40)``.
        """
        text, size_hw = self._text(label), self.size_hw
        clicks = [(_pixel(point, size_hw), point.positive) for point in points_of(points)]
        last = dict(clicks)
        if not any(last.values()):
            empty = PromptedMask.of(np.zeros(size_hw, bool), np.zeros((1, 1), np.float32))
            return [empty] if several else empty

        # A positive click under a later negative one still counts: else cells could be added.
        positive = list(dict.fromkeys(pixel for pixel, is_positive in clicks if is_positive))
        negative = [pixel for pixel, is_positive in last.items() if not is_positive]
        sizes = click_log_odds(self._prompted, text, positive, negative)
        if several:
            return [self._mask(log_odds, last) for log_odds in sizes]
        return self._mask(sizes[0], last)

    def _mask(self, log_odds: FloatMap, clicks: dict[Pixel, bool]) -> PromptedMask:
        """Decide the mask of (n, h, w) log-odds, of pixels that are inside of it or outside."""
        inside, outside = ([at for at in clicks if clicks[at] is kind] for kind in (True, False))
        fine = self._prompted.fine
        mask = fine.enlarge(_click_mask(self._prompted, log_odds, inside, outside))
        for pixel, is_positive in clicks.items():
            mask[pixel] = is_positive
        probability = 1 / (1 + np.exp(-log_odds.min(axis=0)))
        return PromptedMask.of(mask, probability)

    @one_blas_thread()
    def box(
        self, box_xyxy: tuple[float, float, float, float], label: str | None = None
    ) -> PromptedMask:
        """Segment what a box is drawn around: the label, and what stands out of its surroundings.

        Of the box, it takes as much as makes the expected IoU largest, so it is never empty: where
        nothing stands out, it is most of the box.

        Args:
            box_xyxy: left, top, right, bottom in px of the image; a part beyond the image is cut
                off.
            label: name of the label that is meant.

        Raises:
            ValueError: a box that covers no pixel of the image, or an unknown label.
        """
        box, text = _box_slices(box_xyxy, self.size_hw), self._text(label)
        geometry = self._prompted.geometry
        log_odds = box_log_odds(self._prompted, text, box)
        fine = log_odds > best_level(log_odds)
        fine = fill_holes(drop_islands(fine, geometry.cell_area_px), geometry.cell_area_px)

        mask = np.zeros(self.size_hw, bool)
        inside = mask[box]
        inside[:] = cv2.resize(fine.astype(np.float32), inside.shape[::-1]) > 0.5
        if not inside.any():
            inside[:] = True  # all its parts were smaller than a cell
        return PromptedMask(mask, greys(expit(log_odds)), box)


def _click_mask(
    image: PromptedImage, log_odds: FloatMap, inside: Sequence[Pixel], outside: Sequence[Pixel]
) -> BoolMask:
    """Decide (h', w') the mask of clicks at the size of the fine image."""
    fine_image = image.fine
    fine: BoolMask = np.ones(image.geometry.fine_hw, bool)
    for start in range(0, len(log_odds), _MAP_BATCH_SIZE):
        fine &= fine_image.decide(log_odds[start : start + _MAP_BATCH_SIZE])
    fine_image.fill_around(fine, inside, True)
    fine_image.fill_around(fine, outside, False)
    fine = fill_holes(fine_image.parts_at(fine, inside), image.geometry.cell_area_px)
    fine_image.fill_around(fine, outside, False)
    return fine


def _pixel(point: Point, image_hw: tuple[int, int]) -> Pixel:
    """Return row and column of the pixel of the image that is nearest to a point."""
    y, x = (
        min(max(int(np.floor(px)), 0), side - 1)
        for px, side in zip((point.y_px, point.x_px), image_hw, strict=True)
    )
    return y, x


def _box_slices(box_xyxy: tuple[float, float, float, float], image_hw: tuple[int, int]) -> PixelBox:
    """Return rows and columns of the whole pixels in the part of a box inside the image."""
    height, width = image_hw
    left, top, right, bottom = box_xyxy if len(box_xyxy) == 4 else (0, 0, 0, 0)
    rows = slice(max(round(top), 0), min(round(bottom), height))
    columns = slice(max(round(left), 0), min(round(right), width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(
            "Expected argument `box_xyxy` to be left, top, right, bottom in px around pixels of an "
            f"image of {width} x {height} px, but got {box_xyxy}."
        )
    return rows, columns
