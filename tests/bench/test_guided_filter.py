"""Compare refinement methods: boundary IoU, mIoU and cost on drawn scenes.

Alternatives to the guided filter are implemented here. Time is CPU time of all threads from scores
to label map, as wall time depends on other processes. A larger short side includes the additional
time of the encoder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    Preprocessing,
    Refinement,
    Scene,
    Scores,
    Segmenter,
    boundary_band,
    guided,
    render_scene,
)
from clearclip_core.segmentation.refined_argmax import competing_probabilities, decide_refined
from tests.bench.conftest import Report
from tests.bench.timing import compare

#: Short side of the scenes in px -> number of scenes.
SCENES = {448: 40, 1500: 8}


@dataclass
class Overlap:
    """Intersections and unions of masks and of their boundary bands, over all scenes."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros((4, len(SCENE_LABELS))))
    seconds: float = 0.0
    megapixels: float = 0.0

    def add(self, labels: np.ndarray, truth: np.ndarray) -> None:
        for index in np.union1d(labels, truth):
            ours, true = labels == index, truth == index
            pairs = ((ours, true), (boundary_band(ours), boundary_band(true)))
            for row, (one, other) in enumerate(pairs):
                self.sums[2 * row, index] += (one & other).sum()
                self.sums[2 * row + 1, index] += (one | other).sum()
        self.megapixels += truth.size / 1e6

    @property
    def percent(self) -> tuple[float, float]:
        """Format mIoU and boundary IoU in percent, means over the labels."""
        shares = self.sums[[0, 2]] / np.maximum(self.sums[[1, 3]], 1)
        seen = self.sums[1] > 0
        area, band = (100 * shares[:, seen].mean(axis=1)).tolist()
        return area, band


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load("demo", device="cpu", precision="fp32")


def larger(segmenter: Segmenter, short_side_px: int) -> Segmenter:
    sizes = Preprocessing(segmenter.model.mean, segmenter.model.std, short_side_px, 4096)
    return Segmenter(segmenter.model, preprocessing=sizes)


def scores_of(segmenter: Segmenter, image: np.ndarray) -> Scores:
    return segmenter.score(segmenter.encode(image), SCENE_LABELS)


Candidate = Callable[[Scores, np.ndarray], np.ndarray]


def full_size_guided(scores: Scores, image: np.ndarray) -> np.ndarray:
    """The guided filter of 2013 at full resolution (He, Sun and Tang)."""
    radius = round(3 * scores.plan.patch_image_px)
    side = (2 * radius + 1, 2 * radius + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, side, borderType=cv2.BORDER_REFLECT)

    colours = image.astype(np.float64) / 255
    middle = mean(colours)
    products = colours[..., :, None] * colours[..., None, :]
    covariance = mean(products.reshape(*image.shape[:2], 9)).reshape(products.shape)
    covariance -= middle[..., :, None] * middle[..., None, :]
    inverse = np.linalg.inv(covariance + 1e-4 * np.eye(3))
    places = [np.arange(side, dtype=float) for side in image.shape[:2]]
    maps, owners = competing_probabilities(scores, *places)
    best, labels = np.full(image.shape[:2], -np.inf), np.empty(image.shape[:2], np.int16)
    for each, owner in zip(maps, owners, strict=True):
        level = mean(each.astype(np.float64))
        slopes = mean(colours * each[..., None]) - middle * level[..., None]
        slopes = np.einsum("hwij,hwj->hwi", inverse, slopes)
        offset = mean(level - (slopes * middle).sum(axis=-1))
        refined = (mean(slopes) * colours).sum(axis=-1) + offset
        labels[refined > best] = owner
        np.maximum(best, refined, out=best)
    return labels


