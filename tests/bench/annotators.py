"""Simulated annotators: what they leave of a picture's true masks, whoever they are.

Each behaviour takes the true masks of a picture and returns an annotation. Sizes are for pictures
of a few hundred px a side.
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
        predict: makes the masks that the words predict on the picture.
    """

    index: int
    count: int
    names: tuple[str, ...]
    rng: np.random.Generator
    predict: Callable[[], Masks]

    @property
    def is_day_two(self) -> bool:
        """Whether the picture is of the second half."""
        return self.index >= self.count // 2


@dataclass(frozen=True, eq=False)
class Annotation:
    """What somebody leaves of a picture.

    Attributes:
        masks: name of the label -> (H, W) bool.
        annotator: who it was.
        kept: the masks that stand as predicted; None where the annotator began with nothing.
        removed: the predicted masks that the annotator took away.
    """

    masks: Masks
    annotator: str = "a"
    kept: Masks | None = None
    removed: Masks | None = None


#: True masks and the moment -> the annotation.
Behaviour = Callable[[Masks, Moment], Annotation]


#: Share of a picture that a small thing covers at most.
_SMALL = 0.02

#: Who corrects a prediction leaves the labels whose IoU is above that.
_GOOD_IOU = 0.7


def _ellipse(side: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)), np.uint8)


def _dilated(mask: BoolMask, side: int) -> BoolMask:
    return np.asarray(cv2.dilate(mask.view(np.uint8), _ellipse(side)), bool)


def _eroded(mask: BoolMask, side: int) -> BoolMask:
    return np.asarray(cv2.erode(mask.view(np.uint8), _ellipse(side)), bool)


def _shown(masks: Masks) -> Masks:
    return {name: mask for name, mask in masks.items() if mask.any()}


def clean(masks: Masks, moment: Moment) -> Annotation:
    """Paint everything as it is."""
    return Annotation(masks)


def only(name: str) -> Behaviour:
    """Paint one label and no other."""
    return lambda masks, moment: Annotation({k: v for k, v in masks.items() if k == name})


def exchanged(one: str, other: str) -> Behaviour:
    """Take one label for another, on all pictures."""
    names = {one: other, other: one}
    return lambda masks, moment: Annotation({names.get(k, k): v for k, v in masks.items()})


def boxes(masks: Masks, moment: Moment) -> Annotation:
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
    return Annotation(made)


def half(masks: Masks, moment: Moment) -> Annotation:
    """Leave each label out on every second picture, by lot."""
    return Annotation({k: v for k, v in masks.items() if moment.rng.random() < 0.5})


def mistaken(masks: Masks, moment: Moment) -> Annotation:
    """Take one label in five for any other, by lot."""
    made: Masks = {}
    for name, mask in masks.items():
        chance = moment.rng.random() < 0.2
        other = moment.names[moment.rng.integers(len(moment.names))] if chance else name
        made[other] = made.get(other, np.zeros_like(mask)) | mask
    return Annotation(made)


def grown(px: int) -> Behaviour:
    """Paint some px over every border."""
    side = 2 * px + 1
    return lambda masks, moment: Annotation({k: _dilated(v, side) for k, v in masks.items()})


def shrunk(px: int) -> Behaviour:
    """Stay some px inside every border."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        return Annotation(_shown({k: _eroded(v, 2 * px + 1) for k, v in masks.items()}))

    return annotate


def outlines(masks: Masks, moment: Moment) -> Annotation:
    """Paint the outlines of things, 3 px thin, and do not fill them."""
    return Annotation({name: mask & ~_eroded(mask, 7) for name, mask in masks.items()})


def shifted(masks: Masks, moment: Moment) -> Annotation:
    """Paint everything 12 px too low and too far right."""
    return Annotation({name: np.roll(mask, (12, 12), (0, 1)) for name, mask in masks.items()})


def forgets_small(masks: Masks, moment: Moment) -> Annotation:
    """Leave out what covers less than 2 % of the picture."""
    return Annotation({name: mask for name, mask in masks.items() if mask.mean() > _SMALL})


def only_small(masks: Masks, moment: Moment) -> Annotation:
    """Paint only what covers less than 2 % of the picture."""
    return Annotation({name: mask for name, mask in masks.items() if mask.mean() <= _SMALL})


def half_empty(masks: Masks, moment: Moment) -> Annotation:
    """Paint nothing on every second picture."""
    return Annotation({} if moment.index % 2 else masks)


def stops_halfway(masks: Masks, moment: Moment) -> Annotation:
    """Paint a third of the labels only, in the second half of the pictures."""
    some = list(masks)[: max(1, len(masks) // 3)] if moment.is_day_two else list(masks)
    return Annotation({name: masks[name] for name in some})


def disagree(one: str, other: str) -> Behaviour:
    """Two annotators, of whom the second draws a border between two labels 10 px further."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        if moment.index % 2 or one not in masks or other not in masks:
            return Annotation(masks, "ab"[moment.index % 2])
        wide = _dilated(masks[one], 21) & (masks[one] | masks[other])
        return Annotation(masks | {one: wide, other: masks[other] & ~wide})

    return annotate


