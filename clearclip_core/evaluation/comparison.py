"""Compare candidates on a folder of labelled pictures: figures, text, JSON and a page."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import jinja2
import numpy as np
from tqdm import tqdm

from clearclip_core.evaluation.benchmarks import LabelledPicture
from clearclip_core.evaluation.metrics import LabelIndices, MaskOverlap, mask_overlaps
from clearclip_core.evaluation.results import format_percent, markdown
from clearclip_core.images.drawing import palette, thumbnail
from clearclip_core.images.files import find_images
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth, pair_files
from clearclip_core.images.opening import read_rgb, to_data_url
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.quantities import quantity
from clearclip_core.segmentation.runs import BoolMask
from clearclip_core.thread_pools import read_ahead
from clearclip_core.vocabulary import Label, MapNames, Vocabulary

if TYPE_CHECKING:  # torch
    from clearclip_core.adaptation.fitting import HeldOutAdaptations
    from clearclip_core.segmentation.scores import Scores
    from clearclip_core.segmentation.windows import DenseFeatures
    from clearclip_core.segmenter import Segmenter


@dataclass(frozen=True)
class PredictionRule:
    """How masks are made of scores."""

    contrast: bool = True
    refine: bool = True
    #: Of each label; pixels with a lower probability get no label. A label whose threshold is 1 is
    #: never predicted, as in the backend. Empty: 0 for all.
    threshold: tuple[float, ...] = ()
    #: Parts of a mask, and holes in it, that are smaller than this share of the image are dropped
    #: or filled.
    min_island_share: float = 0.0005
    propagate: bool = False  # scores are drawn together where the image has no edge, before that
    regions: bool = False  # regions of the segmenter's click model vote, where it has one


AS_BACKEND: Final = PredictionRule()  # the backend's defaults
#: The paper's protocol.
AS_PAPER: Final = PredictionRule(contrast=False, refine=False, min_island_share=0.0)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model, a method and prompts."""

    segmenter: Segmenter  # of the model and the method. Candidates that share it share its features
    labels: tuple[Label, ...]
    model: str
    prompts: str
    rule: PredictionRule = AS_BACKEND
    learned: HeldOutAdaptations | None = None  # what is added to the words' scores, by image
    encode_by: Callable[[RGBArray], DenseFeatures] | None = None  # None: by the segmenter itself

    @property
    def name(self) -> tuple[str, str, str]:
        """Model, method and prompts."""
        return self.model, str(self.segmenter.method), self.prompts

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The labels and, where the rule has them, contrast words."""
        return self.segmenter.vocabulary(self.labels, self.rule.contrast)

    def encode(self, rgb: RGBArray) -> DenseFeatures:
        """Encode an image, (H, W, 3) uint8 RGB."""
        return (self.encode_by or self.segmenter.encode)(rgb)

    def embed(self) -> None:
        """Embed the words, so that no image's time includes it."""
        self.segmenter.embed(self.vocabulary.queries)

    def masks(self, features: Any, rgb: RGBArray, image: str = "") -> dict[int, BoolMask]:
        """Predict the masks of an image from its features: index of the label -> (H, W) bool."""
        adaptation = None if self.learned is None else self.learned.of(image)
        scores = self.segmenter.score(features, self.vocabulary, adaptation=adaptation)
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
    thresholds = rule.threshold or (0.0,) * len(labels)
    if rule.regions and segmenter.click_model is not None:
        from clearclip_core.prompting.regions import regions_of  # torch

        voted = regions_of(segmenter.click_model, rgb).vote(
            segmenter.decide(scores, 0.0, rgb, rule.refine, rule.propagate)
        )
        made = voted.above(dict(zip(voted.labels, thresholds, strict=True)))
    else:
        made = segmenter.decide(scores, thresholds, rgb, rule.refine, rule.propagate)
    min_px = round(rule.min_island_share * made.label_map.size)
    index = {label.name: number for number, label in enumerate(labels)}
    masks = made.masks(min_px, min_px)
    return {index[name]: mask for name, mask in masks.items() if thresholds[index[name]] < 1}


