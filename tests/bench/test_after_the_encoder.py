"""From scores to regions: processor seconds and memory of each stage, by the size of the picture.

Each figure is of a process of its own, in which the stage has run before, so that nothing is loaded
while it is measured. Drawn scenes, demo model, refined masks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.bench.conftest import Report

STAGES = """
import ctypes, json, resource, sys
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from clearclip_core import SCENE_LABELS, Segmenter, render_scene
from clearclip_core.segmentation.refined_argmax import decide_refined

def memory_mb(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1000

def measured(stage):
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    before, started = memory_mb("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    made = stage()
    ended = resource.getrusage(resource.RUSAGE_SELF)
    s = ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime
    return made, {"s": s, "mb": memory_mb("VmHWM") - before}

megapixels, count = float(sys.argv[1]), int(sys.argv[2])
height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
image = render_scene(3, size_hw=(height, height * 4 // 3)).image
labels = [*SCENE_LABELS, *(f"label {index}" for index in range(count))][:count]
torch.set_num_threads(1)
segmenter = Segmenter.load("demo", device="cpu")
prepared = segmenter.prepare(image)
"""

BLAS = """
scores = segmenter.score(segmenter.encode_batch([prepared])[0], labels)
unguarded = decide_refined.__wrapped__  # as many threads as BLAS takes
kinds = {"ours": (decide_refined, None), "unguarded": (unguarded, None), "one": (unguarded, 1)}
decide_refined(scores, image)
figures = {kind: [] for kind in kinds}
for _ in range(5):
    for kind, (decide, threads) in kinds.items():
        with threadpool_limits(threads, user_api="blas"):
            figures[kind].append(measured(lambda: decide(scores, image))[1]["s"])
figures = {kind: min(seconds) for kind, seconds in figures.items()}
print(json.dumps(figures))
"""

EVERYWHERE = """
from clearclip_core.segmentation.on_device.refined_argmax import decide_refined_on_device

scores = segmenter.score(segmenter.encode_batch([prepared])[0], labels)
paths = {"ours": decide_refined, "everywhere": decide_refined_on_device}
figures = {path: [] for path in paths}
for _ in range(4):
    for path, decide in paths.items():
        figures[path].append(measured(lambda: decide(scores, image))[1]["s"])
ours, everywhere = (decide(scores, image)[0] for decide in paths.values())
figures = {path: min(seconds[1:]) for path, seconds in figures.items()}
figures["other labels"] = int((everywhere.numpy() != ours).sum())
print(json.dumps(figures))
"""

HELD = """
import threading, time
from backend.label_studio.label_config import Control, ControlLabel
from backend.label_studio.region_writer import draw_regions

scores = segmenter.score(segmenter.encode_batch([prepared])[0], labels)
drawn = [ControlLabel(name, name) for name in labels]
brush = Control("brushlabels", "brush", ("image",), tuple(drawn))

def predict():
    made = segmenter.decide(scores, image=image, refine=True)
    least_px = round(0.0005 * made.label_map.size)
    masks = made.label_masks(least_px, least_px)
    for label in masks.labels:
        mean = masks.mean_confidence(label)
        draw_regions(masks.runs(label), made, brush, drawn[label], "image", mean_confidence=mean)

square = torch.rand(2048, 2048)

def product():
    torch.mm(square, square)  # lets other threads run

def beside(work):
    turns, ended = [0], threading.Event()
    def take_turns():
        while not ended.is_set():
            time.sleep(0)  # gives the interpreter away, and asks for it again
            turns[0] += 1
    other = threading.Thread(target=take_turns)
    began = time.perf_counter()
    other.start()
    done = 0
    while time.perf_counter() - began < 3:
        work()
        done += 1
    seconds = time.perf_counter() - began
    ended.set()
    other.join()
    return turns[0] / seconds, seconds / done

predict(), product()
shares, picture_s = [], []
for _ in range(3):
    free, _ = beside(product)
    turns, seconds = beside(predict)
    shares.append(turns / free)
    picture_s.append(seconds)
print(json.dumps({"share": sorted(shares)[1], "s": sorted(picture_s)[1]}))
"""

EACH = """
import cv2
from backend.label_studio.image_loader import decode_image
from backend.label_studio.label_config import Control, ControlLabel
from backend.label_studio.region_writer import draw_regions

cv2.setNumThreads(1)
_, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
content = jpeg.tobytes()
drawn = [ControlLabel(name, name) for name in labels]
brush = Control("brushlabels", "brush", ("image",), tuple(drawn))

def regions_of(masks, made):
    for label in masks.labels:
        mask, mean = masks.runs(label), masks.mean_confidence(label)
        yield draw_regions(mask, made, brush, drawn[label], "image", mean_confidence=mean)

rounds = []
for _ in range(6):
    figures = {}
    _, figures["decode"] = measured(lambda: decode_image(content, 100))
    features, figures["encode"] = measured(lambda: segmenter.encode_batch([prepared])[0])
    scores = segmenter.score(features, labels)
    made, figures["decide and refine"] = measured(
        lambda: segmenter.decide(scores, image=image, refine=True)
    )
    least_px = round(0.0005 * made.label_map.size)
    masks, figures["masks"] = measured(
        lambda: made.label_masks(least_px, least_px)
    )
    _, figures["regions"] = measured(lambda: list(regions_of(masks, made)))
    rounds.append(figures)
    del features, scores, made, masks
rounds = rounds[1:]  # what is loaded and allocated the first time is not of the stage
least = {
    stage: {unit: min(figures[stage][unit] for figures in rounds) for unit in figures[stage]}
    for stage in figures
}
print(json.dumps(least))
"""

FLOORS = """
import hashlib
import cv2, numpy as np
from backend.label_studio.image_loader import decode_image

cv2.setNumThreads(1)
_, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
content = jpeg.tobytes()
scores = segmenter.score(segmenter.encode_batch([prepared])[0], labels)
made = segmenter.decide(scores, image=image, refine=True)
masks = made.label_masks(6000, 6000)
runs = [masks.runs(label) for label in masks.labels]
own = [np.stack([mask.starts, mask.ends]) for mask in runs if mask.area]
some, most = torch.rand(128_000), torch.rand(128_000)
rows = made.label_map.reshape(-1)
line = np.zeros(rows.size, np.float32)
starts = np.flatnonzero(np.diff(rows, prepend=-2))

def pass_over_scores():
    for _ in range(count * rows.size // len(some)):
        torch.maximum(some, most, out=most)

def write_results():
    np.empty(rows.size, np.int16).fill(0)
    np.empty(rows.size, np.float16).fill(0)

def look_at_labels():
    np.flatnonzero(rows[1:] != rows[:-1])
    np.add.reduceat(line, starts)

floors = {
    "decode": lambda: decode_image(content, 100),
    "decode: libjpeg-turbo alone": lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR),
    "decode: libjpeg-turbo, an eighth of the size": lambda: cv2.imdecode(
        jpeg, cv2.IMREAD_REDUCED_COLOR_8
    ),
    "decide: the largest of all labels at all pixels, one step a value": pass_over_scores,
    "decide: results written once": write_results,
    "masks: label map compared, confidence summed": look_at_labels,
    "regions: digest of the runs of each": lambda: [
        hashlib.blake2b(each, digest_size=8).digest() for each in own
    ],
}
rounds = [{name: measured(work)[1]["s"] for name, work in floors.items()} for _ in range(6)]
print(json.dumps({name: min(figures[name] for figures in rounds[1:]) for name in floors}))
"""


def figures_of(stages: str, megapixels: float, labels: int) -> dict[str, Any]:
    """Run stages in a process of its own, with no pool's threads set by the environment."""
    unset = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", STAGES + stages, str(megapixels), str(labels)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    figures: dict[str, Any] = json.loads(made.stdout)
    return figures


@pytest.mark.parametrize("labels", [20, 150])
def test_threads_of_blas(report: Report, labels: int) -> None:
    figures = figures_of(BLAS, 24, labels)
    report.add(
        f"decide and refine with BLAS's default threads over one thread, 24 MP, {labels} labels",
        "≤ 1.1×",
        f"{figures['ours'] / figures['one']:.2f}×",
        f"{figures['ours']:.2f} s of processor; without the guard {figures['unguarded']:.2f} s",
    )


def test_only_labels_that_can_win_are_computed(report: Report) -> None:
    figures = figures_of(EVERYWHERE, 12, 20)
    report.add(
        "all labels refined at all pixels, over those that can win, 12 MP, 20 labels",
        "",
        f"{figures['everywhere'] / figures['ours']:.1f}×",
        f"{figures['everywhere']:.2f} against {figures['ours']:.2f} s of processor; "
        f"{figures['other labels']} pixels have another label",
    )


def test_the_interpreter_is_left_to_other_threads(report: Report) -> None:
    figures = figures_of(HELD, 12, 20)
    held_ms = 1000 * max(0.0, 1 - figures["share"]) * figures["s"]
    report.add(
        "turns that another thread gets beside deciding, masks and regions, over those beside a "
        "product of matrices, 12 MP, 20 labels",
        "held ≤ 30 ms",
        f"{figures['share']:.2f}×",
        f"about {held_ms:.0f} of {1000 * figures['s']:.0f} ms of a picture are held",
    )


def test_what_no_code_here_can_go_below(report: Report) -> None:
    for name, seconds in figures_of(FLOORS, 12, 20).items():
        report.add(
            f"floor of 12 MP, 20 labels, {name}",
            "",
            f"{1000 * seconds:.0f} ms",
            "processor time, the least of five rounds",
        )


@pytest.mark.parametrize("megapixels", [1, 12, 48])
def test_each_stage(report: Report, megapixels: int) -> None:
    figures = figures_of(EACH, megapixels, 20)
    of_48 = {"masks": "< 1 s, < 300 MB", "decide and refine": "< 300 MB"}
    goals = of_48 if megapixels == 48 else {}
    for stage, figure in figures.items():
        report.add(
            f"{stage}, {megapixels} MP, 20 labels",
            goals.get(stage, ""),
            f"{figure['s']:.2f} s, {figure['mb']:.0f} MB",
            "processor seconds; memory above what is there before the stage, its result included; "
            "the least of five rounds",
        )
    beside = sum(figure["s"] for stage, figure in figures.items() if stage != "encode")
    report.add(
        f"all of these beside the encoder, {megapixels} MP, 20 labels",
        "≤ 0.25 s" if megapixels == 12 else "",
        f"{beside:.2f} s",
        "processor seconds, with decoding and without resizing the picture",
    )
