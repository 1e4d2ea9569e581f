"""What learning from corrections gains or costs on pictures that nobody corrected.

``STREET_PICTURES=FOLDER make bench ARGS=tests/bench/test_learning.py``; ``LEARNING_DRAWS`` says how
many draws of ten pictures (6). Figures are points of IoU in pixels on unseen pictures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import pytest

from clearclip_core import Example, adapt
from tests.bench.conftest import Report
from tests.bench.corrections import (
    COUNT,
    Behaviour,
    Floats,
    World,
    accepts,
    behaviours,
    clean,
    corrects,
    drawn,
    street,
)

DRAWS = int(os.environ.get("LEARNING_DRAWS", "6"))
RENAMED = {"tree": "blicket", "road": "dax"}

WORLDS: dict[str, Callable[[], World]] = {
    "drawn": drawn,
    "renamed": partial(drawn, RENAMED),
    "street": street,
}


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
    report: Report,
    kind: str,
    what: str,
    annotators: Behaviour | Sequence[Behaviour],
    goal: str,
    count: int = COUNT,
) -> Floats:
    """Measure all draws: (draws, K) gains."""
    world = world_of(kind)
    drafts = [world.examples(annotators, seed, count) for seed in range(DRAWS)]
    began = time.process_time()
    table = np.array([gain(world, examples) for examples in drafts])
    seconds = (time.process_time() - began) / DRAWS
    means = table.mean(axis=1)
    worst = ", ".join(f"{each.min():+.1f} {world.names[each.argmin()]}" for each in table)
    losing = int((table.min(axis=1) < -3).sum())
    report.add(
        f"learning from {count} pictures, {world.name}: {what}",
        goal,
        f"mean {means.mean():+.2f} ({', '.join(f'{each:+.1f}' for each in means)})",
        f"worst labels {worst}: below -3 in {losing} of {DRAWS} draws; "
        f"{int(table.any(axis=1).sum())} live; words alone {world.before.mean():.1f}; "
        f"{seconds:.1f} s of processor a draw",
    )
    return table


@pytest.mark.parametrize("count", [10, 30])
def test_careful_corrections(report: Report, count: int) -> None:
    goal = "mean ≥ 6, a label below -3 in at most one draw of six"
    table = measure(report, "street", "predictions corrected with care", corrects, goal, count)
    assert table.mean() >= 6


def test_accepted_predictions_do_not_block(report: Report) -> None:
    five, goal = [corrects] * 5, "≥ 60 % of the five alone"
    alone = measure(report, "street", "five corrected", five, "", 5)
    beside = measure(report, "street", "five corrected, five accepted", five + [accepts] * 5, goal)
    assert beside.mean() >= 0.6 * alone.mean()


def test_renamed_labels(report: Report) -> None:
    assert measure(report, "renamed", "clean", clean, "mean ≥ 8").mean() >= 8


def test_words_that_are_right(report: Report) -> None:
    table = measure(report, "drawn", "clean", clean, "mean ≥ 0.3")
    assert table.mean() >= 0.3
    assert table.min() > -3


@pytest.mark.parametrize("kind", ["drawn", "street"])
@pytest.mark.parametrize("number", range(12))
def test_behaviours(report: Report, kind: str, number: int) -> None:
    name, behaviour = list(behaviours("tree", "grass" if kind == "drawn" else "building").items())[
        number
    ]
    table = measure(report, kind, name, behaviour, "mean ≥ -0.5")
    assert table.mean() >= -0.5
