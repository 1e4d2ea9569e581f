"""Where an annotation disagrees with scores that have not learned from it, and with its image.

Three kinds of mistakes are told apart, each by a measure of its own:

- **label**: a connected part of a region is painted as one label, and looks like another. A thing
  that touches another of its wrong label is judged by itself where it is a region of its own. The
  measure is the mean probability of all but the painted label (label quality of images from the
  probabilities of their pixels: Lad and Mueller, 2023). It is too little where the model is weak: a
  description says what the part is like, and `clearclip_core.label_errors.disagreement` what such
  parts are painted as on other images.
- **missing**: a connected part without paint is won by a label. The measure is the square root of
  the share of the image that the part has, weighted by the label's probability. A margin of the
  part does not count: it lies there where edges are not met.
- **edges**: the edges of a label's paint lie where the image has none. The measure is the share of
  pixels of the image with at least as strong a contrast as those along the edges, on average. No
  model is asked, so it tells as much of labels that the model hardly knows. An image without any
  contrast, such as a black frame, tells nothing of edges.

What is usual for a label differs; `clearclip_core.label_errors.ranking` compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from scipy.special import softmax

from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import Float32s
from clearclip_core.segmentation.runs import BoolMask, PixelBox
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Matrix
from clearclip_core.thread_pools import one_blas_thread

Kind = Literal["label", "missing", "edges"]

#: The numbers of a part's description beside the K of the labels.
BESIDE_LABELS: Final = 10

#: Places along the long side of an image at which probabilities are read.
_PLACES: Final = 256

#: Smaller parts say nothing: share of the image, and of a label's edges the length in pixels.
_LEAST_SHARE: Final = 0.002
_LEAST_EDGE_PX: Final = 40

#: Side of the square by which parts without paint are eroded, in places.
_MARGIN: Final = 5

#: Long side at which edges are judged, in px: loose edges of a larger image are looser.
_EDGE_SIDE_PX: Final = 640

#: An image whose strongest contrast is weaker is plain but for noise: 10 grey levels have 24 as a
#: clean step, noise of up to 4 levels to and fro.
_LEAST_CONTRAST: Final = 25.0

#: Steps by which contrasts are told apart.
_STEPS: Final = 1 << 12

#: (H, W) numbers of regions.
RegionMap = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Disagreement:
    """A part of an annotated image where scores see something else.

    Attributes:
        label: index of the painted label; -1 where nothing is painted.
        other: index of the label that the scores see; -1 for edges.
        weight: how much there is of it: the part's share of the image, the length of the edges in
            px, and 1 for what is missing.
        box: rows and columns of the part, in px.
        description: (K + `BESIDE_LABELS`,) float64, what a part of the kind "label" is like: for
            each of the K labels of the vocabulary, and for the contrast words, temperature times
            cosine, less the mean of all (0 for contrast words where there are none); its centre's
            row and column as shares of the image's sides; the natural logarithm of its share of the
            image; mean and standard deviation of its L, a and b (CIE Lab), as shares of the 255
            steps that OpenCV has for each. None for other kinds.
    """

    kind: Kind
    label: int
    other: int
    value: float
    weight: float
    box: PixelBox
    description: Matrix | None = field(default=None, repr=False, compare=False)

    @property
    def about(self) -> int:
        """Index of the label by which the value is compared with those of other images."""
        return self.other if self.kind == "missing" else self.label


def find_disagreements(
    scores: Scores, image: RGBArray, truth: Truth, regions: RegionMap | None = None
) -> list[Disagreement]:
    """Find the disagreements of an annotated image.

    Args:
        scores: of the image, by an adaptation that has not learned from it, or by the words.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) label indices of the annotation, 254 for pixels without a label, 255 for
            pixels that are not counted.
        regions: (H, W) integers, which region of the annotation each pixel with a label is of. A
            part is connected paint of one region. None: connected paint of one label.

    Returns:
        Each painted part, what is missing of each label most, and the edges of each label, unless
        the image is plain.

    Raises:
        ValueError: an annotation of another size, or more than 254 labels.
    """
    if len(scores.vocabulary.labels) > NOTHING:
        raise ValueError(
            f"Expected at most {NOTHING} labels, but got {len(scores.vocabulary.labels)}."
        )
    if truth.shape != scores.plan.image_hw or image.shape[:2] != truth.shape:
        raise ValueError(
            f"Expected an image and a label map of size {scores.plan.image_hw}, but got "
            f"{image.shape[:2]} and {truth.shape}."
        )
    if regions is not None and regions.shape != truth.shape:
        raise ValueError(
            f"Expected a region map of size {truth.shape}, but got one of {regions.shape}."
        )
    maps = _ProbabilityMaps.of(scores, truth, regions)
    return [*_other_labels(maps, image), *_missing(maps), *_edges(image, truth)]


@dataclass(frozen=True, eq=False)
class _ProbabilityMaps:
    """Probabilities and paint at places spread evenly over an image.

    Attributes:
        probabilities: (G + 1, h, w) float32 of the labels, the last of the contrast words.
        logits: (G + 1, h, w) float32, temperature times the cosine of the best query of each; the
            mean of the others where there are no contrast words.
        truth: (h, w) label indices of the annotation.
        regions: (h, w) which region of the annotation each place is of; 0 everywhere where that is
            not known.
        image_hw: height and width of the image in px.
    """

    probabilities: Float32s
    logits: Float32s
    truth: Truth
    regions: RegionMap
    image_hw: tuple[int, int]

    @classmethod
    def of(cls, scores: Scores, truth: Truth, regions: RegionMap | None) -> _ProbabilityMaps:
        factor = min(1.0, _PLACES / max(truth.shape))
        y_px, x_px = (
            (np.arange(count) + 0.5) * side / count - 0.5
            for side, count in ((side, max(1, round(side * factor))) for side in truth.shape)
        )
        logits = np.concatenate([band for _, band in scores.logits_at(y_px, x_px)])
        queries = softmax(logits, axis=2)
        owners = np.asarray(scores.vocabulary.query_labels)
        labels = len(scores.vocabulary.labels)
        shares = np.zeros((labels + 1, *queries.shape[:2]), np.float32)
        best = np.zeros_like(shares)
        for owner in np.unique(owners):  # -1, the contrast words, becomes the last
            shares[owner] = queries[..., owners == owner].max(axis=2)
            best[owner] = logits[..., owners == owner].max(axis=2)
        places = np.ix_(np.rint(y_px).astype(int), np.rint(x_px).astype(int))
        painted = truth[places]
        own = np.zeros(painted.shape, np.uint8) if regions is None else regions[places]
        if owners.min() >= 0:
            best[-1] = best[:-1].mean(axis=0)
        return cls(shares, best, painted, own, (truth.shape[0], truth.shape[1]))

    def box(self, part: PixelBox) -> PixelBox:
        """Return the box in px of a part of the places."""
        rows, columns = (
            slice(int(side.start * px / count), math.ceil(side.stop * px / count))
            for side, px, count in zip(part, self.image_hw, self.truth.shape, strict=True)
        )
        return rows, columns


def _other_labels(maps: _ProbabilityMaps, image: RGBArray) -> Iterator[Disagreement]:
    """Describe each painted part, and name the label that the scores see in it."""
    labels = len(maps.probabilities) - 1
    if labels < 2:
        return
    shape = maps.truth.shape
    planes = [*maps.probabilities[:-1], *maps.logits, *_places(shape), *_colours(image, shape)]
    for label in np.unique(maps.truth[maps.truth < labels]).tolist():
        parts, areas, boxes = _region_parts(maps.truth == label, maps.regions)
        means = np.stack([_sums(parts, each, len(areas)) / areas for each in planes])
        for number in np.flatnonzero(areas >= _LEAST_SHARE * maps.truth.size).tolist():
            others = means[:labels, number].copy()
            others[label] = -np.inf
            value = 1 - float(means[label, number])
            share = float(areas[number] / maps.truth.size)
            box = maps.box(boxes[number])
            other, description = int(others.argmax()), _describe(means[labels:, number], share)
            yield Disagreement("label", label, other, value, share, box, description)


def _places(shape: tuple[int, ...]) -> Float32s:
    """Return (2, h, w) rows and columns as shares of the sides."""
    rows, columns = ((np.arange(count) + 0.5) / count for count in shape)
    return np.asarray(np.meshgrid(rows, columns, indexing="ij"), np.float32)


def _colours(image: RGBArray, shape: tuple[int, ...]) -> Float32s:
    """Return (6, h, w) L, a and b of the places, in units of 255 steps, and their squares."""
    height, width = shape
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).transpose(2, 0, 1) / np.float32(255)
    return np.concatenate([lab, lab**2])


def _describe(means: Matrix, share: float) -> Matrix:
    """Return the description of a part, see `Disagreement`, by means over its places.

    Args:
        means: of its logits, its rows and columns, its colours and their squares.
        share: its share of the image.
    """
    logits, places, colours, squares = np.split(means, [-8, -6, -3])
    spread = np.sqrt(np.maximum(squares - colours**2, 0))
    return np.concatenate([logits - logits.mean(), places, [math.log(share)], colours, spread])


def _missing(maps: _ProbabilityMaps) -> Iterator[Disagreement]:
    """Find the parts without paint that a label wins."""
    winners = maps.probabilities.argmax(axis=0)
    for label, probabilities in enumerate(maps.probabilities[:-1]):
        claimed = (winners == label) & (maps.truth == NOTHING)
        if not claimed.any():
            yield Disagreement("missing", -1, label, 0.0, 1.0, (slice(0, 1), slice(0, 1)))
            continue
        parts, areas, boxes = _parts(claimed)
        inside = cv2.erode(claimed.astype(np.uint8), np.ones((_MARGIN, _MARGIN), np.uint8)) > 0
        seen = _sums(parts, np.where(inside, probabilities, 0), len(areas))
        number = int(seen.argmax())
        value = math.sqrt(seen[number] / maps.truth.size)
        yield Disagreement("missing", -1, label, value, 1.0, maps.box(boxes[number]))


def _edges(image: RGBArray, truth: Truth) -> Iterator[Disagreement]:
    """Measure how little contrast the image has along the edges of each label's paint."""
    factor = min(1.0, _EDGE_SIDE_PX / max(truth.shape))
    height, width = (max(1, round(side * factor)) for side in truth.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    painted = cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST)
    contrast = _contrast(np.asarray(small, np.uint8))
    if contrast.max() < _LEAST_CONTRAST:
        return
    ranks = _ranks(contrast)
    for label in np.unique(painted[(painted != NOTHING) & (painted != IGNORE)]).tolist():
        mask = painted == label
        edge = _edges_of(mask)
        length = np.count_nonzero(edge)
        if length < _LEAST_EDGE_PX or mask.mean() < _LEAST_SHARE:
            continue
        value = 1 - float(ranks[edge].mean())
        left, top, columns, rows = cv2.boundingRect((truth == label).astype(np.uint8))
        box = slice(top, top + rows), slice(left, left + columns)
        yield Disagreement("edges", label, -1, value, float(length), box)


