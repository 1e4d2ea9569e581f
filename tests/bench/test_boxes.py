"""Masks of boxes on photographs and drawn scenes, beside the floor: the box itself, filled.

A box is drawn around each thing, a connected part of one label, tightly or up to a tenth too large
on each side. Words are those of `tests.bench.corrections`. Things are told by their share of the
picture, since small ones are the hard ones.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearclip_core import BoolMask, PromptPredictor
from clearclip_core.images.label_maps import IGNORE
from tests.bench.conftest import Report
from tests.bench.corrections import World, drawn, street
from tests.bench.test_prompting import bounding_box, iou, parts

PICTURES = 20
LEAST_SHARE = 0.0012  # of a picture's pixels, that a thing has
LARGEST_MARGIN = 0.1  # of a loose box's side
#: Names of sizes, by the share of the picture from which on they begin.
SIZES = {0.0: "below 0.5 %", 0.005: "0.5 to 2 %", 0.02: "2 to 10 %", 0.1: "above 10 %"}

GOAL = 0.08  # mean gain of IoU over the filled box
#: What is asserted: the least gain of tight boxes, of loose ones, and of any size of things.
LEAST_TIGHT, LEAST_LOOSE, LEAST_OF_A_SIZE = 0.05, 0.1, -0.01


@dataclass(frozen=True)
class Boxed:
    """The answers to the two boxes around one thing."""

    share: float  # of the picture
    found: float  # IoU of the answer
    filled: float  # IoU of the box itself
    is_loose: bool

    @property
    def size(self) -> str:
        """Name of the thing's size."""
        return SIZES[max(least for least in SIZES if self.share >= least)]


def boxed(world: World) -> Iterator[Boxed]:
    """Ask for each thing of some pictures twice, with a tight and a loose box."""
    rng = np.random.default_rng(0)
    for picture in range(0, len(world.corrected), max(1, len(world.corrected) // PICTURES)):
        features, truth = world.corrected[picture]
        predictor = PromptPredictor(features, world.scores(features), world.images[picture])
        counted = truth != IGNORE

        for label, name in enumerate(world.names):
            for thing in parts(truth == label):
                if thing.mean() <= LEAST_SHARE:
                    continue
                tight = bounding_box(thing)
                for box in (tight, looser(tight, rng)):
                    yield Boxed(
                        float(thing.mean()),
                        iou(predictor.box(box, name).mask & counted, thing),
                        iou(filled(box, truth.shape) & counted, thing),
                        box is not tight,
                    )


def looser(
    box_xyxy: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Move each side of a box outward, by up to a tenth of the box."""
    left, top, right, bottom = box_xyxy
    margins = rng.uniform(0, LARGEST_MARGIN, 4)
    width, height = right - left, bottom - top
    return (
        left - margins[0] * width,
        top - margins[1] * height,
        right + margins[2] * width,
        bottom + margins[3] * height,
    )


def filled(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, ...]) -> BoolMask:
    """Return (H, W) bool, the pixels in a box."""
    left, top, right, bottom = (max(0, round(side)) for side in box_xyxy)
    mask = np.zeros(size_hw, bool)
    mask[top:bottom, left:right] = True
    return mask


def worlds() -> Iterator[World]:
    """Yield the drawn scenes, and street photographs where there are some."""
    yield drawn()
    yield street()
    if encoder := os.environ.get("STREET_ENCODER"):
        yield street(encoder)


def test_boxes_beside_the_filled_box(report: Report) -> None:
    failures = []
    for world in worlds():
        asked = list(boxed(world))
        for is_loose, least in ((False, LEAST_TIGHT), (True, LEAST_LOOSE)):
            own = [each for each in asked if each.is_loose == is_loose]
            gains: dict[str, list[float]] = defaultdict(list)
            for each in own:
                gains[each.size].append(each.found - each.filled)
            by_size = {size: float(np.mean(gains[size])) for size in SIZES.values() if gains[size]}
            found = float(np.mean([each.found for each in own]))
            floor = float(np.mean([each.filled for each in own]))
            kind = "a loose box" if is_loose else "a tight box"
            report.add(
                f"mean IoU of {kind}, {world.name}",
                f"the filled box + {GOAL} (+ {least}), no size below it",
                f"{found:.3f}",
                f"the filled box {floor:.3f}; {len(own)} things; by their share of the picture "
                + ", ".join(f"{size} {gain:+.3f}" for size, gain in by_size.items()),
            )
            if found < floor + least or min(by_size.values()) < LEAST_OF_A_SIZE:
                failures.append((world.name, kind, found - floor, by_size))
    assert not failures
