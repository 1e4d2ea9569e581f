"""Compare candidates on a folder of labelled pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clearclip_core.adaptation.adaptation import Adaptation
from clearclip_core.evaluation.benchmarks import LabelledPicture
from clearclip_core.evaluation.metrics import MaskOverlap
from clearclip_core.evaluation.runner import LabelIndices
from clearclip_core.images.label_maps import (
    IGNORE,
    NOTHING,
    Truth,
    pair_files,
    palette,
    thumbnail,
)
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.segmentation.scores import DEFAULT_OPTIONS, ScoreOptions, Scores
from clearclip_core.segmenter import Segmenter
from clearclip_core.thread_pools import read_ahead
from clearclip_core.vocabulary import Label, MapNames, Vocabulary

#: Share of the image below which the backend drops islands and fills holes, by default.
MIN_ISLAND_SHARE: Final = 0.0005


@dataclass(frozen=True)
class PredictionRule:
    """How masks are made of scores.

    Attributes:
        propagate: scores are drawn together where the image has no edge, before that.
        threshold: pixels with a lower probability get no label; one for all labels or one for each.
            A label whose threshold is 1 is never predicted, as in the backend.
        min_island_share: parts of a mask, and holes in it, that are smaller than this share of the
            image are dropped or filled.
    """

    contrast: bool = True
    refine: bool = True
    threshold: float | tuple[float, ...] = 0.0
    min_island_share: float = MIN_ISLAND_SHARE
    propagate: bool = False

    def thresholds(self, labels: int) -> tuple[float, ...]:
        """Return the threshold of each label.

        >>> PredictionRule(threshold=0.5).thresholds(2)
        (0.5, 0.5)
        """
        if isinstance(self.threshold, tuple):
            return self.threshold
        return (self.threshold,) * labels


#: The backend's defaults, and the paper's protocol.
AS_BACKEND: Final = PredictionRule()
AS_PAPER: Final = PredictionRule(contrast=False, refine=False, min_island_share=0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model, a method and prompts.

    Attributes:
        segmenter: of the model and the method. Candidates that share it share its features.
        adaptation: scores adapted to corrected images; None: the scores of the words alone.
    """

    segmenter: Segmenter
    labels: tuple[Label, ...]
    model: str
    prompts: str
    rule: PredictionRule = AS_BACKEND
    adaptation: Adaptation | None = None
    options: ScoreOptions = DEFAULT_OPTIONS

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.segmenter.method)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self.segmenter.vocabulary(self.labels, self.rule.contrast)

    @property
    def needs_cls(self) -> bool:
        """Whether features need CLS features."""
        return self.options.needs_cls

    def embed(self) -> None:
        """Embed the words, so that no image's time includes it."""
        self.segmenter.embed(self._vocabulary.queries)

    def masks(self, features: Any, rgb: RGBArray) -> dict[int, BoolMask]:
        """Predict the masks of an image from its features: index of the label -> (H, W) bool."""
        scores = self.segmenter.score(
            features, self._vocabulary, adaptation=self.adaptation, options=self.options
        )
        return draw_masks(self.segmenter, scores, rgb, self.rule)


def draw_masks(
    segmenter: Segmenter, scores: Scores, rgb: RGBArray, rule: PredictionRule
) -> dict[int, BoolMask]:
    """Draw the masks of an image by a rule.

    Args:
        rgb: (H, W, 3) uint8.
        rule: how masks are made; its `contrast` is that of the scores.

    Returns:
        Index of the label -> (H, W) bool, for labels with a pixel.
    """
    labels = scores.vocabulary.labels
    thresholds = rule.thresholds(len(labels))
    made = segmenter.decide(scores, thresholds, rgb, rule.refine, rule.propagate)
    min_px = round(rule.min_island_share * made.label_map.size)
    index = {label.name: number for number, label in enumerate(labels)}
    masks = {index[name]: mask for name, mask in made.masks(min_px, min_px).items()}
    return {number: mask for number, mask in masks.items() if thresholds[number] < 1}


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a candidate predicts for an image.

    Attributes:
        masks: index of the label -> (H, W) bool, for labels with a pixel.
        seconds: time from the image in memory to the masks, the encoder's share included.
    """

    masks: dict[int, BoolMask]
    seconds: float

    def label_map(self, size_hw: tuple[int, int]) -> npt.NDArray[np.int16]:
        """Return the (H, W) label indices, -1 for no label."""
        made = np.full(size_hw, -1, np.int16)
        for index, mask in self.masks.items():
            made[mask] = index
        return made


def predict_all(candidates: Sequence[Candidate], rgb: RGBArray) -> Iterator[Predicted]:
    """Predict an image with each candidate; it is encoded once for those that share a segmenter.

    Args:
        rgb: (H, W, 3) uint8.

    Yields:
        The prediction of each candidate, in order.
    """
    encoded: dict[int, tuple[Any, float]] = {}
    for candidate in candidates:
        key = id(candidate.segmenter)
        if key not in encoded:
            began = time.perf_counter()
            sharing = (each for each in candidates if each.segmenter is candidate.segmenter)
            with_cls = any(each.needs_cls for each in sharing)
            features = candidate.segmenter.encode(rgb, with_cls=with_cls)
            encoded[key] = features, time.perf_counter() - began
        features, encoding_s = encoded[key]
        began = time.perf_counter()
        masks = candidate.masks(features, rgb)
        yield Predicted(masks, encoding_s + time.perf_counter() - began)


class Readable(Protocol):
    """An image with its ground truth."""

    @property
    def name(self) -> str:
        """Name of the image."""

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 class indices."""