def _contrast(image: RGBArray) -> Float32s:
    """Return (H, W) contrasts: the largest gradient in Lab within a pixel's neighbours."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    gradients = (cv2.Sobel(lab, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    contrast = np.sqrt(sum((each**2).sum(axis=2) for each in gradients))
    return np.asarray(cv2.dilate(contrast, np.ones((3, 3), np.uint8)), np.float32)


def _ranks(contrast: Float32s) -> Float32s:
    """Return for each pixel the share of pixels whose contrast is lower: (H, W), in [0, 1]."""
    steps = np.asarray(contrast * ((_STEPS - 1) / float(contrast.max())), np.intp)
    counts = np.bincount(steps.ravel(), minlength=_STEPS)
    lower = (np.cumsum(counts) - counts) / steps.size
    return np.asarray(lower[steps], np.float32)


def _edges_of(values: npt.NDArray[Any]) -> BoolMask:
    """Return (H, W) bool: pixels whose right or lower neighbour has another value."""
    edge = np.zeros(values.shape, np.bool_)
    edge[:, :-1] |= values[:, :-1] != values[:, 1:]
    edge[:-1] |= values[:-1] != values[1:]
    return edge


def _parts(mask: BoolMask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], list[PixelBox]]:
    """Number the connected parts of a mask from 0: (h, w) numbers, -1 outside; areas; boxes."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    areas = np.bincount(parts.ravel())[1:].astype(np.float64)
    boxes: list[PixelBox] = find_objects(parts)
    return np.asarray(parts - 1, np.int32), areas, boxes


