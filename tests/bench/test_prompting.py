"""Masks from clicks, boxes and words: their IoU by a simulated annotator.

The annotator asks for each thing of a picture that is larger than four patches: a connected part
of one label. The first click is at its centre, the point farthest from its border; the next ones
at the centre of the largest error, positive where something is missed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    BoolMask,
    Point,
    PromptPredictor,
    Segmenter,
    render_scene,
)
from clearclip_core.demo.canvas import Scene
from clearclip_core.images.label_maps import IGNORE, Truth
from tests.bench.conftest import Report

SIZE_HW, SCENES = (448, 597), 200
LEAST_PATCHES = 4
CLICKS = 3
ABSENT = "1 click with a label that is not in the picture"
GOALS = {"1 click": "0.70 (0.60)", "3 clicks": "0.80 (0.70)", "a box": "0.80 (0.70)"}


def parts(mask: BoolMask) -> Iterator[BoolMask]:
    count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        yield np.asarray(numbers == number)


def things(truth: Truth, labels: int) -> Iterator[tuple[int, BoolMask]]:
    """Label and mask of each thing that is larger than four patches at a short side of 448 px."""
    least_px = LEAST_PATCHES * (16 * truth.shape[0] / 448) ** 2
    for label in range(labels):
        for part in parts(truth == label):
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


def after_clicks(ask: Callable[[list[Point]], BoolMask], truth: BoolMask) -> list[float]:
    points, found = [centre(truth)], []
    for _ in range(CLICKS):
        mask = ask(points)
        found.append(iou(mask, truth))
        following = correction(mask, truth)
        points += [following] if following else []
    return found


def clicked(
    predictor: PromptPredictor, counted: BoolMask, label: str, points: list[Point]
) -> BoolMask:
    return predictor.click(*points, label=label).mask & counted


def bounding_box(mask: BoolMask) -> tuple[float, float, float, float]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height


def prompted(segmenter: Segmenter, scene: Scene) -> Iterator[tuple[str, float]]:
    """Ask for all things; yield the kind of each prompt and its IoU."""
    features = segmenter.encode(scene.image)
    scores = segmenter.score(features, SCENE_LABELS)
    truth = scene.label_map.astype(np.uint8)
    counted = truth != IGNORE
    predictor = PromptPredictor(features, scores, scene.image)
    ask = partial(clicked, predictor, counted)
    shown = list(things(truth, len(SCENE_LABELS)))
    absent = set(range(len(SCENE_LABELS))) - set(np.unique(truth).tolist())
    for label, thing in shown:
        name = SCENE_LABELS[label]
        for number, found in enumerate(after_clicks(partial(ask, name), thing), start=1):
            yield f"{number} click{'s' if number > 1 else ''}", found
        box = predictor.box(bounding_box(thing), name)
        yield "a box", iou(box.mask & counted, thing)
        if absent:
            yield ABSENT, iou(ask(SCENE_LABELS[min(absent)], [centre(thing)]), thing)
    refined = segmenter.decide(scores, image=scene.image, refine=True).label_map
    for label in {label for label, _ in shown}:
        mask = (refined == label) & counted
        yield "words, all pixels of a label", iou(mask, truth == label)


def test_drawn_scenes(report: Report) -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    ious: dict[str, list[float]] = defaultdict(list)
    for seed in HELD_OUT_SEEDS[:SCENES]:
        for what, found in prompted(segmenter, render_scene(seed, SIZE_HW)):
            ious[what].append(found)
    for what, all_found in ious.items():
        low, middle = np.percentile(all_found, [10, 50])
        report.add(
            f"mean IoU after {what}, {SIZE_HW[1]} x {SIZE_HW[0]} px",
            GOALS.get(what, ""),
            f"{np.mean(all_found):.3f}",
            f"demo model, {SCENES} drawn scenes, {len(all_found)} answers, a tenth below "
            f"{low:.2f}, median {middle:.2f}",
        )
