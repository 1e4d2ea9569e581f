"""Find annotated images that are likely wrong: what disagrees with scores, or with the image.

Three kinds of mistakes are told apart, each by a measure of its own:

- **label**: a connected part of a region is painted as one label, and looks like another. A
  description says what each part is like, and a linear discriminant what such parts are painted as
  on other images: the measure is the log odds for the label that a part looks like most over the
  painted one, times the square root of the part's share of the image. Where too few other images
  have the label, it is the mean probability of all but the painted label (label quality by the
  probabilities of pixels: Lad and Mueller, 2023), times that square root.
- **missing**: a connected part without paint is won by a label. The measure is the square root of
  the share of the image that the part has, weighted by the label's probability. A margin of the
  part does not count: it lies there where edges are not met.
- **edges**: the edges of paint lie where the image has none. The measure is the share of pixels of
  the image with at least as strong a contrast as those along the edges of a label, on average; the
  mean over all labels of an image counts, since careless work shows in all. No model is asked, so
  it tells as much of labels that the model hardly knows. An image without any contrast, such as a
  black frame, tells nothing of edges.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from scipy.special import log_softmax, softmax

from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import Float32s
from clearclip_core.segmentation.runs import BoolMask, PixelBox
from clearclip_core.segmentation.scores import Scores
from clearclip_core.segmentation.upsampling import Matrix
from clearclip_core.thread_pools import one_blas_thread

Kind = Literal["label", "missing", "edges"]

BESIDE_LABELS: Final = 10  # the numbers of a part's description beside the K of the labels
_PLACES: Final = 256  # places along the long side of an image at which probabilities are read

#: Smaller parts say nothing: share of the image, and of a label's edges the length in pixels.
_LEAST_SHARE: Final = 0.002
_LEAST_EDGE_PX: Final = 40

_MARGIN: Final = 5  # side of the square by which parts without paint are eroded, in places

#: Long side at which edges are judged, in px: loose edges of a larger image are looser.
_EDGE_SIDE_PX: Final = 640

#: An image whose strongest contrast is weaker is plain but for noise: 10 grey levels have 24 as a
#: clean step, noise of up to 4 levels to and fro.
_LEAST_CONTRAST: Final = 25.0

_SQUARE: Final = np.ones((3, 3), np.uint8)  # a pixel and its neighbours

#: Folds of consecutive images: frames of a drive lie in one, but for those at its ends.
_FOLDS: Final = 8

#: The least number of other images with a label, or the label is not compared.
LEAST_IMAGES: Final = 5

#: Fewer images are not judged: right parts look too much like other labels by chance.
LEAST_JUDGED: Final = 20

_LEAST_SHRINKAGE: Final = 0.05  # the covariance is shrunk by that at least

#: Of standardised numbers; less is rounding where all parts of a label are equal.
_LEAST_VARIANCE: Final = 1e-7

#: So many images of a label say what is usual for it; with fewer, all labels together do.
_FEW: Final = 5

#: What lies more interquartile ranges above the upper quartile of the images is far out: there the
#: score is 1 (outer fence: Tukey, Exploratory Data Analysis, 1977).
_FENCE: Final = 3.0

#: Values so little above what is usual for their label are noise: there the score is 1 at most.
_NOISE: Final[Mapping[Kind, float]] = {"label": 0.05, "missing": 0.03, "edges": 0.15}

#: Such log odds are noise, too: a tenth of an image has these at 115 to 1 for another label.
_NOISE_ODDS: Final = 1.5

#: A mean over the edges of n labels varies less than those of one by the square root of n, and by
#: that factor at most: labels of one image have something in common.
_STEADIER: Final = 3.0

#: Larger log odds are as good as that: how parts are spread so far from their means is not known.
_MOST_LOG_ODDS: Final = 50.0

RegionMap = npt.NDArray[np.integer[Any]]  # (H, W) numbers of regions

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Disagreement:
    """A part of an annotated image where scores see something else."""

    kind: Kind
    label: int  # index of the painted label; -1 where nothing is painted
    other: int  # index of the label that the scores see; -1 for edges
    value: float
    #: How much there is of it: the part's share of the image, the length of the edges in px, and 1
    #: for what is missing.
    weight: float
    box: PixelBox  # rows and columns of the part, in px
    #: (K + `BESIDE_LABELS`,) float64, what a part of the kind "label" is like: for each of the K
    #: labels of the vocabulary, and for the contrast words, temperature times cosine, less the mean
    #: of all (0 for contrast words where there are none); its centre's row and column as shares of
    #: the image's sides; the natural logarithm of its share of the image; mean and standard
    #: deviation of its L, a and b (CIE Lab), as shares of the 255 steps that OpenCV has for each.
    #: Empty for other kinds.
    description: Matrix = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    @property
    def about(self) -> int:
        """Index of the label by which the value is compared with those of other images."""
        return self.other if self.kind == "missing" else self.label


def find_disagreements(
    scores: Scores, image: RGBArray, truth: Truth, regions: RegionMap
) -> list[Disagreement]:
    """Find the disagreements of an annotated image.

    Args:
        scores: of the image, by an adaptation that has not learned from it, or by the words.
        truth: (H, W) label indices of the annotation, 254 for pixels without a label, 255 for
            pixels that are not counted.
        regions: (H, W) integers, which region of the annotation each pixel with a label is of. A
            part is connected paint of one region.

    Returns:
        Each painted part, what is missing of each label most, and the edges of each label, unless
        the image is plain.
    """
    maps = _ProbabilityMaps.of(scores, truth, regions)
    return [*_other_labels(maps, image), *_missing(maps), *_edges(image, truth)]


@dataclass(frozen=True, eq=False)
class _ProbabilityMaps:
    """Probabilities and paint at places spread evenly over an image."""

    probabilities: Float32s  # (G + 1, h, w) float32 of the labels, the last of the contrast words
    #: (G + 1, h, w) float32, temperature times the cosine of the best query of each; the mean of
    #: the others where there are no contrast words.
    logits: Float32s
    truth: Truth  # (h, w) label indices of the annotation, and `regions` alike
    regions: RegionMap
    image_hw: tuple[int, int]

    @classmethod
    def of(cls, scores: Scores, truth: Truth, regions: RegionMap) -> "_ProbabilityMaps":
        """Take scores and paint at the places; for the arguments see `find_disagreements`."""
        factor = min(1.0, _PLACES / max(truth.shape))
        y_px, x_px = (_centres_px(side, max(1, round(side * factor))) for side in truth.shape)
        logits = np.concatenate([band for _, band in scores.logits_at(y_px, x_px)])  # (h, w, Q)
        queries = softmax(logits, axis=2)

        owners = np.asarray(scores.vocabulary.query_labels)
        labels = len(scores.vocabulary.labels)
        shares = np.zeros((labels + 1, *queries.shape[:2]), np.float32)
        best = np.zeros_like(shares)
        for owner in np.unique(owners):  # -1, the contrast words, becomes the last
            shares[owner] = queries[..., owners == owner].max(axis=2)
            best[owner] = logits[..., owners == owner].max(axis=2)
        if owners.min() >= 0:
            best[-1] = best[:-1].mean(axis=0)

        places = np.ix_(np.rint(y_px).astype(int), np.rint(x_px).astype(int))
        return cls(shares, best, truth[places], regions[places], (truth.shape[0], truth.shape[1]))

    def box(self, part: PixelBox) -> PixelBox:
        """Return the box in px of a part of the places."""
        rows, columns = part
        height, width = self.truth.shape
        height_px, width_px = self.image_hw
        return _scaled(rows, height_px, height), _scaled(columns, width_px, width)


def _scaled(part: slice, side_px: int, count: int) -> slice:
    """Return a part in px of a side, from one of the parts into which the side is cut."""
    return slice(int(part.start * side_px / count), math.ceil(part.stop * side_px / count))


def _centres_px(side_px: int, count: int) -> npt.NDArray[np.float64]:
    """Return the centres of equal parts of a side, in px from the first pixel's centre."""
    return (np.arange(count) + 0.5) * side_px / count - 0.5