def _region_parts(
    mask: BoolMask, regions: RegionMap
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], list[PixelBox]]:
    """Number the parts of a label's paint as `_parts` does: connected paint of one region.

    Paint of a region that is too small to be judged by itself counts with the largest part that it
    is connected with.
    """
    parts, areas, boxes = _parts(mask)
    least, count = _LEAST_SHARE * mask.size, len(areas)
    for number in np.flatnonzero(areas >= 2 * least).tolist():
        part = parts[boxes[number]]
        pieces = _pieces(part == number, regions[boxes[number]], least)
        for piece in sorted(pieces, key=len)[:-1]:
            part[tuple(piece.T)] = count
            count += 1
    if count == len(areas):
        return parts, areas, boxes
    areas = np.bincount(parts.ravel() + 1, minlength=count + 1)[1:].astype(np.float64)
    return parts, areas, find_objects(parts + 1)


def _pieces(mask: BoolMask, regions: RegionMap, least: float) -> Iterator[npt.NDArray[np.intp]]:
    """Find the connected paint of each region in a mask, where it is not all of one region.

    Args:
        mask: (h, w) bool.
        regions: (h, w) numbers of regions.
        least: number of places below which paint is left out.

    Yields:
        (n, 2) rows and columns of the n places of each.
    """
    numbers, own = np.unique(regions[mask], return_inverse=True)
    if len(numbers) < 2:
        return
    of_region = np.zeros(mask.shape, np.int32)
    of_region[mask] = own + 1
    for number, (rows, columns) in enumerate(find_objects(of_region), 1):
        parts, areas, _ = _parts(of_region[rows, columns] == number)
        for piece in np.flatnonzero(areas >= least):
            yield np.argwhere(parts == piece) + np.array([rows.start, columns.start])


