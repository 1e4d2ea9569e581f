"""What learning from corrections gains or costs on pictures that nobody corrected.

``STREET_PICTURES=… STREET_ENCODER=NAME@FILE make bench ARGS=tests/bench/test_learning.py``: see
`tests.bench.corrections`. ``STREET_SECOND=NAME@FILE`` is a smaller network, the second encoder
beside that one; beside colours it is ``STREET_ENCODER`` itself. ``LEARNING_DRAWS`` says how many
draws of pictures (6). Figures are points of IoU in pixels on unseen pictures.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
import pytest

from clearclip_core import Example, adapt, adapt_unlabelled
from tests.bench.conftest import Report
from tests.bench.corrections import (
    COUNT,
    Behaviour,
    Floats,
    World,
    accepts,
    behaviours,
    boxes,
    careless,
    clean,
    corrects,
    corrects_with_care,
    drawn,
    in_turn,
    mirrored,
    one_of_two_merges,
    sloppy,
    street,
)

DRAWS = int(os.environ.get("LEARNING_DRAWS", "6"))
RENAMED = {"tree": "blicket", "road": "dax"}

WORLDS: dict[str, Callable[[], World]] = {
    "drawn": drawn,
    "renamed": partial(drawn, RENAMED),
    "colours": street,
    "noisier words": partial(street, words_off=0.85),
    "noisier words, second": lambda: street(second=_named("STREET_ENCODER"), words_off=0.85),
    "network": lambda: street(_named("STREET_ENCODER")),
    "colours, second": lambda: street(second=_named("STREET_ENCODER")),
    "network, second": lambda: street(_named("STREET_ENCODER"), _named("STREET_SECOND")),
    "colours, second at 448 px": lambda: street(second=_named("STREET_ENCODER"), second_px=448),
    "noisier words, second at 448 px": lambda: street(
        second=_named("STREET_ENCODER"), words_off=0.85, second_px=448
    ),
}


def _named(variable: str) -> str:
    """Return a network of timm and its weights, or skip."""
    return os.environ.get(variable) or pytest.skip(f"set {variable} to NAME@FILE")


@dataclass(frozen=True)
class Case:
    """Annotators, the pictures that they leave, and the least acceptable gains."""

    annotators: Behaviour
    goal: float  # of the mean
    least: float
    worst: float = -3  # least of the worst label's gain, mean of the draws
    count: int = COUNT


CASES = {
    "five corrected with care": Case(corrects, 11, 6, count=5),
    "corrected with care": Case(corrects, 11, 8),
    "every second one accepted as predicted": Case(in_turn(corrects, accepts), 8, 3),
    "one annotator of five careless": Case(in_turn(*[corrects] * 4, careless), 8, 3, -4),
    "one annotator of three sloppy": Case(in_turn(corrects, corrects, sloppy), 6, 5, -5),
    "boxes painted as masks": Case(boxes, 6, 5, -5),
    "one of two draws buildings as trees": Case(one_of_two_merges("tree", "building"), 6, 3, -25),
    "masks mirrored by a tool": Case(mirrored, 0, -10, -40),
}
#: Some of them again, in a project whose words are worse.
NOISIER = [("noisier words", what) for what in [*CASES][:2] + [*CASES][3:5]]


@cache
def world_of(kind: str) -> World:
    return WORLDS[kind]()


def gain(world: World, examples: Sequence[Example]) -> Floats:
    """Measure what learning from examples gains for each label."""
    learned = adapt(examples, world.embed, world.vocabulary).adaptation
    if learned is None:
        return np.zeros(len(world.names))
    return world.ious(learned) - world.before


def measure(
    report: Report, kind: str, what: str, annotators: Behaviour, goal: str, count: int = COUNT
) -> Floats:
    """Measure all draws: (draws, K) gains."""
    world = world_of(kind)
    drafts = [world.examples(annotators, seed, count) for seed in range(DRAWS)]
    began = time.process_time()
    table = np.array([gain(world, examples) for examples in drafts])
    seconds = (time.process_time() - began) / DRAWS
    means = table.mean(axis=1)
    worst = ", ".join(f"{each.min():+.1f} {world.names[each.argmin()]}" for each in table)
    report.add(
        f"learning from {count} pictures, {world.name}: {what}",
        goal,
        f"mean {means.mean():+.2f} ({', '.join(f'{each:+.1f}' for each in means)})",
        f"worst labels {worst}; words alone {world.before.mean():.1f}; {seconds:.1f} CPU s",
    )
    return table


@pytest.mark.parametrize(("kind", "what"), [*product(("colours", "network"), CASES), *NOISIER])
def test_photographs(report: Report, kind: str, what: str) -> None:
    case = CASES[what]
    goal = f"mean ≥ {case.goal:g} ({case.least:g}), worst ≥ -3 ({case.worst:g})"
    table = measure(report, kind, what, case.annotators, goal, case.count)
    assert table.mean() >= case.least
    assert table.min(axis=1).mean() >= case.worst


#: World and number of corrected pictures -> the least mean gain beside that without a second one.
SECOND = {
    ("colours", 5): 3,
    ("colours", 10): 4,
    ("colours", 30): 6,
    ("network", 5): -0.5,
    ("network", 10): -0.5,
    ("network", 24): -0.5,
}


@pytest.mark.parametrize(("kind", "count"), SECOND)
def test_a_second_encoder(report: Report, kind: str, count: int) -> None:
    what, least = "corrected with care", SECOND[kind, count]
    alone = measure(report, kind, what, corrects, "", count)
    goal = f"mean ≥ {least:+g} beside {alone.mean():.1f} without, and no worse a label"
    both = measure(report, f"{kind}, second", what, corrects, goal, count)
    assert both.mean() >= alone.mean() + least
    assert both.min(axis=1).mean() >= alone.min(axis=1).mean() - 2


#: Words and number of pictures -> the least that the mean gains by the second encoder's own size.
SECOND_SIZE = {("colours", 10): 0, ("noisier words", 10): 0, ("noisier words", 30): 0}


@pytest.mark.parametrize(("kind", "count"), SECOND_SIZE)
def test_the_size_of_a_second_encoder(report: Report, kind: str, count: int) -> None:
    """Twice CLIP's short side, for networks of stride 32, beside CLIP's."""
    what, least = "corrected with more care", SECOND_SIZE[kind, count]
    small = measure(report, f"{kind}, second at 448 px", what, corrects_with_care, "", count)
    goal = f"mean ≥ {least:+g} beside {small.mean():.1f} at 448 px"
    own = measure(report, f"{kind}, second", what, corrects_with_care, goal, count)
    assert own.mean() >= small.mean() + least


#: World -> the least mean gain, and the least gain of the worst label.
UNLABELLED = {
    "drawn": (-0.3, -1),
    "renamed": (-0.5, -1),
    "colours": (2, -1.5),
    "network": (4, -1),
    "colours, second": (3, -1.5),
    "network, second": (4, -1),
}


@pytest.mark.parametrize("kind", UNLABELLED)
def test_pictures_that_nobody_has_corrected(report: Report, kind: str) -> None:
    """Half of the pictures that others correct, as they come."""
    world, (least, worst) = world_of(kind), UNLABELLED[kind]
    some = enumerate(world.corrected[::2])
    seen = [Example.of(features, {}, world.names, f"{index}") for index, (features, _) in some]
    fit = adapt_unlabelled(seen, world.embed, world.vocabulary)
    gains = world.ious(fit.adaptation) - world.before
    report.add(
        f"learning from {len(seen)} pictures that nobody has corrected, {world.name}",
        f"mean ≥ {least:g}, worst label ≥ {worst:g}",
        f"mean {gains.mean():+.2f}",
        f"worst label {gains.min():+.1f} {world.names[gains.argmin()]}; {fit.images} of them "
        f"differ; words alone {world.before.mean():.1f}",
    )
    assert gains.mean() >= least
    assert gains.min() >= worst


def test_renamed_labels(report: Report) -> None:
    assert measure(report, "renamed", "clean", clean, "mean ≥ 8").mean() >= 8


def test_words_that_are_right(report: Report) -> None:
    table = measure(report, "drawn", "clean", clean, "mean ≥ 0.3")
    assert table.mean() >= 0.3
    assert table.min() > -3


@pytest.mark.parametrize("kind", ["drawn", "colours"])
@pytest.mark.parametrize("number", range(12))
def test_behaviours(report: Report, kind: str, number: int) -> None:
    ground = "grass" if kind == "drawn" else "building"
    name, behaviour = list(behaviours("tree", ground).items())[number]
    table = measure(report, kind, name, behaviour, "mean ≥ -0.5")
    assert table.mean() >= -0.5