def predict_all(
    candidates: Sequence[Candidate], rgb: RGBArray, image: str = ""
) -> Iterator[tuple[dict[int, BoolMask], float]]:
    """Predict an image with each candidate; those of one segmenter encode it once.

    Args:
        candidates: their words are embedded already, see `Candidate.embed`.
        rgb: (H, W, 3) uint8.
        image: name of the image, by which candidates find what was learned without it.

    Yields:
        The masks of each candidate, index of the label -> (H, W) bool, and the seconds from the
        image in memory to them, the encoder's included.
    """
    encoded: dict[int, tuple[Any, float]] = {}
    for candidate in candidates:
        key = id(candidate.segmenter)
        if key not in encoded:
            began = time.perf_counter()
            features = candidate.encode(rgb)
            encoded[key] = features, time.perf_counter() - began
        features, encoding_s = encoded[key]
        began = time.perf_counter()
        masks = candidate.masks(features, rgb, image)
        yield masks, encoding_s + time.perf_counter() - began


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


CLOSE_IOU: Final = 0.9  # IoU from which a mask would be submitted as it is
_BY_CHANCE: Final = 0.05  # how likely a choice by chance may be that a comparison does not warn of
SHOWN: Final = 12  # how many of the worst pictures a page shows
_SHOWN_PX = 480  # their long side


class Shares(NamedTuple):
    """Means of masks; None where there is nothing to divide by."""

    iou: float | None
    boundary_iou: float | None
    saved_paint: float | None
    close_share: float | None  # share of the predicted masks with an IoU of at least 0.9


def shares_of(overlaps: Sequence[MaskOverlap]) -> Shares:
    """Return the shares of the masks of one label, or of all, on all pictures."""
    total = sum(overlaps, MaskOverlap())
    predicted = [each for each in overlaps if each.predicted_px]
    close = sum((each.iou or 0) >= CLOSE_IOU for each in predicted)
    close_share = close / len(predicted) if predicted else None
    return Shares(total.iou, total.boundary_iou, total.saved_paint, close_share)