def _other_labels(maps: _ProbabilityMaps, image: RGBArray) -> Iterator[Disagreement]:
    """Describe each painted part, and name the label that the scores see in it."""
    labels = len(maps.probabilities) - 1
    if labels < 2:
        return
    shape = maps.truth.shape
    sides = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    planes = [*maps.probabilities[:-1], *maps.logits, *sides, *_colours(image, shape)]
    for label in np.unique(maps.truth[maps.truth < labels]).tolist():
        parts, areas, boxes = _parts(maps.truth == label, maps.regions)
        means = np.stack([_sums(parts, each, len(areas)) / areas for each in planes])
        for number in np.flatnonzero(areas >= _LEAST_SHARE * maps.truth.size).tolist():
            others = means[:labels, number].copy()
            others[label] = -np.inf
            value = 1 - float(means[label, number])
            share = float(areas[number] / maps.truth.size)
            box = maps.box(boxes[number])
            other, description = int(others.argmax()), _describe(means[labels:, number], share)
            yield Disagreement("label", label, other, value, share, box, description)


def _colours(image: RGBArray, shape: tuple[int, ...]) -> Float32s:
    """Return (6, h, w) L, a and b of the places, in units of 255 steps, and their squares."""
    height, width = shape
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).transpose(2, 0, 1) / np.float32(255)
    return np.concatenate([lab, lab**2])