def pixel_adaptive(scores: Scores, image: np.ndarray) -> np.ndarray:
    """PAMR (Araslanov and Roth, 2020) on the resized image, as larger ones take minutes."""
    height, width = scores.plan.resized_hw
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    step = image.shape[0] / height, image.shape[1] / width
    places = [(np.arange(n) + 0.5) * s - 0.5 for n, s in zip((height, width), step, strict=True)]
    maps, owners = competing_probabilities(scores, *places)
    values = torch.from_numpy(maps)  # (K, h, w)
    colours = torch.from_numpy(small).permute(2, 0, 1).float() / 255
    around = torch.stack(list(neighbours(colours)))  # (N, 3, h, w)
    spread = torch.cat([colours[None], around]).std(dim=0)
    affinity = (-(around - colours).abs() / (1e-8 + 0.1 * spread)).mean(dim=1).softmax(dim=0)
    for _ in range(10):
        made = torch.zeros_like(values)
        for weight, each in zip(affinity, neighbours(values), strict=True):
            made.addcmul_(weight, each)
        values = made
    labels = owners[values.argmax(dim=0).numpy()]
    size_wh = image.shape[1], image.shape[0]
    return cv2.resize(labels, size_wh, interpolation=cv2.INTER_NEAREST)


def neighbours(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """Return the neighbours of each pixel in 8 directions at 6 dilations, of (C, h, w)."""
    height, width = values.shape[1:]
    for dilation in (1, 2, 4, 8, 12, 24):
        padded = F.pad(values[None], [dilation] * 4, mode="replicate")[0]
        for y, x in product(range(3), repeat=2):
            if (y, x) != (1, 1):
                top, left = y * dilation, x * dilation
                yield padded[:, top : top + height, left : left + width]


CANDIDATES: dict[str, tuple[int, Candidate]] = {
    "none": (448, lambda scores, _: scores.decide()[0]),
    "guided filter, fitted in half patches (chosen)": (
        448,
        lambda scores, image: decide_refined(scores, image)[0],
    ),
    "guided filter at full size": (448, full_size_guided),
    "pixel-adaptive (PAMR, 10 iterations)": (448, pixel_adaptive),
    "short side 672 instead of 448": (672, lambda scores, _: scores.decide()[0]),
    "short side 896 instead of 448": (896, lambda scores, _: scores.decide()[0]),
    "short side 672 and the guided filter": (
        672,
        lambda scores, image: decide_refined(scores, image)[0],
    ),
}
#: Methods that take seconds or gigabytes on large images are measured on small ones.
SMALL_ONLY = {"guided filter at full size"}


@pytest.mark.parametrize("worn", [False, True], ids=["clean", "noise and JPEG"])
@pytest.mark.parametrize("short_px", list(SCENES))
def test_candidates(report: Report, segmenter: Segmenter, short_px: int, worn: bool) -> None:
    count = SCENES[short_px] if not worn else SCENES[short_px] // 2
    segmenters = {448: segmenter, 672: larger(segmenter, 672), 896: larger(segmenter, 896)}
    names = [name for name in CANDIDATES if short_px == 448 or name not in SMALL_ONLY]
    overlaps = {name: Overlap() for name in names}
    for each in segmenters.values():  # the first time, torch makes its plans
        scores_of(each, drawn(0, short_px).image)
    for seed in HELD_OUT_SEEDS[:count]:
        scene = drawn(seed, short_px)
        image = worn_down(scene.image, seed) if worn else scene.image
        made, encoding = {}, {}
        for side, each in segmenters.items():
            started = time.process_time()
            made[side] = scores_of(each, image)
            encoding[side] = time.process_time() - started
        for name in names:
            side, decide = CANDIDATES[name]
            started = time.process_time()
            labels = decide(made[side], image)
            taken = time.process_time() - started + encoding[side] - encoding[448]
            overlaps[name].seconds += taken
            overlaps[name].add(labels, scene.label_map)
    plain_area, plain_band = overlaps["none"].percent
    where = f"{count} scenes of {short_px} px" + (", noise and JPEG" if worn else "")
    for name, overlap in overlaps.items():
        area, band = overlap.percent
        report.add(
            f"refinement: {name}, {where}",
            "1.4× boundary IoU" if "chosen" in name else "",
            f"boundary IoU {band:.1f} ({band / plain_band:.2f}×), mIoU {area:.1f} "
            f"({area - plain_area:+.1f})",
            f"{1000 * overlap.seconds / overlap.megapixels:.0f} ms of processor a megapixel",
        )


def drawn(seed: int, short_px: int) -> Scene:
    return render_scene(seed=seed, size_hw=(short_px, short_px * 4 // 3))


def worn_down(image: np.ndarray, seed: int) -> np.ndarray:
    """Add a sensor's noise of 4 grey levels, then compress as JPEG of quality 80."""
    noise = np.random.default_rng(seed).normal(0, 4, image.shape)
    noisy = np.clip(image + noise, 0, 255).round().astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("size_hw", [(448, 597), (1500, 2000), (3000, 4000)])
@pytest.mark.parametrize("model", ["demo fp32", "ViT-B-16/random fp32", "ViT-B-16/random bf16"])
def test_time_a_picture(report: Report, model: str, size_hw: tuple[int, int]) -> None:
    name, precision = model.split()
    encoder = Segmenter.load(name, device="cpu", precision=precision)
    demo = Segmenter.load("demo", device="cpu", precision="fp32")
    image = render_scene(3, size_hw=size_hw).image
    scores = scores_of(demo, image)  # a trained model's: how much competes where depends on them

    def picture(refine: bool) -> None:
        encoder.encode(image)
        demo.decide(scores, 0.2, image, refine)

    timed = compare(lambda: picture(False), lambda: picture(True), rounds=5)
    report.add(
        f"time a picture with refinement, {model}, {size_hw[1]}×{size_hw[0]}",
        "≤ 1.25×",
        f"{1 / timed.ratio:.2f}×",
        f"{timed}",
    )


_MEMORY = """
import ctypes, sys
from pathlib import Path
import numpy as np
import torch
from clearclip_core import Scores, Segmenter, Vocabulary, render_scene

def mib(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

segmenter = Segmenter.load("ViT-B-16/random", device="cpu", precision="fp32")
image = render_scene(3, size_hw=(3000, 4000)).image
words = Vocabulary.of([f"label {index}" for index in range(150)])
queries = torch.nn.functional.normalize(torch.randn(150, 512), dim=-1)
ctypes.CDLL(None).malloc_trim(0)  # what loading left behind would hide what is taken now
Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
before = mib("VmRSS")
with torch.inference_mode():
    scores = Scores.of(segmenter.encode(image), queries, words)
    made = segmenter.decide(scores, 0.0, image, refine=True)
print(mib("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory(report: Report) -> None:
    """Measure the worst case: at random weights all 150 labels have similar probabilities."""
    command = [sys.executable, "-c", _MEMORY]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report.add(
        "memory above the loaded model and the picture, refined, 4000×3000, 150 labels, CPU fp32",
        "800 MB",
        f"{float(output) * 1.048576:.0f} MB",
    )


def test_kornia(report: Report, segmenter: Segmenter) -> None:
    """Compare with kornia's guided filter on the competing labels of one small image."""
    filters = pytest.importorskip("kornia.filters", reason="pip install kornia to compare")
    image = drawn(HELD_OUT_SEEDS[0], 448).image
    scores = scores_of(segmenter, image)
    patch_px = scores.plan.patch_image_px
    maps, _ = competing_probabilities(scores, *(np.arange(n, dtype=float) for n in image.shape[:2]))
    guide = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    values = torch.from_numpy(maps)[None]
    side = 6 * round(patch_px) + 1
    timed = compare(
        lambda: filters.guided_blur(guide, values, side, 1e-4, subsample=4),
        lambda: guided(image, maps, patch_px, Refinement(radius_patches=3.0)),
        rounds=3,
    )
    report.add(
        f"guided filter of {len(maps)} maps, 597×448, against kornia's (subsample 4)",
        "",
        f"{timed.ratio:.0f}×",
        f"{timed}",
    )
