"""Picture -> label map -> masks: ours against a plain implementation of the paper.

The speed of ViT-B/16 does not depend on its weights, so they are random. The number of queries that
are the argmax somewhere depends on the cosines: random words, whose cosines are nearly equal at
random weights, are measured beside words with the cosines' spread of a trained model.
"""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backend.label_studio.brush_rle import encode_runs
from clearclip_core import (
    DenseFeatures,
    RunMask,
    Scores,
    Segmentation,
    Segmenter,
    Vocabulary,
    render_scene,
)
from clearclip_core.segmentation.propagation import propagate
from clearclip_core.segmentation.refined_argmax import decide_refined
from tests.bench.conftest import Report
from tests.bench.corrections import street
from tests.bench.timing import compare
from tests.core.reference import Reference

MODEL = "ViT-B-16/random"
SIZE_HW = (1367, 2048)
#: Over 150 labels, CLIP's cosines of one patch have about this standard deviation.
TRAINED_STD = 0.03
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass
class Bench:
    """One device: a picture, and the model in two precisions beside the reference."""

    device: str

    @cached_property
    def exact(self) -> Segmenter:
        torch.manual_seed(0)
        return Segmenter.load(MODEL, device=self.device, precision="fp32")

    @cached_property
    def auto(self) -> Segmenter:
        torch.manual_seed(0)
        return Segmenter.load(MODEL, device=self.device)

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.exact.model.clip, self.exact.preprocessing)

    @cached_property
    def features(self) -> DenseFeatures:
        return self.exact.encode(image())

    def random_words(self, count: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(count)
        return F.normalize(torch.randn(count, 512, generator=generator), dim=-1)

    def spread_words(self, count: int) -> torch.Tensor:
        """Return embeddings along the patches' main differences, with a trained model's cosines."""
        patches = self.features.patches.float().cpu().reshape(-1, 512)
        different = patches - patches.mean(dim=0)
        generator = torch.Generator().manual_seed(count)
        words = different[torch.randperm(len(different), generator=generator)[:count]]
        return words * (TRAINED_STD / (patches @ words.T).std(dim=1).mean())

    def reference_map(self, words: torch.Tensor) -> np.ndarray:
        owners = range(len(words))
        windows = self.reference.encode(image())
        return self.reference.label_map(windows, words, owners, SIZE_HW, [0.0] * len(words))

    def name(self, segmenter: Segmenter) -> str:
        where = "CPU" if self.device == "cpu" else torch.cuda.get_device_name()
        return f"{where} {str(segmenter.encoder.dtype).removeprefix('torch.')}"


@pytest.fixture(scope="module", params=DEVICES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


@cache
def image(size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    return render_scene(3, size_hw=size_hw).image


def vocabulary(count: int) -> Vocabulary:
    return Vocabulary.of([f"label {index}" for index in range(count)])


def scores(features: DenseFeatures, words: torch.Tensor) -> Scores:
    with torch.inference_mode():
        return Scores.of(features, words, vocabulary(len(words)))


def label_map(segmenter: Segmenter, words: torch.Tensor) -> np.ndarray:
    return scores(segmenter.encode(image()), words).label_map()


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("count", [5, 150])
@pytest.mark.parametrize("kind", ["random", "spread"])
def test_picture_to_label_map(
    report: Report, bench: Bench, precision: str, count: int, kind: str
) -> None:
    segmenter = bench.auto if precision == "auto" else bench.exact
    words = bench.random_words(count) if kind == "random" else bench.spread_words(count)
    goals = {("auto", 5): "5× (4×)", ("auto", 150): "15× (10×)", ("fp32", 150): "4× (3×)"}
    expected, ours = bench.reference_map(words), label_map(segmenter, words)  # and warm up both
    both = (lambda: bench.reference_map(words)), (lambda: label_map(segmenter, words))
    timed = compare(*both, rounds=3, warm_up=False)
    where = f"{bench.name(segmenter)}, {count} labels, {kind} words"
    goal = goals.get((precision, count), "")
    report.add(f"picture → label map, {where}", goal, f"{timed.ratio:.1f}×", f"{timed}")
    if kind == "spread":  # words as long as these also spread the encoder's rounding
        return
    goal = "≥ 99.99 %" if precision == "fp32" else ""
    same = f"{100 * (ours == expected).mean():.3f} %"
    report.add(f"pixels labelled as by the reference, {where}", goal, same, "2048×1367")


def beside_the_encoder(bench: Bench, picture: bytes, words: torch.Tensor) -> int:
    """Measure all stages but the encoder: decoding, resizing, scores, labels, masks, brush RLE."""
    bench.exact.prepare(Image.open(io.BytesIO(picture)))
    made = scores(bench.features, words)
    names = tuple(label.name for label in made.vocabulary.labels)
    pixels = round(0.0001 * SIZE_HW[0] * SIZE_HW[1])
    masks = Segmentation(*made.decide(), names).masks(pixels, pixels)
    return sum(len(encode_runs(RunMask.of(mask))) for mask in masks.values())


@pytest.mark.parametrize("kind", ["random", "spread"])
def test_beside_the_encoder(report: Report, bench: Bench, kind: str) -> None:
    words = bench.random_words(150) if kind == "random" else bench.spread_words(150)
    file = io.BytesIO()
    Image.fromarray(image()).save(file, "JPEG", quality=90)
    prepared = bench.exact.prepare(image())

    def encode() -> None:
        bench.exact.encode_batch([prepared])[0].patches.cpu()  # waits for a GPU

    timed = compare(encode, lambda: beside_the_encoder(bench, file.getvalue(), words))
    report.add(
        f"all beside the encoder, share of its fp32 time, {bench.name(bench.exact)}, 150 labels, "
        f"{kind} words",
        "30 %",
        f"{100 / timed.ratio:.0f} %",
        f"{timed}; JPEG, probabilities, masks and RLE included",
    )


@pytest.mark.parametrize("encoder", ["", "STREET_ENCODER"])
def test_masks_of_photographs(report: Report, encoder: str) -> None:
    """The scores alone, refined, propagated, and both, on half of the photographs of a world."""
    if encoder and encoder not in os.environ:
        pytest.skip(f"set {encoder} to NAME@FILE")
    world = street(os.environ[encoder] if encoder else None)
    words = world.embed(world.vocabulary.queries)
    pictures = list(zip(world.corrected, world.images, strict=True))[::3]

    def measured(refine: bool, spread: bool) -> float:
        decided = []
        for (features, truth), rgb in pictures:
            made = world.scores(features)
            patch_px = made.plan.patch_image_px
            made = propagate(made, rgb, words) if spread else made
            shown = decide_refined(made, rgb, patch_px=patch_px)[0] if refine else made.label_map()
            decided.append((shown, truth))
        return float(world.ious_of(decided).mean())

    plain, refined = measured(False, False), measured(True, False)
    propagated, both = measured(False, True), measured(True, True)
    report.add(
        f"PROPAGATE over REFINE, {world.name}",
        "≥ +1",
        f"{max(propagated, both) - refined:+.1f}",
        f"mIoU {plain:.1f}; REFINE {refined:.1f}, PROPAGATE {propagated:.1f}, both {both:.1f}; "
        f"{len(pictures)} pictures",
    )
    assert max(propagated, both) >= refined + 1


_MEMORY = """
import ctypes, sys
from pathlib import Path
import torch
from PIL import Image
from backend.label_studio.brush_rle import encode_runs
from clearclip_core import RunMask
from clearclip_core import Label, Scores, Segmentation, Segmenter, Vocabulary

def mib(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

segmenter = Segmenter.load("ViT-B-16/random", device="cpu", precision=sys.argv[1])
prompts = int(sys.argv[2])
labels = [Label(f"l{i}", tuple(f"l{i}p{j}" for j in range(prompts))) for i in range(150)]
words = torch.nn.functional.normalize(torch.randn(150 * prompts, 512), dim=-1)
ctypes.CDLL(None).malloc_trim(0)  # what loading left behind would hide what is taken now
Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
before = mib("VmRSS")
image = Image.open(sys.argv[3])
with torch.inference_mode():
    scores = Scores.of(segmenter.encode(image), words, Vocabulary(tuple(labels)))
    made = Segmentation(*scores.decide(), tuple(label.name for label in labels))
print(mib("VmHWM") - before)
sum(len(encode_runs(RunMask.of(mask))) for mask in made.masks(1200, 1200).values())
print(mib("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("prompts", [1, 4])
def test_memory(report: Report, precision: str, prompts: int, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    Image.fromarray(image((3000, 4000))).save(picture, quality=90)
    command = [sys.executable, "-c", _MEMORY, precision, str(prompts), str(picture)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    decided, masked = (float(line) for line in output.split()[-2:])
    report.add(
        f"memory above the loaded model, 4000×3000, 150 labels of {prompts} prompts, CPU "
        f"{precision}",
        "800 MB",
        f"{decided * 1.048576:.0f} MB",
        f"with all masks and RLE {masked * 1.048576:.0f} MB",
    )
