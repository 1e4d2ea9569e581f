"""Masks from clicks, boxes and words: IoU by a simulated annotator, and speed.

The annotator asks for each thing of a drawn scene that is larger than four patches: a connected
part of one label. The first click is at its centre, the point farthest from its border; the next
ones at the centre of the largest error, positive where something is missed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import cache, partial

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    BoolMask,
    DenseFeatures,
    Point,
    Scene,
    Scores,
    Segmenter,
    Vocabulary,
    render_scene,
    segment_box,
    segment_points,
)
from tests.bench.conftest import Report
from tests.bench.timing import seconds

SCENES = 200
#: Sizes in px, and the number of scenes of each.
SIZES = {(448, 597): SCENES, (896, 1194): 20}
LEAST_PATCHES = 4
CLICKS = 3


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load("demo", device="cpu", precision="fp32")


def parts(mask: BoolMask) -> Iterator[BoolMask]:
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        yield np.asarray(numbers == number)


def things(scene: Scene) -> Iterator[tuple[int, BoolMask]]:
    """Label and mask of each thing that is larger than four patches at a short side of 448 px."""
    least_px = LEAST_PATCHES * (16 * scene.label_map.shape[0] / 448) ** 2
    for label in np.unique(scene.label_map).tolist():
        for part in parts(scene.label_map == label):
            if part.sum() > least_px:
                yield label, part


def centre(mask: BoolMask, positive: bool = True) -> Point:
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return Point(float(x) + 0.5, float(y) + 0.5, positive)


def correction(mask: BoolMask, truth: BoolMask) -> Point | None:
    """Return a click at the centre of the largest error; None where the mask is exact."""
    errors = [(part, True) for part in parts(truth & ~mask)]
    errors += [(part, False) for part in parts(mask & ~truth)]
    if not errors:
        return None
    return centre(*max(errors, key=lambda error: int(error[0].sum())))


def iou(mask: BoolMask, truth: BoolMask) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def clicked(
    features: DenseFeatures, scores: Scores, scene: Scene, label: int, points: list[Point]
) -> BoolMask:
    return segment_points(features, scores, label, points, scene.image).mask


PromptRequest = Callable[[list[Point]], BoolMask]


def after_clicks(ask: PromptRequest, truth: BoolMask) -> list[float]:
    """Return the IoU after each click."""
    points, found = [centre(truth)], []
    for _ in range(CLICKS):
        mask = ask(points)
        found.append(iou(mask, truth))
        following = correction(mask, truth)
        points += [following] if following else []
    return found


def bounding_box(mask: BoolMask) -> tuple[float, float, float, float]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height


def add_ious(report: Report, what: str, found: list[float], goal: str, detail: str) -> None:
    spread = np.percentile(found, [10, 50])
    detail += f", {len(found)} answers, a tenth below {spread[0]:.2f}, median {spread[1]:.2f}"
    report.add(f"mean IoU after {what}", goal, f"{np.mean(found):.3f}", detail)


@pytest.mark.parametrize("size_hw", SIZES, ids="{0[0]}x{0[1]}".format)
def test_quality_of_prompted_masks(
    report: Report, segmenter: Segmenter, size_hw: tuple[int, int]
) -> None:
    clicks: list[list[float]] = []
    boxes: list[float] = []
    words: list[float] = []
    unknown: list[float] = []
    for seed in HELD_OUT_SEEDS[: SIZES[size_hw]]:
        scene = render_scene(seed, size_hw)
        features = segmenter.encode(scene.image)
        scores = segmenter.score(features, SCENE_LABELS)
        shown = set(np.unique(scene.label_map).tolist())
        absent = next(label for label in range(len(SCENE_LABELS)) if label not in shown)
        ask = partial(clicked, features, scores, scene)
        for label, truth in things(scene):
            clicks.append(after_clicks(partial(ask, label), truth))
            unknown.append(iou(ask(absent, [centre(truth)]), truth))
            box = bounding_box(truth)
            boxes.append(iou(segment_box(features, scores, label, box, scene.image).mask, truth))
        refined = segmenter.decide(scores, image=scene.image, refine=True).label_map
        for label in {label for label, _ in things(scene)}:
            words.append(iou(refined == label, scene.label_map == label))
    size = f"{size_hw[1]} x {size_hw[0]} px"
    detail = f"demo model, {SIZES[size_hw]} drawn scenes"
    goals = ["0.70 (0.60)", "", "0.80 (0.70)"]
    for count, goal in enumerate(goals, start=1):
        found = [each[count - 1] for each in clicks]
        add_ious(report, f"{count} click{'s' if count > 1 else ''}, {size}", found, goal, detail)
    add_ious(report, f"a box, {size}", boxes, "0.80 (0.70)", detail)
    add_ious(report, f"words, all pixels of a label, {size}", words, "", detail)
    other = "1 click with a label that is not in the picture"
    add_ious(report, f"{other}, {size}", unknown, "", detail)


@cache
def picture(size_hw: tuple[int, int]) -> np.ndarray:
    """Draw an image of at most a megapixel and enlarge it to a size."""
    shrunken = tuple(min(side, round(side * 1024 / max(size_hw))) for side in size_hw)
    drawn = render_scene(3, (shrunken[0], shrunken[1])).image
    return np.asarray(cv2.resize(drawn, size_hw[::-1], interpolation=cv2.INTER_CUBIC))


def with_width(features: DenseFeatures, width: int) -> DenseFeatures:
    """Return random features in place of the demo model's."""
    generator = torch.Generator().manual_seed(0)
    shape = (*features.patches.shape[:3], width)
    return DenseFeatures(
        F.normalize(torch.randn(shape, generator=generator), dim=-1), features.plan
    )


@pytest.mark.parametrize("model", ["demo", "ViT-B/16"])
@pytest.mark.parametrize(
    ("size_hw", "goal"), [((768, 1024), "100 ms"), ((3000, 4000), "300 ms")], ids=["1024", "12MP"]
)
def test_time_of_an_answer(
    report: Report, segmenter: Segmenter, model: str, size_hw: tuple[int, int], goal: str
) -> None:
    image = picture(size_hw)
    features = segmenter.encode(image)
    scores = segmenter.score(features, SCENE_LABELS)
    if model != "demo":
        features = with_width(features, 512)
        words = F.normalize(torch.randn(18, 512), dim=-1)
        scores = Scores.of(features, words, Vocabulary.of(SCENE_LABELS))
    height, width = size_hw
    points = [
        Point(0.5 * width, 0.3 * height),
        Point(0.4 * width, 0.6 * height),
        Point(0.8 * width, 0.2 * height, False),
    ]
    box = (0.2 * width, 0.2 * height, 0.7 * width, 0.8 * height)
    answers: dict[str, Callable[[], object]] = {
        "1 click": lambda: segment_points(features, scores, 0, points[:1], image),
        "3 clicks": lambda: segment_points(features, scores, 0, points, image),
        "a box": lambda: segment_box(features, scores, 0, box, image),
    }
    for name, answer in answers.items():
        answer()
        times = [seconds(answer) for _ in range(9)]
        report.add(
            f"milliseconds from scores to the mask of {name}",
            goal,
            f"{1000 * statistics.median(times):.0f}",
            f"{model}'s features, {width} x {height} px, best {1000 * min(times):.0f}",
        )
