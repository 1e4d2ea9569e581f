"""Masks from clicks, boxes and words: their IoU by a simulated annotator.

The annotator asks for each thing of a picture that is larger than four patches: a connected part
of one label. The first click is at its centre, the point farthest from its border; the next ones
at the centre of the largest error, positive where something is missed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import pytest

from clearclip_core import (
    HELD_OUT_SEEDS,
    SCENE_LABELS,
    BoolMask,
    Point,
    PromptPredictor,
    Segmenter,
    render_scene,
)
from clearclip_core.images.label_maps import IGNORE, Truth
from tests.bench.conftest import Report
from tests.bench.street import Encoded, encoded

#: Sizes in px, and the number of scenes of each.
SIZES = {(448, 597): 200, (896, 1194): 20}
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


def prompted(
    segmenter: Segmenter, names: Sequence[str], pictures: Iterable[Encoded]
) -> dict[str, list[float]]:
    """Ask for all things; return the IoUs by the kind of prompt."""
    ious: dict[str, list[float]] = defaultdict(list)
    for each in pictures:
        scores = segmenter.score(each.features, names)
        counted = each.truth != IGNORE
        predictor = PromptPredictor(each.features, scores, each.rgb)
        ask = partial(clicked, predictor, counted)
        shown = list(things(each.truth, len(names)))
        absent = set(range(len(names))) - set(np.unique(each.truth).tolist())
        for label, thing in shown:
            for number, found in enumerate(
                after_clicks(partial(ask, names[label]), thing), start=1
            ):
                ious[f"{number} click{'s' if number > 1 else ''}"].append(found)
            box = predictor.box(bounding_box(thing), names[label])
            ious["a box"].append(iou(box.mask & counted, thing))
            if absent:
                ious[ABSENT].append(iou(ask(names[min(absent)], [centre(thing)]), thing))
        refined = segmenter.decide(scores, image=each.rgb, refine=True).label_map
        for label in {label for label, _ in shown}:
            mask = (refined == label) & counted
            ious["words, all pixels of a label"].append(iou(mask, each.truth == label))
    return ious


def add_ious(report: Report, ious: dict[str, list[float]], where: str, detail: str) -> None:
    for what, found in ious.items():
        low, middle = np.percentile(found, [10, 50])
        report.add(
            f"mean IoU after {what}, {where}",
            GOALS.get(what, ""),
            f"{np.mean(found):.3f}",
            f"{detail}, {len(found)} answers, a tenth below {low:.2f}, median {middle:.2f}",
        )


@pytest.mark.parametrize("size_hw", SIZES, ids="{0[0]}x{0[1]}".format)
def test_drawn_scenes(report: Report, size_hw: tuple[int, int]) -> None:
    segmenter = Segmenter.load("demo", device="cpu", precision="fp32")
    ious: dict[str, list[float]] = defaultdict(list)
    for seed in HELD_OUT_SEEDS[: SIZES[size_hw]]:  # one large picture at a time
        scene = render_scene(seed, size_hw)
        pictures = encoded(segmenter, [(scene.image, scene.label_map.astype(np.uint8))])
        for what, found in prompted(segmenter, SCENE_LABELS, pictures).items():
            ious[what] += found
    detail = f"demo model, {SIZES[size_hw]} drawn scenes"
    add_ious(report, ious, f"{size_hw[1]} x {size_hw[0]} px", detail)