class CandidateFigures:
    """How well a candidate predicted the labels."""

    def __init__(self, labels: int) -> None:
        # Of each label the overlaps on the pictures where it was predicted or is true.
        self.labels: list[list[MaskOverlap]] = [[] for _ in range(labels)]
        self.pictures: list[Sequence[MaskOverlap]] = []  # of each picture those of all labels
        self.wrong_px: list[int] = []  # of each picture, to paint and to erase
        self.seconds: list[float] = []  # of each picture, from the picture in memory to its masks

    def add(self, overlaps: Sequence[MaskOverlap], seconds: float) -> None:
        """Add a picture: the overlap of each label, and its time."""
        for found, overlap in zip(self.labels, overlaps, strict=True):
            if overlap.iou is not None:
                found.append(overlap)
        self.pictures.append(overlaps)
        self.wrong_px.append(sum(overlaps, MaskOverlap()).wrong_px)
        self.seconds.append(seconds)

    @property
    def shares(self) -> Shares:
        """Means over the labels of their IoU and boundary IoU; the others of all labels."""
        ious, boundary_ious, *_ = zip(*map(shares_of, self.labels), strict=True)
        every = list(itertools.chain.from_iterable(self.labels))
        return Shares(_mean(ious), _mean(boundary_ious), *shares_of(every)[2:])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The candidates with their figures, and the pictures with most wrong pixels."""

    labels: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    figures: tuple[CandidateFigures, ...]
    #: Name of each picture, and captions and (h, w, 3) uint8 images of at most 480 px: the picture,
    #: its truth and each candidate's prediction.
    worst: tuple[tuple[str, Mapping[str, RGBArray]], ...]
    left_out: tuple[tuple[str, str], ...] = ()  # name and reason of each that could not be read

    @property
    def best(self) -> int:
        """Index of the candidate that saves most paint; the first of equals."""
        shares = (figures.shares.saved_paint for figures in self.figures)
        saved = [-math.inf if share is None else share for share in shares]
        return saved.index(max(saved))

    @property
    def doubt(self) -> str:
        """Why the best may be no better than the first, as a sentence; "" where it is (P < 5 %)."""
        from scipy.stats import binomtest  # takes a second, which no help needs

        pairs = list(zip(self.figures[self.best].wrong_px, self.figures[0].wrong_px, strict=True))
        better, differ = sum(a < b for a, b in pairs), sum(a != b for a, b in pairs)
        if not differ or binomtest(better, differ).pvalue < _BY_CHANCE:
            return ""
        return (
            f"The best leaves less to do than the first on {better} of "
            f"{quantity(differ, 'picture')} on which they differ: that may be chance. Measure with "
            "more pictures before you change anything."
        )

    @property
    def size(self) -> str:
        """Number of pictures and labels, for people."""
        pictures = quantity(len(self.figures[0].seconds), "picture")
        return f"{pictures}, {quantity(len(self.labels), 'label')}"


def compare(
    folder: LabelledFolder,
    candidates: Sequence[Candidate],
    shown: int = 0,
    leave_out: tuple[type[Exception], ...] = (),
    *,
    shows_progress: bool = True,
) -> Comparison:
    """Predict all pictures with each candidate and compare the masks with the truth.

    Args:
        candidates: the candidates, with one label for each of the folder's.
        shown: number of worst pictures to keep: those with the largest share of pixels to paint or
            erase, on average over the candidates.
        leave_out: errors of a picture for which it is left out; others end the comparison.
        shows_progress: whether a bar shows the progress.

    Raises:
        LayoutError: a picture cannot be read, or does not fit its label map.
        ValueError: all pictures are left out.
    """
    for candidate in candidates:
        candidate.embed()

    count = len(folder.labels)
    figures = [CandidateFigures(count) for _ in candidates]
    worst = _WorstImages(shown, count)
    left_out: list[tuple[str, str]] = []
    for picture, content in _read_all(folder, leave_out, shows_progress):
        if isinstance(content, Exception):
            left_out.append((picture.name, str(content)))
            continue

        rgb, truth = content
        maps: dict[str, LabelIndices] = {}
        predicted = predict_all(candidates, rgb, picture.name)  # one candidate's masks at once
        for candidate, each, (masks, seconds) in zip(candidates, figures, predicted, strict=True):
            overlaps = mask_overlaps(masks, truth, count)
            each.add(overlaps, seconds)
            maps[_caption(candidate, overlaps)] = _label_map(masks, truth)

        wrong_px = fmean(each.wrong_px[-1] for each in figures)
        worst.add(picture.name, rgb, truth, maps, wrong_px)

    if left_out and len(left_out) == len(folder.pictures):
        name, reason = left_out[0]
        raise ValueError(f"No picture can be measured. {name}: {reason}")
    return Comparison(
        labels=tuple(label.name for label in folder.labels),
        candidates=tuple(candidates),
        figures=tuple(figures),
        worst=worst.drawn(),
        left_out=tuple(left_out),
    )


class _WorstImages:
    """The images with the largest share of pixels to paint or erase, drawn.

    Args:
        limit: number of images that are kept.
        labels: number of labels.
    """

    def __init__(self, limit: int, labels: int) -> None:
        self._limit = limit
        self._labels = labels
        self._kept: list[tuple[float, str, Mapping[str, RGBArray]]] = []  # the worst first

    def add(
        self,
        name: str,
        rgb: RGBArray,
        truth: Truth,
        maps: Mapping[str, LabelIndices],
        wrong_px: float,
    ) -> None:
        """Draw an image and keep it where it is among the worst; of equals the earlier ones are.

        Args:
            name: name of the image.
            rgb: (H, W, 3) uint8.
            truth: (H, W) uint8 label indices.
            maps: predicted label indices (H, W) int16 by their caption.
            wrong_px: pixels to paint or erase, the mean over the predictions.
        """
        share = wrong_px / max(1, np.count_nonzero(truth != IGNORE))
        is_full = len(self._kept) == self._limit
        if is_full and (not self._kept or share <= self._kept[-1][0]):
            return

        self._kept.append((share, name, _drawn(rgb, truth, maps, self._labels)))
        self._kept.sort(key=lambda kept: -kept[0])
        del self._kept[self._limit :]

    def drawn(self) -> tuple[tuple[str, Mapping[str, RGBArray]], ...]:
        """Return the name of each image and its drawings by their caption, the worst first."""
        return tuple((name, drawings) for _, name, drawings in self._kept)


def _caption(candidate: Candidate, overlaps: Sequence[MaskOverlap]) -> str:
    """Say which candidate has predicted an image, and how much paint it saves there."""
    total = sum(overlaps, MaskOverlap())
    return f"{_title(candidate)}; saved paint {format_percent(total.saved_paint)}"


def learn_held_out(
    folder: LabelledFolder,
    candidate: Candidate,
    leave_out: tuple[type[Exception], ...] = (),
    *,
    shows_progress: bool = True,
) -> HeldOutAdaptations:
    """Learn from the label maps of a folder as from corrections, without each image in turn.

    Args:
        folder: the images and their label maps; all of them are encoded.
        candidate: whose features and words are learned with.
        leave_out: as in `compare`.
        shows_progress: as in `compare`.

    Returns:
        What is learned of the other images, by name; nothing where the gate lets nothing pass.
    """
    from clearclip_core.adaptation.example import Example
    from clearclip_core.adaptation.fitting import HeldOutAdaptations, adapt

    names = [label.name for label in folder.labels]
    examples = []
    for picture, content in _read_all(folder, leave_out, shows_progress):
        if isinstance(content, Exception):
            continue
        rgb, truth = content
        masks = {name: truth == index for index, name in enumerate(names)}
        features = candidate.encode(rgb)
        examples.append(Example.of(features, masks, names, picture.name))

    fit = adapt(examples, candidate.segmenter.embed, candidate.vocabulary)
    return HeldOutAdaptations() if fit.adaptation is None else fit.held_out


def learn_unlabelled(images: Path, candidate: Candidate) -> HeldOutAdaptations:
    """Learn from images that nobody has labelled, at most `UnlabelledFit.MOST`, taken evenly.

    Args:
        images: folder of images, in folders below it or not.
        candidate: whose features and words are learned with.

    Returns:
        What is learned, for all images alike.

    Raises:
        ValueError: too few of them differ.
    """
    from clearclip_core.adaptation.example import Example
    from clearclip_core.adaptation.fitting import HeldOutAdaptations
    from clearclip_core.adaptation.unlabelled import UnlabelledFit, adapt_unlabelled

    files = find_images([str(images)])
    count = min(len(files), UnlabelledFit.MOST)
    paths = [files[index * len(files) // count] for index in range(count)]

    segmenter = candidate.segmenter
    known = [label.name for label in candidate.labels]
    examples = [
        Example.of(segmenter.encode(read_rgb(path)), {}, known, path.name)
        for path in tqdm(paths, unit="picture")
    ]
    fit = adapt_unlabelled(examples, segmenter.embed, candidate.vocabulary)
    if fit.adaptation is None:
        raise ValueError(
            f"Expected {images} to have {UnlabelledFit.FEWEST} pictures that differ, but it has "
            f"{fit.images}."
        )
    return HeldOutAdaptations(others=fit.adaptation)


def _read_all(
    folder: LabelledFolder, leave_out: tuple[type[Exception], ...], shows_progress: bool
) -> Iterator[tuple[Readable, tuple[RGBArray, Truth] | Exception]]:
    def read(picture: Readable) -> tuple[RGBArray, Truth] | Exception:
        try:
            return picture.read()
        except leave_out as error:
            return error

    pictures = folder.pictures
    contents = read_ahead(read, pictures)
    yield from tqdm(
        zip(pictures, contents, strict=True),
        total=len(pictures),
        unit="picture",
        disable=not shows_progress,
    )


def _drawn(
    rgb: RGBArray, truth: Truth, maps: Mapping[str, LabelIndices], labels: int
) -> dict[str, RGBArray]:
    """Draw an image, its truth and predicted label maps over it, each by its caption."""
    true = np.where(truth >= NOTHING, -1, truth.astype(np.int16))
    every = {"picture": np.full_like(true, -1), "truth": true, **maps}
    colours = palette(labels)
    return {each: thumbnail(rgb, shown, colours, _SHOWN_PX) for each, shown in every.items()}


def _label_map(masks: Mapping[int, BoolMask], truth: Truth) -> LabelIndices:
    """Return the (H, W) label indices of masks, -1 for no label."""
    made = np.full(truth.shape, -1, np.int16)
    for index, mask in masks.items():
        made[mask] = index
    return made


#: Columns of the tables; the page says what they mean.
_COLUMNS: Final = ("IoU", "boundary IoU", "saved paint", "IoU ≥ 0.9")


def comparison_page(comparison: Comparison) -> bytes:
    """Return a comparison as an HTML page, with the worst pictures side by side.

    Nothing is loaded or run but what stands in the page.
    """
    template = (files(__package__) / "comparison.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True).from_string(template)
    best = comparison.candidates[comparison.best]
    colours = map(tuple, palette(len(comparison.labels)).tolist())
    pictures = [
        (name, [(to_data_url(image), caption) for caption, image in drawn.items()])
        for name, drawn in comparison.worst
    ]

    content = page.render(
        size=comparison.size,
        left_out=len(comparison.left_out),
        candidates=_candidate_rows(comparison),
        doubt=comparison.doubt,
        best=_title(best),
        labels=_label_rows(comparison),
        key=list(zip(comparison.labels, colours, strict=True)),
        pictures=pictures,
    )
    return content.encode()


def _title(candidate: Candidate) -> str:
    return ", ".join(candidate.name)


def _candidate_rows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of all candidates, with their header."""
    rows = [["model", "method", "prompts", *_COLUMNS, "s a picture"]]
    for each, figures in zip(comparison.candidates, comparison.figures, strict=True):
        shares = map(format_percent, figures.shares)
        rows.append([*each.name, *shares, f"{median(figures.seconds):.2f}"])
    return rows