@dataclass(frozen=True)
class LabelledFolder:
    """Labelled pictures with their labels."""

    pictures: tuple[Readable, ...]
    labels: tuple[Label, ...]

    @classmethod
    def find(
        cls, images: Path, masks: Path, names: Path, limit: int | None = None
    ) -> LabelledFolder:
        """Find the pictures and read the names; the first picture is read.

        Args:
            images: folder of images, see `pair_files`.
            names: file of names, see `MapNames.read`.
            limit: limit of the number of pictures, which are taken evenly from all.
        """
        values = MapNames.read(names)
        files = pair_files(images, masks)
        if limit is not None and limit < len(files):
            files = [files[index * len(files) // limit] for index in range(limit)]
        pictures = tuple(LabelledPicture(each, tuple(values.indices)) for each in files)
        pictures[0].read()
        return cls(pictures, values.labels)

    def with_prompts(self, path: Path) -> tuple[Label, ...]:
        """Return the labels with the words of another file of names as their prompts.

        Raises:
            ValueError: the file cannot be read, or has not as many labels.
            OSError: the file cannot be read.
        """
        words = MapNames.read(path).labels
        if len(words) != len(self.labels):
            raise ValueError(
                f"Expected {path} to have words for {len(self.labels)} labels, one a line, but got "
                f"{len(words)}."
            )
        pairs = zip(self.labels, words, strict=True)
        return tuple(replace(label, prompts=other.prompts) for label, other in pairs)


#: IoU from which a mask would be submitted as it is.
CLOSE_IOU: Final = 0.9

#: Long side in px of the pictures that are kept to be shown.
_SHOWN_PX = 480


@dataclass(frozen=True)
class LabelFigures:
    """How well one label was predicted, or all labels together.

    Attributes:
        pictures: pictures where it was predicted or is true.
        predicted: pictures where it was predicted.
        close: pictures where it was predicted with an IoU of at least 0.9.
    """

    overlap: MaskOverlap = field(default_factory=MaskOverlap)
    pictures: int = 0
    predicted: int = 0
    close: int = 0

    @classmethod
    def of(cls, overlap: MaskOverlap) -> LabelFigures:
        """Return the figures of one picture."""
        iou = overlap.iou
        predicted = overlap.predicted_px > 0
        close = predicted and iou is not None and iou >= CLOSE_IOU
        return cls(overlap, int(iou is not None), int(predicted), int(close))

    def __add__(self, other: LabelFigures) -> LabelFigures:
        """Add the figures of other pictures."""
        return LabelFigures(
            self.overlap + other.overlap,
            self.pictures + other.pictures,
            self.predicted + other.predicted,
            self.close + other.close,
        )

    @property
    def close_share(self) -> float | None:
        """Share of the predicted masks with such an IoU; None where none was predicted."""
        return self.close / self.predicted if self.predicted else None


@dataclass(frozen=True, eq=False)
class CandidateFigures:
    """How well a candidate predicted.

    Attributes:
        seconds: time of each picture, from the picture in memory to its masks.
    """

    labels: tuple[LabelFigures, ...]
    seconds: tuple[float, ...] = ()

    def added(self, mask_overlaps: Sequence[MaskOverlap], seconds: float) -> CandidateFigures:
        """Add a picture: the overlap of each label, and its time."""
        pairs = zip(self.labels, mask_overlaps, strict=True)
        labels = tuple(figures + LabelFigures.of(overlap) for figures, overlap in pairs)
        return CandidateFigures(labels, (*self.seconds, seconds))

    @property
    def all(self) -> LabelFigures:
        """Sums over all labels."""
        return sum(self.labels, LabelFigures())

    @property
    def mean_iou(self) -> float | None:
        """Mean over the labels of their IoU, which is of the sums over all pictures."""
        return _mean([figures.overlap.iou for figures in self.labels])

    @property
    def mean_boundary_iou(self) -> float | None:
        """Mean over the labels of their boundary IoU, which is of the sums over all pictures."""
        return _mean([figures.overlap.boundary_iou for figures in self.labels])

    @property
    def seconds_per_picture(self) -> float:
        """Median time of a picture."""
        return median(self.seconds) if self.seconds else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture, its truth and each candidate's prediction, drawn with at most 480 px.

    Attributes:
        images: (h, w, 3) uint8 each: the picture, the truth, the predictions.
        saved_paint: of each candidate; None where the picture shows no label.
    """

    name: str
    images: tuple[RGBArray, ...]
    saved_paint: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The candidates with their figures, and the pictures with most wrong pixels.

    Attributes:
        left_out: name and reason of each picture that could not be read.
    """

    labels: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    figures: tuple[CandidateFigures, ...]
    worst: tuple[ShownPicture, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def best(self) -> int:
        """Index of the candidate that saves most paint; the first of equals."""
        saved = [figures.all.overlap.saved_paint for figures in self.figures]
        shares = [float("-inf") if share is None else share for share in saved]
        return shares.index(max(shares))


def mask_overlaps(masks: dict[int, Any], truth: Truth, labels: int) -> list[MaskOverlap]:
    """Compare the masks of each label with the truth, without the pixels that are not counted.

    Args:
        masks: index of the label -> (H, W) bool.
        truth: (H, W) label indices, 255 for pixels that are not counted.
    """
    counted = truth != IGNORE
    found = []
    for index in range(labels):
        mask = masks[index] & counted if index in masks else None
        true = truth == index
        found.append(MaskOverlap.of(mask, true if true.any() else None))
    return found


def compare(
    folder: LabelledFolder,
    candidates: Sequence[Candidate],
    shown: int = 0,
    leave_out: tuple[type[Exception], ...] = (),
) -> Comparison:
    """Predict all pictures with each candidate and compare the masks with the truth.

    Args:
        candidates: the candidates, with one label for each of the folder's.
        shown: number of worst pictures to keep: those with the largest share of pixels to paint or
            erase, on average over the candidates.
        leave_out: errors of a picture for which it is left out; others end the comparison.

    Raises:
        LayoutError: a picture cannot be read, or does not fit its label map.
        ValueError: all pictures are left out.
    """
    for candidate in candidates:
        candidate.embed()
    count = len(folder.labels)
    figures = [CandidateFigures((LabelFigures(),) * count) for _ in candidates]
    worst: list[tuple[float, int, ShownPicture]] = []
    left_out: list[tuple[str, str]] = []
    for number, (name, rgb, truth) in enumerate(_readable(folder, leave_out, left_out)):
        maps, overlaps = [], []
        for place, made in enumerate(predict_all(candidates, rgb)):  # one candidate's masks at once
            found = mask_overlaps(made.masks, truth, count)
            figures[place] = figures[place].added(found, made.seconds)
            overlaps.append(sum(found, MaskOverlap()))
            maps.append(made.label_map((truth.shape[0], truth.shape[1])))
        wrong_px = fmean(each.wrong_px for each in overlaps)
        wrong_share = wrong_px / max(1, np.count_nonzero(truth != IGNORE))
        if shown and (len(worst) < shown or wrong_share > worst[0][0]):
            true = np.where(truth >= NOTHING, -1, truth.astype(np.int16))
            images = _drawn(rgb, [np.full_like(true, -1), true, *maps], count)
            saved = tuple(each.saved_paint for each in overlaps)
            worst.append((wrong_share, -number, ShownPicture(name, images, saved)))
            worst = sorted(worst, key=lambda entry: entry[:2])[-shown:]
    if left_out and len(left_out) == len(folder.pictures):
        raise ValueError(f"No picture can be measured. {left_out[0][0]}: {left_out[0][1]}")
    names = tuple(label.name for label in folder.labels)
    pictures = tuple(picture for _, _, picture in reversed(worst))
    return Comparison(names, tuple(candidates), tuple(figures), pictures, tuple(left_out))


def _readable(
    folder: LabelledFolder,
    leave_out: tuple[type[Exception], ...],
    left_out: list[tuple[str, str]],
) -> Iterator[tuple[str, RGBArray, Truth]]:
    """Read the pictures one by one; those that are left out are added to `left_out`."""

    def read(picture: Readable) -> tuple[RGBArray, Truth] | Exception:
        try:
            return picture.read()
        except leave_out as error:
            return error

    bar = tqdm(read_ahead(read, folder.pictures), total=len(folder.pictures), unit="picture")
    for picture, found in zip(folder.pictures, bar, strict=True):
        if isinstance(found, Exception):
            left_out.append((picture.name, str(found)))
        else:
            yield picture.name, *found


def _drawn(rgb: RGBArray, maps: Sequence[LabelIndices], labels: int) -> tuple[RGBArray, ...]:
    return tuple(thumbnail(rgb, each, palette(labels), _SHOWN_PX) for each in maps)
