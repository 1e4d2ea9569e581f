"""Compare candidates on a folder of labelled pictures."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from clearclip_core.evaluation.candidate import Candidate, predict_all
from clearclip_core.evaluation.labelled_folder import LabelledFolder
from clearclip_core.evaluation.mask_overlap import MaskOverlap
from clearclip_core.evaluation.runner import Readable, read_ahead
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.preprocessing import RGBArray

#: IoU from which a mask would be submitted as it is.
ACCEPTED_IOU: Final = 0.9

#: Long side in px of the pictures that are kept to be shown.
_SHOWN_PX = 480

LabelMap = npt.NDArray[np.int16]


@dataclass(frozen=True)
class LabelFigures:
    """How well one label was predicted, or all labels together.

    Attributes:
        overlap: sums over all pictures.
        pictures: pictures where it was predicted or is true.
        predicted: pictures where it was predicted.
        accepted: pictures where it was predicted with an IoU of at least 0.9.
    """

    overlap: MaskOverlap = field(default_factory=MaskOverlap)
    pictures: int = 0
    predicted: int = 0
    accepted: int = 0

    @classmethod
    def of(cls, overlap: MaskOverlap) -> LabelFigures:
        """Return the figures of one picture."""
        iou = overlap.iou
        predicted = overlap.predicted_px > 0
        accepted = predicted and iou is not None and iou >= ACCEPTED_IOU
        return cls(overlap, int(iou is not None), int(predicted), int(accepted))

    def __add__(self, other: LabelFigures) -> LabelFigures:
        """Add the figures of other pictures."""
        return LabelFigures(
            self.overlap + other.overlap,
            self.pictures + other.pictures,
            self.predicted + other.predicted,
            self.accepted + other.accepted,
        )

    @property
    def accepted_share(self) -> float | None:
        """Share of the predicted masks that were accepted; None where none was predicted."""
        return self.accepted / self.predicted if self.predicted else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {
            "pictures": self.pictures,
            "iou": self.overlap.iou,
            "boundary_iou": self.overlap.boundary_iou,
            "saved_paint": self.overlap.saved_paint,
            "predicted": self.predicted,
            "accepted": self.accepted,
            "predicted_px": self.overlap.predicted_px,
            "true_px": self.overlap.true_px,
            "shared_px": self.overlap.shared_px,
        }


@dataclass(frozen=True, eq=False)
class CandidateFigures:
    """How well a candidate predicted.

    Attributes:
        labels: figures of each label.
        seconds: time of each picture, from the picture in memory to its masks.
    """

    labels: tuple[LabelFigures, ...]
    seconds: tuple[float, ...] = ()

    def added(self, overlaps: Sequence[MaskOverlap], seconds: float) -> CandidateFigures:
        """Add a picture: the overlap of each label, and its time."""
        pairs = zip(self.labels, overlaps, strict=True)
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
    """A picture with its truth and what was predicted, reduced to at most 480 px.

    Attributes:
        name: its name.
        image: (h, w, 3) uint8.
        truth: (h, w) label indices, -1 for no label and for pixels that are not counted.
        predicted: what each candidate predicted, (h, w) label indices each.
        figures: of all labels on this picture, for each candidate.
    """

    name: str
    image: RGBArray
    truth: LabelMap
    predicted: tuple[LabelMap, ...]
    figures: tuple[LabelFigures, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The candidates with their figures, and the pictures with most wrong pixels.

    Attributes:
        labels: names of the labels.
        candidates: the candidates.
        figures: the figures of each.
        worst: the worst pictures, the worst first.
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


def overlaps(masks: dict[int, Any], truth: Truth, labels: int) -> list[MaskOverlap]:
    """Compare the masks of each label with the truth, without the pixels that are not counted.

    Args:
        masks: index of the label -> (H, W) bool.
        truth: (H, W) label indices, 255 for pixels that are not counted.
        labels: number of labels.
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
        folder: the pictures.
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
    for number, picture in enumerate(_predicted(folder, candidates, leave_out, left_out)):
        for place, (found, seconds) in enumerate(picture.found):
            figures[place] = figures[place].added(found, seconds)
        heapq.heappush(worst, (picture.wrong_share, -number, picture.shown))
        if len(worst) > shown:
            heapq.heappop(worst)
    if left_out and len(left_out) == len(folder.pictures):
        raise ValueError(f"No picture can be measured. {left_out[0][0]}: {left_out[0][1]}")
    ordered = sorted(worst, key=lambda entry: entry[:2], reverse=True)
    names = tuple(label.name for label in folder.labels)
    pictures = tuple(picture for _, _, picture in ordered)
    return Comparison(names, tuple(candidates), tuple(figures), pictures, tuple(left_out))


@dataclass(frozen=True, eq=False)
class _Measured:
    """A picture with each candidate's overlaps and seconds."""

    shown: ShownPicture
    found: list[tuple[list[MaskOverlap], float]]
    wrong_share: float


@dataclass(frozen=True)
class _Attempt:
    """A picture that is read; an error for which it is left out is returned."""

    picture: Readable
    leave_out: tuple[type[Exception], ...]

    def read(self) -> tuple[RGBArray, Truth] | Exception:
        try:
            return self.picture.read()
        except self.leave_out as error:
            return error


def _predicted(
    folder: LabelledFolder,
    candidates: Sequence[Candidate],
    leave_out: tuple[type[Exception], ...],
    left_out: list[tuple[str, str]],
) -> Iterator[_Measured]:
    """Measure the pictures one by one; those that are left out are added to `left_out`."""
    count = len(folder.labels)
    attempts = [_Attempt(picture, leave_out) for picture in folder.pictures]
    bar = tqdm(read_ahead(attempts), total=len(attempts), unit="picture")
    for picture, read in zip(folder.pictures, bar, strict=True):
        if isinstance(read, Exception):
            left_out.append((picture.name, str(read)))
            continue
        rgb, truth = read
        found, maps = [], []
        for made in predict_all(candidates, rgb):  # large masks exist for one candidate at a time
            found.append((overlaps(made.masks, truth, count), made.seconds))
            maps.append(_reduced(made.label_map((truth.shape[0], truth.shape[1]))))
        sums = tuple(LabelFigures.of(sum(some, MaskOverlap())) for some, _ in found)
        wrong = [figures.overlap.wrong_px for figures in sums]
        share = fmean(wrong) / max(1, np.count_nonzero(truth != IGNORE))
        true = np.where(truth >= NOTHING, -1, truth.astype(np.int16))
        image = _reduced(rgb, cv2.INTER_AREA)
        shown = ShownPicture(picture.name, image, _reduced(true), tuple(maps), sums)
        yield _Measured(shown, found, share)


def _reduced(image: npt.NDArray[Any], method: int = cv2.INTER_NEAREST) -> Any:
    """Reduce an image or a label map to at most 480 px."""
    height, width = image.shape[:2]
    factor = _SHOWN_PX / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=method)