def _describe(means: Matrix, share: float) -> Matrix:
    """Describe a part by the means of its logits, rows and columns, colours and their squares."""
    logits, places, colours, squares = np.split(means, [-8, -6, -3])
    spread = np.sqrt(np.maximum(squares - colours**2, 0))
    return np.concatenate([logits - logits.mean(), places, [math.log(share)], colours, spread])


def _missing(maps: _ProbabilityMaps) -> Iterator[Disagreement]:
    """Find the parts without paint that a label wins."""
    winners, no_regions = maps.probabilities.argmax(axis=0), np.zeros(maps.truth.shape, np.uint8)
    for label, probabilities in enumerate(maps.probabilities[:-1]):
        claimed = (winners == label) & (maps.truth == NOTHING)
        if not claimed.any():
            yield Disagreement("missing", -1, label, 0.0, 1.0, (slice(0, 1), slice(0, 1)))
            continue
        parts, areas, boxes = _parts(claimed, no_regions)
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
    ordered = np.sort(contrast, axis=None)
    for label in np.unique(painted[(painted != NOTHING) & (painted != IGNORE)]).tolist():
        mask = painted == label
        edge = mask & (cv2.erode(mask.view(np.uint8), _SQUARE) == 0)
        length = np.count_nonzero(edge)
        if length < _LEAST_EDGE_PX or mask.mean() < _LEAST_SHARE:
            continue
        value = 1 - float(np.searchsorted(ordered, contrast[edge]).mean() / contrast.size)
        left, top, columns, rows = cv2.boundingRect((truth == label).astype(np.uint8))
        box = slice(top, top + rows), slice(left, left + columns)
        yield Disagreement("edges", label, -1, value, float(length), box)


