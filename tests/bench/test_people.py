"""Whether people are named whose work teaches what is wrong, and nobody else.

``STREET_PICTURES=… STREET_ENCODER=NAME@FILE make bench ARGS=tests/bench/test_people.py``, as
`tests.bench.test_learning`; ``PEOPLE_DRAWS`` says how many draws of pictures (2).
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from clearclip_core import adapt
from tests.bench.conftest import Report
from tests.bench.corrections import (
    boxes,
    careless,
    corrects,
    corrects_with_care,
    exchanges,
    hurries,
    in_turn,
    mirrored,
    sloppy,
)
from tests.bench.test_learning import world_of

DRAWS = int(os.environ.get("PEOPLE_DRAWS", "2"))
COUNT = 15

#: Behaviour of the last of three -> whether that person is named.
THIRD = {
    "corrects as the others do": (corrects, False),
    "exchanges pavement and road": (exchanges("pavement", "road", corrects), True),
    "exchanges buildings and trees": (exchanges("building", "tree", corrects), True),
    "leaves mirrored masks": (mirrored, True),
    "paints boxes": (boxes, False),
    "is sloppy": (sloppy, False),
    "is careless": (careless, False),
}


@pytest.mark.parametrize("who", THIRD)
def test_one_of_three(report: Report, who: str) -> None:
    world, (behaviour, is_named) = world_of("network"), THIRD[who]
    told = []
    for seed in range(DRAWS):
        annotators = in_turn(corrects, corrects, behaviour)
        examples = world.examples(annotators, seed, COUNT)
        fit = adapt(examples, world.embed, world.vocabulary)
        named = {each.annotator for each in fit.people}
        others = [each for each in examples if each.annotator not in named]
        without = adapt(others, world.embed, world.vocabulary)
        gains = [world.ious(each.adaptation) - world.before for each in (fit, without)]
        worst = [f"{each.mean():+.1f}, {each.min():+.1f}" for each in gains]
        told.append((named, 100 * fit.gain, worst))
    report.add(
        f"one of three {who}, {COUNT} pictures, {world.name}",
        f"{'that person' if is_named else 'nobody'} is named",
        "; ".join(f"named {', '.join(sorted(named)) or 'nobody'}" for named, _, _ in told),
        "; ".join(
            f"told {gain:+.1f}, true mean and worst label {first}, learned without {second}"
            for _, gain, (first, second) in told
        ),
    )
    assert np.all([named == ({"2"} if is_named else set()) for named, _, _ in told])


#: What everybody does.
EVERYBODY = {"corrects with care": corrects_with_care, "paints boxes": boxes, "hurries": hurries}
_MOST_OFF = 4.0  # points of the gain
#: World and what everybody does -> how many points it was off where that is more.
_MISSED = {("renamed", "paints boxes"): 5.5}


@pytest.mark.parametrize("what", EVERYBODY)
@pytest.mark.parametrize("kind", ["network", "noisier words", "renamed"])
def test_everybody(report: Report, kind: str, what: str) -> None:
    """What is told is the gain on other pictures like those that were corrected."""
    world, most = world_of(kind), _MISSED.get((kind, what), _MOST_OFF)
    told, alike, unseen, worst = [], [], [], []
    for seed in range(DRAWS):
        examples = world.examples(EVERYBODY[what], seed, COUNT)
        corrected = {int(each.picture) for each in examples}
        others = [each for at, each in enumerate(world.corrected) if at not in corrected]
        rest = replace(world, unseen=others)

        fit = adapt(examples, world.embed, world.vocabulary)
        told.append(100 * fit.gain)
        alike.append((rest.ious(fit.adaptation) - rest.before).mean())
        gains = world.ious(fit.adaptation) - world.before
        unseen.append(gains.mean())
        worst.append(f"{gains.min():+.1f} {world.names[gains.argmin()]}")

    def points(gains: list[float]) -> str:
        return ", ".join(f"{each:+.1f}" for each in gains)

    report.add(
        f"everybody {what}, {COUNT} pictures, {world.name}",
        f"told within {_MOST_OFF:g} ({most:g}) points of the gain on other pictures like these",
        f"told {points(told)}; other pictures like these {points(alike)}",
        f"unseen ones {points(unseen)}, worst labels {', '.join(worst)}",
    )
    assert np.abs(np.subtract(told, alike)).max() <= most
