"""Masks of clicks on photographs and drawn scenes, before and after a project has learned.

The first click is at the middle of a thing, the point farthest from its border; the next ones are
at the middle of the largest error, as people correct. Pictures that are clicked are not among the
ten that are learned from. Beside the answers stands what needs no click: the part of the words'
label map that lies under the first one, along the picture's edges, as predictions draw it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearclip_core import Adaptation, BoolMask, Point, PromptPredictor, Scores, adapt
from clearclip_core.images.label_maps import IGNORE
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.segmentation.guided_filter import REFINEMENT
from clearclip_core.segmentation.refined_argmax import decide_refined
from tests.bench.conftest import Report
from tests.bench.corrections import COUNT, World, corrects
from tests.bench.test_boxes import LEAST_SHARE, PICTURES, SIZES, worlds
from tests.bench.test_prompting import centre, correction, iou, parts

CLICKS = 5
#: What is asserted: the least mean IoU after one click and after all, and the least gain of a first
#: click by what is learned.
LEAST_FIRST, LEAST_LAST, LEAST_LEARNED = 0.3, 0.5, -0.02


@dataclass(frozen=True)
class Clicked:
    """The answers to the clicks on one thing."""

    share: float  # of the picture
    found: tuple[float, ...]  # IoU after each click
    predicted: float  # IoU of the part of the label map under the first click

    @property
    def size(self) -> str:
        """Name of the thing's size."""
        return SIZES[max(least for least in SIZES if self.share >= least)]


def clicked(world: World, pictures: range, learned: Adaptation | None) -> Iterator[Clicked]:
    """Click on each thing of some pictures until five clicks are made, or nothing is wrong."""
    for picture in pictures:
        features, truth = world.corrected[picture]
        scores, image = world.scores(features, learned), world.images[picture]
        predictor = PromptPredictor(features, scores, image)
        predicted = label_map(scores, image)
        counted = truth != IGNORE

        for label, name in enumerate(world.names):
            for thing in parts(truth == label):
                if thing.mean() > LEAST_SHARE:
                    found = after_clicks(predictor, name, thing, counted)
                    under = under_click(predicted == label, centre(thing)) & counted
                    yield Clicked(float(thing.mean()), found, iou(under, thing))


def after_clicks(
    predictor: PromptPredictor, name: str, thing: BoolMask, counted: BoolMask
) -> tuple[float, ...]:
    """Return the IoU after each click; once the mask is exact, it stays."""
    points, found = [centre(thing)], []
    while len(found) < CLICKS:
        mask = predictor.click(*points, label=name).mask & counted
        found.append(iou(mask, thing))
        following = correction(mask, thing)
        points += [following] if following else []
    return tuple(found)


def under_click(mask: BoolMask, click: Point) -> BoolMask:
    """Return the connected part of a mask that lies under a click."""
    at = int(click.y_px), int(click.x_px)
    return next((part for part in parts(mask) if part[at]), np.zeros_like(mask))


def label_map(scores: Scores, image: RGBArray) -> np.ndarray:  # type: ignore[type-arg]
    """Return the (H, W) labels that predictions draw, -1 for none."""
    patch_px = scores.plan.patch_image_px
    return np.asarray(decide_refined(scores, image, 0.0, REFINEMENT, patch_px)[0])


def learned_from_others(world: World, pictures: range) -> Adaptation | None:
    """Learn from ten careful corrections of pictures that are not clicked."""
    rng = np.random.default_rng(0)
    others = sorted({*range(len(world.corrected))} - {*pictures})
    some = rng.permutation(others)[:COUNT].tolist()
    return adapt(world.annotate(some, corrects, rng), world.embed, world.vocabulary).adaptation


def test_clicks_before_and_after_learning(report: Report) -> None:
    failures = []
    for world in worlds():
        pictures = range(0, len(world.corrected), max(1, len(world.corrected) // PICTURES))
        learned = learned_from_others(world, pictures)
        first_by_words = 0.0
        for kind, adaptation in (("by words", None), ("learned from ten", learned)):
            asked = list(clicked(world, pictures, adaptation))
            means = np.mean([each.found for each in asked], axis=0)
            floor = float(np.mean([each.predicted for each in asked]))
            report.add(
                f"mean IoU after 1 to {CLICKS} clicks, {kind}, {world.name}",
                f"1 click ≥ {LEAST_FIRST}, {CLICKS} clicks ≥ {LEAST_LAST}",
                " / ".join(f"{mean:.3f}" for mean in means),
                f"{len(asked)} things; the predicted part there {floor:.3f}; after one click by "
                f"their share of the picture {by_size(asked)}",
            )
            if means[0] < LEAST_FIRST or means[-1] < LEAST_LAST:
                failures.append((world.name, kind, means))
            if adaptation is None:
                first_by_words = means[0]
            elif means[0] < first_by_words + LEAST_LEARNED:
                failures.append((world.name, kind, first_by_words, means[0]))
    assert not failures


def by_size(asked: list[Clicked]) -> str:
    """Return the mean IoU after one click for each size of things, beside the predicted part."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in asked:
        found[each.size].append((each.found[0], each.predicted))
    means = {size: np.mean(found[size], axis=0) for size in SIZES.values() if found[size]}
    return ", ".join(f"{size} {mean[0]:.2f} ({mean[1]:.2f})" for size, mean in means.items())