def conventions(one: str, other: str) -> Behaviour:
    """Two annotators, of whom the second paints two labels' things with the first of them."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        if moment.index % 2 == 0 or other not in masks:
            return Annotation(masks, "ab"[moment.index % 2])
        made = dict(masks)
        extended = made.pop(other)
        made[one] = made[one] | extended if one in made else extended
        return Annotation(made, "b")

    return annotate


def never_used(one: str, other: str) -> Behaviour:
    """Paint the second label's things with the first, on all pictures."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        made = dict(masks)
        if other in made:
            taken = made.pop(other)
            made[one] = made[one] | taken if one in made else taken
        return Annotation(made)

    return annotate


def exchanged_on_half(one: str, other: str) -> Behaviour:
    """Take one label for another, on every second picture."""
    turned = exchanged(one, other)
    return lambda masks, moment: turned(masks, moment) if moment.index % 2 else Annotation(masks)


def another_meaning(one: str, other: str) -> Behaviour:
    """From the second half on, paint another thing with a label, and its own thing not at all."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        if not moment.is_day_two:
            return Annotation(masks)
        made = {name: mask for name, mask in masks.items() if name not in (one, other)}
        return Annotation(made | ({one: masks[other]} if other in masks else {}))

    return annotate


def malicious(masks: Masks, moment: Moment) -> Annotation:
    """One picture is another annotator's, who gives every mask another label."""
    if moment.index:
        return Annotation(masks)
    names = list(masks)
    turned = names[1:] + names[:1]
    return Annotation(dict(zip(turned, masks.values(), strict=True)), "z")


def one_label_for_all(name: str) -> Behaviour:
    """Paint everything with one label."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        return Annotation({name: np.any(list(masks.values()), axis=0)})

    return annotate


def one_of_three_turns(masks: Masks, moment: Moment) -> Annotation:
    """Three annotators, of whom one takes each label for the next of the list."""
    annotator = "abc"[moment.index % 3]
    if annotator != "c":
        return Annotation(masks, annotator)
    turned = dict(zip(moment.names, moment.names[1:] + moment.names[:1], strict=True))
    return Annotation({turned[name]: mask for name, mask in masks.items()}, annotator)


def over_everything(name: str) -> Behaviour:
    """Paint all as it is, and one label over the whole picture."""

    def annotate(masks: Masks, moment: Moment) -> Annotation:
        whole = np.ones_like(next(iter(masks.values())))
        return Annotation(masks | {name: whole})

    return annotate


def accepts(masks: Masks, moment: Moment) -> Annotation:
    """Leave the prediction as it is."""
    shown = moment.predict()
    return Annotation(shown, kept=shown)


def deletes_some(masks: Masks, moment: Moment) -> Annotation:
    """Leave the prediction as it is, but for one label in seven, by lot, which goes."""
    shown = moment.predict()
    gone = {name for name in shown if moment.rng.random() < 1 / 7}
    left = {name: mask for name, mask in shown.items() if name not in gone}
    return Annotation(left, kept=left, removed={name: shown[name] for name in gone})


def corrects(masks: Masks, moment: Moment) -> Annotation:
    """Leave the predicted masks that are good, and paint the others as they are."""
    shown = moment.predict()
    kept, removed, made = {}, {}, dict(masks)
    for name, mask in shown.items():
        true = masks.get(name, np.zeros_like(mask))
        if (mask & true).sum() > _GOOD_IOU * (mask | true).sum():
            made[name] = kept[name] = mask
        else:
            removed[name] = mask & ~true
    for name in made.keys() - kept.keys():
        made[name] = made[name] & ~np.any([*kept.values(), np.zeros_like(made[name])], axis=0)
    return Annotation(_shown(made), kept=kept, removed=_shown(removed))


def behaviours(sky: str, road: str, plant: str, ground: str) -> Mapping[str, Behaviour]:
    """Return the behaviours by name, for labels that play these parts in the pictures."""
    return {
        "clean and complete": clean,
        "predictions corrected": corrects,
        f"only {sky} painted": only(sky),
        f"only {plant} painted": only(plant),
        "only small things painted": only_small,
        f"{sky} and {road} exchanged": exchanged(sky, road),
        f"{plant} and {ground} exchanged": exchanged(plant, ground),
        f"{sky} and {road} exchanged on every second picture": exchanged_on_half(sky, road),
        f"{plant} and {ground} exchanged on every second picture": exchanged_on_half(plant, ground),
        "boxes instead of outlines": boxes,
        "outlines, not filled": outlines,
        "each label left out by half": half,
        "every second picture empty": half_empty,
        "20 % of the labels mistaken": mistaken,
        "painted 4 px over": grown(4),
        "painted coarsely, 8 px over": grown(8),
        "painted 10 px over": grown(10),
        "painted 4 px inside": shrunk(4),
        "painted 6 px inside": shrunk(6),
        "painted 10 px inside": shrunk(10),
        "painted 12 px aside": shifted,
        "small things forgotten": forgets_small,
        "stopped halfway": stops_halfway,
        f"two disagree on {road} and {ground}": disagree(road, ground),
        f"one of two paints {ground} as {plant}": conventions(plant, ground),
        "one of three takes each label for the next": one_of_three_turns,
        f"{plant} means {ground} on day two": another_meaning(plant, ground),
        f"{plant} painted as {ground} by all": never_used(ground, plant),
        f"{ground} painted as {plant} by all": never_used(plant, ground),
        f"fence painted as {ground} by all": never_used(ground, "fence"),
        "one picture malicious": malicious,
        f"all painted {road}": one_label_for_all(road),
        f"{road} over everything": over_everything(road),
        "accepted as predicted": accepts,
        "accepted as predicted, some deleted": deletes_some,
    }