def _contrast(image: RGBArray) -> Float32s:
    """Return (H, W) contrasts: the largest gradient in Lab within a pixel's neighbours."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    gradients = (cv2.Sobel(lab, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    contrast = np.sqrt(sum((each**2).sum(axis=2) for each in gradients))
    return np.asarray(cv2.dilate(contrast, _SQUARE), np.float32)


def _parts(
    mask: BoolMask, regions: RegionMap
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], list[PixelBox]]:
    """Number the connected parts of a mask that are of one region each.

    Returns:
        (h, w) numbers from 0, -1 outside; the area and the box of each, in places.
    """
    parts, count = np.full(mask.shape, -1, np.int32), 0
    for region in np.unique(regions[mask]):
        own = (mask & (regions == region)).view(np.uint8)
        found, numbers = cv2.connectedComponents(own, connectivity=8)
        parts = np.where(numbers > 0, numbers - 1 + count, parts)
        count += found - 1
    return parts, np.bincount(parts[mask]).astype(np.float64), find_objects(parts + 1)


def _sums(parts: npt.NDArray[np.int32], values: Float32s, count: int) -> npt.NDArray[np.float64]:
    inside = parts >= 0
    return np.bincount(parts[inside], values[inside], count).astype(np.float64)


@one_blas_thread()
def held_out_log_probabilities(
    descriptions: Matrix, labels: IntArray, images: IntArray, count: int
) -> Matrix:
    """Return the log probability of each label for each part, by parts of other images.

    Args:
        descriptions: (n, d) of the parts, finite; and (n,) the label, below `count`, that each is
            painted as, and the number of its image. Consecutive images may be of one fold.

    Returns:
        (n, K) natural logarithms; minus infinity for labels that are on fewer than `LEAST_IMAGES`
        images outside of the part's fold, and for all where fewer than two labels are on as many,
        or there are fewer than `LEAST_JUDGED` images.
    """
    found = np.full((len(labels), count), -np.inf)
    if len(np.unique(images)) < LEAST_JUDGED:
        return found
    spread = descriptions.std(axis=0)
    standardised = (descriptions - descriptions.mean(axis=0)) / np.where(spread > 0, spread, 1)
    numbers, image = np.unique(images, return_inverse=True)
    for number in range(_FOLDS):
        fold = image * _FOLDS // len(numbers) == number  # blocks of about equally many images
        shown = np.unique(images[~fold] * count + labels[~fold])  # pairs of image and label
        on_images: IntArray = np.bincount(shown % count, minlength=count)
        known = np.flatnonzero(on_images >= LEAST_IMAGES)
        learned = ~fold & np.isin(labels, known)
        if len(known) < 2:
            continue
        weights, offsets = _fit(
            standardised[learned], np.searchsorted(known, labels[learned]), on_images[known]
        )
        found[np.ix_(fold, known)] = log_softmax(standardised[fold] @ weights + offsets, axis=1)
    return found


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


#: An image, a disagreement of it, and how far that is beyond what is usual for its label.
_Beyond = tuple[int, Disagreement, float]


@dataclass(frozen=True)
class Ranked:
    """An image with what is most unusual of it."""

    index: int
    disagreement: Disagreement
    score: float  # how far that is beyond what is usual for the label, more than 0, see `_FENCE`


def rank(images: Sequence[Sequence[Disagreement]], pictures: Sequence[Hashable]) -> list[Ranked]:
    """Rank annotated images, the most suspicious first.

    Of each value but log odds, the median of its label's values over the images is taken away: a
    label that the model hardly knows disagrees everywhere. What is left is divided by the value
    from which on an image stands out, so that kinds can be compared. An image counts by its largest
    score: above 1 it stands out, and in right work nearly no image does.

    Args:
        images: what `find_disagreements` has found on each annotated image.
        pictures: which picture each is, equal for several annotations of one, which do not speak
            for each other.

    Returns:
        The images that disagree more than is usual; equal scores in the order of the images.
    """
    by_kind: dict[Kind, list[tuple[int, Disagreement]]] = defaultdict(list)
    for index, found in enumerate(images):
        for each in found:
            by_kind[each.kind].append((index, each))

    # Paint with another label: by log odds where these are known, else by the label's own value.
    odds = _log_odds(by_kind["label"], _numbered(pictures))
    unlikely = [
        (index, each, value * math.sqrt(each.weight))
        for index, each, value in _beyond_usual(by_kind["label"])
    ]
    judged = [each for each in odds if each is not None]
    not_judged = [each for each, own in zip(unlikely, odds, strict=True) if own is None]

    missing = _beyond_usual(by_kind["missing"])
    edges = _image_means(_beyond_usual(by_kind["edges"]))
    best: dict[int, Ranked] = {}
    _keep_best(best, judged, _scale(judged, _NOISE_ODDS))
    _keep_best(best, not_judged, _scale(unlikely, _NOISE["label"]))
    _keep_best(best, missing, _scale(missing, _NOISE["missing"]))
    _keep_best(best, edges, _scale(edges, _NOISE["edges"]))
    return sorted(best.values(), key=lambda each: (-each.score, each.index))


def _numbered(pictures: Iterable[Hashable]) -> list[int]:
    """Return a number for each picture, the same one for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(each, len(numbers)) for each in pictures]