def _sums(parts: npt.NDArray[np.int32], values: Float32s, count: int) -> npt.NDArray[np.float64]:
    """Sum up values over parts: (count,)."""
    inside = parts >= 0
    return np.bincount(parts[inside], values[inside], count).astype(np.float64)


#: Folds of consecutive images: frames of a drive lie in one, but for those at its ends.
_FOLDS: Final = 8

#: On so many of the other images a label is, or it is not compared.
LEAST_IMAGES: Final = 5

#: Of fewer images none is judged: right parts look too much like other labels by chance.
LEAST_JUDGED: Final = 20

#: The covariance is shrunk by that at least.
_LEAST_SHRINKAGE: Final = 0.05

#: Of standardised numbers; less is rounding where all parts of a label are equal.
_LEAST_VARIANCE: Final = 1e-7

IntArray = npt.NDArray[np.intp]


@one_blas_thread()
def held_out_log_probabilities(
    descriptions: Matrix, labels: IntArray, images: IntArray, count: int
) -> Matrix:
    """Return the log probability of each label for each part, by parts of other images.

    Args:
        descriptions: (n, d) of the parts, finite.
        labels: (n,) index of the label that each part is painted as, below `count`.
        images: (n,) number of the image of each part, equal for all annotations of an image. Images
            whose numbers follow one another may be of one fold.

    Returns:
        (n, K) natural logarithms; minus infinity for labels that are on fewer than `LEAST_IMAGES`
        images outside of the part's fold, and for all where fewer than two labels are on so many,
        or there are fewer than `LEAST_JUDGED` images.
    """
    found = np.full((len(labels), count), -np.inf)
    if len(np.unique(images)) < LEAST_JUDGED:
        return found
    spread = descriptions.std(axis=0)
    standardised = (descriptions - descriptions.mean(axis=0)) / np.where(spread > 0, spread, 1)
    for fold in _folds(images):
        shown = np.unique(images[~fold] * count + labels[~fold])  # pairs of image and label
        on_images: IntArray = np.bincount(shown % count, minlength=count)
        known = np.flatnonzero(on_images >= LEAST_IMAGES)
        learned = ~fold & np.isin(labels, known)
        if len(known) < 2:
            continue
        weights, offsets = _fit(
            standardised[learned], np.searchsorted(known, labels[learned]), on_images[known]
        )
        found[np.ix_(fold, known)] = _log_softmax(standardised[fold] @ weights + offsets)
    return found


def _folds(images: IntArray) -> list[BoolMask]:
    """Return (n,) bools of the parts of each fold: blocks of images with about equally many."""
    numbers, image = np.unique(images, return_inverse=True)
    return [image * _FOLDS // len(numbers) == fold for fold in range(_FOLDS)]


def _fit(descriptions: Matrix, labels: IntArray, on_images: IntArray) -> tuple[Matrix, Matrix]:
    """Fit the (d, K) weights and (K,) offsets of the discriminant functions.

    A mean of n images is off, so parts seem farther from it than they are: their squared distance
    is larger by d / n on average, which is taken away.
    """
    parts, width = descriptions.shape
    count = len(on_images)
    sums = np.zeros((count, width))
    np.add.at(sums, labels, descriptions)
    means = sums / np.bincount(labels, minlength=count)[:, None]
    rest = descriptions - means[labels]
    freedom = parts - count
    covariance = rest.T @ rest / freedom
    shrinkage = max(_LEAST_SHRINKAGE, width / (width + freedom))
    variance = max(float(np.trace(covariance)) / width, _LEAST_VARIANCE)
    covariance = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(width)
    weights = np.asarray(np.linalg.solve(covariance, means.T), np.float64)
    offsets: Matrix = 0.5 * (width / on_images - (means.T * weights).sum(axis=0))
    return weights, offsets


def _log_softmax(values: Matrix) -> Matrix:
    """Return the logarithms of the softmax over the last axis."""
    values = values - values.max(axis=1, keepdims=True)
    logarithms: Matrix = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return logarithms
