"""Mistakes in annotations, planted: how many are among the ten that a review lists first.

One of `COUNT` pictures has a mistake of one of twelve kinds: each picture with each kind is
reviewed beside the others as they were annotated. Things are connected parts of a label from 1 %
of the picture on. A thing with another label is a region of its own. Scores are learned once, in
folds, from annotations of which six are wrong. Right annotations are reviewed, too: one of them
may stand out at most.

The worlds are those of `tests.bench.corrections`: drawn scenes, and street photographs by colours
and by a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import cv2
import numpy as np
import pytest

from backend.runs.label_errors import least_score
from clearclip_core import BoolMask, Example, Scores
from clearclip_core.adaptation.fitting import HeldOutAdaptations
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.label_errors import Disagreement, find_disagreements, rank
from tests.bench.conftest import Report
from tests.bench.corrections import World, grow
from tests.bench.test_learning import world_of

COUNT, WRONG, FIRST = 40, 6, 10
LEAST_THING, LEAST_SMALL = 0.01, 0.004
OFF_PX, COARSE_PX = 8, 24
GOAL = 0.82


@dataclass(frozen=True, eq=False)
class Annotated:
    """A right annotation, what its labels are mistaken for most, and chance."""

    truth: Truth
    nearest: Sequence[int]
    rng: np.random.Generator

    def thing(self, least: float = LEAST_THING) -> BoolMask:
        """Choose a connected part of a label that has that share of the picture at least."""
        found = []
        for label in self.labels:
            _, parts, stats, _ = cv2.connectedComponentsWithStats(np.uint8(self.truth == label))
            large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= least * self.truth.size)
            found += [parts == number for number in large if number]
        chosen: BoolMask = found[int(self.rng.integers(len(found)))]
        return chosen

    @property
    def labels(self) -> list[int]:
        known = np.unique(self.truth[self.truth < NOTHING]).tolist()
        return [each for each in known if (self.truth == each).mean() >= LEAST_THING]

    def other(self, thing: BoolMask) -> int:
        own = int(self.truth[thing][0])
        return int(self.rng.choice([n for n in range(len(self.nearest)) if n != own]))

    def half(self, thing: BoolMask) -> BoolMask:
        places = np.nonzero(thing)
        along = places[self.rng.integers(2)]
        chosen = (along <= np.median(along)) == bool(self.rng.integers(2))
        half = np.zeros_like(thing)
        half[tuple(each[chosen] for each in places)] = True
        return half

    def with_(self, place: BoolMask, label: int) -> Truth:
        """Paint a place with a label, or take its paint away."""
        return np.where(place & (self.truth != IGNORE), label, self.truth).astype(np.uint8)

    def painted(self, px: int) -> Truth:
        """Paint the labels in any order, each so many px over its edges, or inside of them."""
        made = self.truth.copy()
        for label in self.rng.permutation(np.unique(self.truth[self.truth < NOTHING])):
            mask = self.truth == label
            wide = grow(mask, px)
            if px > 0:
                made[wide & (made != IGNORE)] = label
            else:
                made[mask & ~wide & (made == label)] = NOTHING
        return made


def another(each: Annotated) -> Truth:
    thing = each.thing()
    return each.with_(thing, each.other(thing))


def nearest(each: Annotated) -> Truth:
    thing = each.thing()
    return each.with_(thing, each.nearest[each.truth[thing][0]])


def slip(each: Annotated) -> Truth:
    thing = each.thing(LEAST_SMALL)
    return each.with_(thing, each.other(thing))


def swapped(each: Annotated) -> Truth:
    one, two = each.rng.choice(each.labels, 2, replace=False)
    return np.where(each.truth == two, one, each.with_(each.truth == one, two)).astype(np.uint8)


def half_another(each: Annotated) -> Truth:
    thing = each.thing()
    return each.with_(each.half(thing), each.other(thing))


def boxed(each: Annotated) -> Truth:
    thing = each.thing()
    left, top, width, height = cv2.boundingRect(thing.view(np.uint8))
    box = np.zeros_like(thing)
    box[top : top + height, left : left + width] = True
    return each.with_(box, int(each.truth[thing][0]))


def coarse(each: Annotated) -> Truth:
    small = each.truth[COARSE_PX // 2 :: COARSE_PX, COARSE_PX // 2 :: COARSE_PX]
    size = each.truth.shape[::-1]
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_NEAREST), np.uint8)


#: Those that are regions of their own.
REGIONS: Final = ("another label", "nearest label", "small slip", "half another label", "box")

MISTAKES: Final[dict[str, Callable[[Annotated], Truth]]] = {
    **dict(zip(REGIONS, (another, nearest, slip, half_another, boxed), strict=True)),
    "two labels swapped": swapped,
    "missing": lambda each: each.with_(each.thing(), NOTHING),
    "half missing": lambda each: each.with_(each.half(each.thing()), NOTHING),
    "too wide": lambda each: each.painted(OFF_PX),
    "too narrow": lambda each: each.painted(-OFF_PX),
    "moved": lambda each: np.roll(each.truth, (OFF_PX, OFF_PX), (0, 1)),
    "coarse": coarse,
}

Found = Sequence[Disagreement]


def review(world: World) -> tuple[list[Found], list[dict[str, Found]]]:
    """Find disagreements of each picture as it was annotated, and with a mistake of each kind."""
    rng, count = np.random.default_rng(0), len(world.names)
    embeddings = world.embed(world.vocabulary.queries)
    cosines = (embeddings[:count] @ embeddings[:count].T).numpy() - 2 * np.eye(count)
    chosen = np.linspace(0, len(world.corrected) - 1, COUNT).astype(int).tolist()
    right = [world.labelled(picture) for picture in chosen]
    found = cosines.argmax(axis=1)
    wrong = [
        {kind: plant(Annotated(truth, found, rng)) for kind, plant in MISTAKES.items()}
        for truth in right
    ]
    learned = list(right)
    for index, kind in zip(rng.permutation(COUNT)[:WRONG], [*MISTAKES][::2], strict=True):
        learned[index] = wrong[index][kind]
    examples = [
        Example.of(world.corrected[picture][0], masks_of(world, truth), world.names, f"{picture}")
        for picture, truth in zip(chosen, learned, strict=True)
    ]
    held_out = HeldOutAdaptations.fit(examples, world.embed, world.vocabulary)
    careful: list[Found] = []
    mistaken: list[dict[str, Found]] = []
    for picture, truth, mistakes in zip(chosen, right, wrong, strict=True):
        adaptation, bias, moved = held_out.of(f"{picture}"), None, embeddings
        if adaptation is not None:
            moved, bias = adaptation.apply(embeddings, world.vocabulary)
        scores = Scores.of(world.corrected[picture][0], moved, world.vocabulary, bias)
        find = partial(find_disagreements, scores, world.images[picture])
        one_region = np.zeros(truth.shape, np.uint8)
        careful.append(find(truth, one_region))
        made: dict[str, Found] = {}
        for kind, each in mistakes.items():
            regions = (each != truth).view(np.uint8) if kind in REGIONS else one_region
            made[kind] = find(each, regions)
        mistaken.append(made)
    return careful, mistaken


def masks_of(world: World, truth: Truth) -> dict[str, BoolMask]:
    masks = {name: truth == index for index, name in enumerate(world.names)}
    return {name: mask for name, mask in masks.items() if mask.any()}


def is_found(careful: Sequence[Found], index: int, mistaken: Found) -> bool:
    found = [*careful[:index], mistaken, *careful[index + 1 :]]
    return index in [each.index for each in rank(found, range(COUNT))[:FIRST]]


def count_listed(found: Sequence[Found]) -> int:
    return sum(each.score > least_score(len(found)) for each in rank(found, range(len(found))))


@pytest.mark.parametrize("kind", ["drawn", "colours", "network"])
def test_planted_mistakes_are_among_the_first_ten(report: Report, kind: str) -> None:
    world = world_of(kind)
    careful, mistaken = review(world)
    shares = {
        kind: np.mean([is_found(careful, n, each[kind]) for n, each in enumerate(mistaken)])
        for kind in MISTAKES
    }
    found = float(np.mean([*shares.values()]))
    listed = [count_listed(careful[:count]) for count in (12, 24, COUNT)]
    report.add(
        f"planted mistakes among the first {FIRST} of {COUNT} pictures: {world.name}",
        f"≥ {100 * GOAL:.0f} %",
        f"{100 * found:.0f} %",
        f"{', '.join(f'{name} {100 * each:.0f} %' for name, each in shares.items())}; at random "
        f"{100 * FIRST / COUNT:.0f} %; listed of 12, 24, {COUNT} right ones: {listed}",
    )
    assert found >= GOAL
    assert max(listed) <= 1