def _keep_best(best: dict[int, Ranked], beyond: Iterable[_Beyond], scale: float) -> None:
    """Replace what is most unusual of an image, by its index, where something scores higher."""
    for index, disagreement, value in beyond:
        score = value / scale
        known = best.get(index)
        if score > (0 if known is None else known.score):
            best[index] = Ranked(index, disagreement, score)


def _log_odds(
    found: Sequence[tuple[int, Disagreement]], pictures: Sequence[int]
) -> list[_Beyond | None]:
    """Return each part with the label that it looks like, and how much more so than its own.

    None for parts that are not judged: with a label that too few other images have.
    """
    if not found:
        return []
    images = np.array([pictures[index] for index, _ in found])
    labels = np.array([each.label for _, each in found])
    descriptions = np.stack([each.description for _, each in found])
    count = descriptions.shape[1] - BESIDE_LABELS
    logarithms = held_out_log_probabilities(descriptions, labels, images, count)
    made: list[_Beyond | None] = []
    for (index, each), own, others in zip(found, labels, logarithms, strict=True):
        if np.isneginf(others[own]):
            made.append(None)
            continue
        value = min(float(others.max() - others[own]), _MOST_LOG_ODDS)
        unlike = replace(each, other=int(others.argmax()))  # with its own, the value is 0
        made.append((index, unlike, value * math.sqrt(each.weight)))
    return made


def _beyond_usual(found: Sequence[tuple[int, Disagreement]]) -> list[_Beyond]:
    """Take what is usual for each label away from its values: the median over the images.

    Where few images have the label, the median of all labels' medians is taken away.
    """
    by_image: dict[tuple[int, int], list[Disagreement]] = defaultdict(list)
    for index, each in found:
        by_image[each.about, index].append(each)
    by_label: dict[int, list[float]] = defaultdict(list)
    for (label, _), own in by_image.items():
        by_label[label].append(_weighted_mean(own))

    usual = _usual(by_label)
    return [(index, each, each.value - usual[each.about]) for index, each in found]


def _weighted_mean(disagreements: Sequence[Disagreement]) -> float:
    values = [each.value for each in disagreements]
    weights = [each.weight for each in disagreements]
    return float(np.average(values, weights=weights))


def _usual(by_label: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Return what is usual for each label, by the values of its images."""
    medians = {label: float(np.median(values)) for label, values in by_label.items()}
    known = [medians[label] for label, values in by_label.items() if len(values) >= _FEW]
    fallback = float(np.median(known or [*medians.values()])) if medians else 0.0
    return {
        label: medians[label] if len(values) >= _FEW else fallback
        for label, values in by_label.items()
    }


def _image_means(beyond: Sequence[_Beyond]) -> list[_Beyond]:
    """Return the weighted mean of each image, in the unit of one label, with its largest part."""
    by_image: dict[int, list[_Beyond]] = defaultdict(list)
    for each in beyond:
        by_image[each[0]].append(each)
    made = []
    for index, own in by_image.items():
        mean = float(np.average([each[2] for each in own], weights=[e.weight for _, e, _ in own]))
        _, largest, _ = max(own, key=lambda each: each[1].weight * each[2])
        made.append((index, largest, mean * min(math.sqrt(len(own)), _STEADIER)))
    return made


def _scale(beyond: Sequence[_Beyond], noise: float) -> float:
    """Return the value at which the score is 1, by the largest value of each image with any."""
    worst: dict[int, float] = {}
    for index, _, value in beyond:
        worst[index] = max(value, worst.get(index, 0.0))
    if not worst:
        return noise
    # of few images, a quartile between two would be drawn out by one that is wrong
    lower, upper = np.quantile([*worst.values()], [0.25, 0.75], method="lower")
    return max(noise, float(upper + _FENCE * (upper - lower)))
