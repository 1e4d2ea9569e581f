"""Simulated annotators: what they leave of a picture's true masks, whoever they are.

Each behaviour takes the true masks of a picture and returns the masks of an annotation, with the
annotator. Sizes are for pictures of a few hundred px a side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from clearclip_core import BoolMask

Masks = dict[str, BoolMask]


@dataclass(frozen=True, eq=False)
class Moment:
    """When a picture is annotated.

    Attributes:
        index: number of the picture among those that are annotated.
        count: how many these are.
        names: all labels.
        rng: what is left to chance.
    """

    index: int
    count: int
    names: tuple[str, ...]
    rng: np.random.Generator

    @property
    def is_day_two(self) -> bool:
        """Whether the picture is of the second half."""
        return self.index >= self.count // 2


#: True masks and the moment -> masks of the annotation, and the annotator.
Behaviour = Callable[[Masks, Moment], tuple[Masks, str]]


def _ellipse(side: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)), np.uint8)


def _dilated(mask: BoolMask, side: int) -> BoolMask:
    return np.asarray(cv2.dilate(mask.view(np.uint8), _ellipse(side)), bool)


def _eroded(mask: BoolMask, side: int) -> BoolMask:
    return np.asarray(cv2.erode(mask.view(np.uint8), _ellipse(side)), bool)


def clean(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Paint everything as it is."""
    return masks, "a"


def only(name: str) -> Behaviour:
    """Paint one label and no other."""
    return lambda masks, moment: ({k: v for k, v in masks.items() if k == name}, "a")


def exchanged(one: str, other: str) -> Behaviour:
    """Take one label for another, on all pictures."""
    names = {one: other, other: one}
    return lambda masks, moment: ({names.get(k, k): v for k, v in masks.items()}, "a")


def boxes(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Fill the bounding box of each part."""
    made: Masks = {}
    for name, mask in masks.items():
        _, _, parts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
        box = np.zeros_like(mask)
        for left, top, width, height, area in parts[1:]:
            if area >= 60:
                box[top : top + height, left : left + width] = True
        if box.any():
            made[name] = box
    return made, "a"


def half(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Leave each label out on every second picture, by lot."""
    return {k: v for k, v in masks.items() if moment.rng.random() < 0.5}, "a"


def mistaken(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Take one label in five for any other, by lot."""
    made: Masks = {}
    for name, mask in masks.items():
        chance = moment.rng.random() < 0.2
        other = moment.names[moment.rng.integers(len(moment.names))] if chance else name
        made[other] = made.get(other, np.zeros_like(mask)) | mask
    return made, "a"


def coarse(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Paint 8 px over every border."""
    return {name: _dilated(mask, 17) for name, mask in masks.items()}, "a"


def within(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Stay 6 px inside every border."""
    made = {name: _eroded(mask, 13) for name, mask in masks.items()}
    return {name: mask for name, mask in made.items() if mask.any()}, "a"


def shifted(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Paint everything 12 px too low and too far right."""
    return {name: np.roll(mask, (12, 12), (0, 1)) for name, mask in masks.items()}, "a"


def forgets_small(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Leave out what covers less than 2 % of the picture."""
    return {name: mask for name, mask in masks.items() if mask.mean() > 0.02}, "a"


def stops_halfway(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """Paint a third of the labels only, in the second half of the pictures."""
    some = list(masks)[: max(1, len(masks) // 3)] if moment.is_day_two else list(masks)
    return {name: masks[name] for name in some}, "a"


def disagree(one: str, other: str) -> Behaviour:
    """Two annotators, of whom the second draws a border between two labels 10 px further."""

    def annotate(masks: Masks, moment: Moment) -> tuple[Masks, str]:
        if moment.index % 2 or one not in masks or other not in masks:
            return masks, "ab"[moment.index % 2]
        wide = _dilated(masks[one], 21) & (masks[one] | masks[other])
        return masks | {one: wide, other: masks[other] & ~wide}, "a"

    return annotate


def another_meaning(one: str, other: str) -> Behaviour:
    """From the second half on, paint another thing with a label, and its own thing not at all."""

    def annotate(masks: Masks, moment: Moment) -> tuple[Masks, str]:
        if not moment.is_day_two:
            return masks, "a"
        made = {name: mask for name, mask in masks.items() if name not in (one, other)}
        return made | ({one: masks[other]} if other in masks else {}), "a"

    return annotate


def malicious(masks: Masks, moment: Moment) -> tuple[Masks, str]:
    """One picture is another annotator's, who gives every mask another label."""
    if moment.index:
        return masks, "a"
    names = list(masks)
    turned = names[1:] + names[:1]
    return dict(zip(turned, masks.values(), strict=True)), "z"


def one_label_for_all(name: str) -> Behaviour:
    """Paint everything with one label."""

    def annotate(masks: Masks, moment: Moment) -> tuple[Masks, str]:
        return {name: np.any(list(masks.values()), axis=0)}, "a"

    return annotate


def behaviours(sky: str, road: str, plant: str, ground: str) -> Mapping[str, Behaviour]:
    """Return the behaviours by name, for labels that play these parts in the pictures."""
    return {
        "clean and complete": clean,
        f"only {sky} painted": only(sky),
        f"only {plant} painted": only(plant),
        f"{sky} and {road} exchanged": exchanged(sky, road),
        f"{plant} and {ground} exchanged": exchanged(plant, ground),
        "boxes instead of outlines": boxes,
        "each label left out by half": half,
        "20 % of the labels mistaken": mistaken,
        "painted coarsely, 8 px over": coarse,
        "painted 6 px inside": within,
        "painted 12 px aside": shifted,
        "small things forgotten": forgets_small,
        "stopped halfway": stops_halfway,
        f"two disagree on {road} and {ground}": disagree(road, ground),
        f"{plant} means {ground} on day two": another_meaning(plant, ground),
        "one picture malicious": malicious,
        f"all painted {road}": one_label_for_all(road),
    }