def _label_rows(comparison: Comparison) -> list[list[str]]:
    """Return the rows of all labels of the best candidate, with their header."""
    rows = [["label", "pictures", *_COLUMNS]]
    best = comparison.figures[comparison.best]
    for name, each in zip(comparison.labels, best.labels, strict=True):
        rows.append([name, str(len(each)), *map(format_percent, shares_of(each))])
    return rows


_NAMED = 5  # pictures that could not be read and that are named with the reason


def comparison_text(comparison: Comparison) -> str:
    """Format a comparison for the terminal: the candidates, then the labels of the best."""
    from clearclip_core.devices import device_name  # torch

    device = device_name(comparison.candidates[0].segmenter.encoder.device)
    lines = [
        f"{comparison.size}, in percent, on {device}",
        "",
        markdown(*_candidate_rows(comparison)),
        "",
    ]
    if comparison.doubt:
        lines += [comparison.doubt, ""]

    best = comparison.candidates[comparison.best]
    lines += [f"by label: {_title(best)}", "", markdown(*_label_rows(comparison))]

    if left_out := comparison.left_out:
        lines += ["", f"pictures left out: {len(left_out)}"]
        lines += [f"{name}: {reason}" for name, reason in left_out[:_NAMED]]
    if len(left_out) > _NAMED:
        lines.append(f"and {len(left_out) - _NAMED} more")
    return "\n".join(lines)


def comparison_json(comparison: Comparison) -> bytes:
    """Return a comparison as JSON: an entry for each candidate, and the images left out.

    Shares are fractions, not percent, and null where there is nothing to divide by.
    """
    pairs = zip(comparison.candidates, comparison.figures, strict=True)
    content = {
        "pictures": len(comparison.figures[0].seconds),
        "left_out": [{"name": name, "reason": reason} for name, reason in comparison.left_out],
        "runs": [_run(comparison.labels, candidate, figures) for candidate, figures in pairs],
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _run(labels: Sequence[str], candidate: Candidate, figures: CandidateFigures) -> dict[str, Any]:
    by_label = {
        name: {"pictures": len(overlaps), **shares_of(overlaps)._asdict()}
        for name, overlaps in zip(labels, figures.labels, strict=True)
    }
    model, method, prompts = candidate.name
    return {
        "model": model,
        "method": method,
        "prompts": prompts,
        **figures.shares._asdict(),
        "seconds_per_picture": median(figures.seconds),
        "labels": by_label,
    }
