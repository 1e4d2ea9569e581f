"""How often the acceptance gate keeps its promise in simulated projects, and what it lets through.

Drawn scenes are predicted once, and so are street photographs (see `tests.bench.test_street`). A
project draws its tasks from them with replacement, in random order or drive after drive, and a
simulated annotator corrects each, so that the true share of changes among all pictures that pass is
known exactly. The gate is made at each of its looks; a project in which any of these lets more
changes through than promised counts as broken. ``GATE_SCENES`` says how many scenes (400).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from backend.feedback.gate.gate import LOOKS, Gate, make_gate
from backend.feedback.gate.outcomes import TaskOutcome
from clearclip_core import HELD_OUT_SEEDS
from tests.bench.conftest import Report
from tests.bench.gated_projects import (
    STREET_LABELS,
    PredictedScene,
    PredictedWorld,
    SimulatedAnnotator,
    correct,
    predict_photographs,
    predict_scenes,
)

SCENES = int(os.environ.get("GATE_SCENES", "400"))
SEEDS = HELD_OUT_SEEDS[5000 : 5000 + SCENES]
PROJECTS = 100
CONFIDENCE = 0.95

#: Who corrects, and the share that the team wants: few pictures are right to the last pixel.
Team = tuple[SimulatedAnnotator, float]
TEAMS: Mapping[str, Team] = {
    "corrects below IoU 0.9": (SimulatedAnnotator(0.9), 0.95),
    "corrects below IoU 0.75, overlooks 1 in 10": (SimulatedAnnotator(0.75, 0.1), 0.95),
    "corrects below IoU 0.5, changes 1 in 100 for nothing": (SimulatedAnnotator(0.5, 0, 0.01), 0.9),
}
#: The weak street model is right to that extent at most; and the labels that are judged.
STREET_TEAMS: Mapping[str, tuple[Team, Sequence[str]]] = {
    "corrects sky and road below IoU 0.7": ((SimulatedAnnotator(0.7), 0.95), ("sky", "road")),
    "corrects sky and road below IoU 0.6, overlooks 1 in 10": (
        (SimulatedAnnotator(0.6, 0.1), 0.95),
        ("sky", "road"),
    ),
    "corrects four labels below IoU 0.2, changes 1 in 100 for nothing": (
        (SimulatedAnnotator(0.2, 0, 0.01), 0.9),
        STREET_LABELS,
    ),
}


@cache
def drawn() -> PredictedWorld:
    return predict_scenes(SEEDS)


@cache
def street() -> PredictedWorld:
    return predict_photographs()


def change_chance(scene: PredictedScene, annotator: SimulatedAnnotator) -> float:
    """Return the probability with which an annotator changes anything of a scene."""
    kept = [
        1 - annotator.fusses if iou >= annotator.good_iou else annotator.overlooks
        for iou in scene.ious.values()
    ]
    return 1 - math.prod(kept)


def truth(world: PredictedWorld, gate: Gate, annotator: SimulatedAnnotator) -> tuple[float, float]:
    """Return the share of all pictures that pass, and the true share of changes among them."""
    passing = [each for each in world.scenes if gate.passes(each.scores)]
    changes = [change_chance(each, annotator) for each in passing]
    return len(passing) / len(world.scenes), float(np.mean(changes)) if changes else 0.0


def project(
    world: PredictedWorld, annotator: SimulatedAnnotator, seed: int, count: int, by_drive: bool
) -> list[TaskOutcome]:
    """Correct tasks of a project.

    Args:
        world: what the tasks are drawn from.
        annotator: who corrects.
        seed: of all that is left to chance.
        count: outcomes that are returned.
        by_drive: whether drives are drawn, and corrected one after another; else pictures are.
    """
    rng = np.random.default_rng([seed, 20261126])
    order: list[int] = []
    while len(order) < count:
        number = int(rng.integers(len(world.drives) if by_drive else len(world.scenes)))
        order += world.drives[number] if by_drive else [number]
    tasks = rng.permutation(100 * count)[:count].tolist()
    return [
        replace(correct(task, world.scenes[index], annotator, rng), annotations=(place,))
        for place, (index, task) in enumerate(zip(order[:count], tasks, strict=True))
    ]


def gates(outcomes: Sequence[TaskOutcome], share: float) -> Iterator[Gate]:
    return (make_gate(outcomes[:look], share, CONFIDENCE) for look in LOOKS)


@pytest.mark.parametrize("team", TEAMS)
def test_the_promise_holds_and_coverage(report: Report, team: str) -> None:
    measure(report, drawn(), team, TEAMS[team], by_drive=False)


@pytest.mark.parametrize("by_drive", [False, True], ids=["random order", "drive after drive"])
@pytest.mark.parametrize("team", STREET_TEAMS)
def test_the_promise_on_street_photographs(report: Report, team: str, by_drive: bool) -> None:
    who, labels = STREET_TEAMS[team]
    measure(report, street().only(labels), team, who, by_drive)


def measure(report: Report, world: PredictedWorld, who: str, team: Team, by_drive: bool) -> None:
    (annotator, share), broken, coverages = team, 0, []
    for seed in range(PROJECTS):
        outcomes = project(world, annotator, seed, LOOKS[-1], by_drive)
        found = [truth(world, gate, annotator) for gate in gates(outcomes, share)]
        broken += any(changes > 1 - share for _, changes in found)
        coverages.append([covered for covered, _ in found])
    table = np.array(coverages)
    untouched = 1 - np.mean([change_chance(each, annotator) for each in world.scenes])
    covered = ", ".join(f"{100 * each:.0f}" for each in table.mean(axis=0))
    opened = ", ".join(str(each) for each in (table > 0).sum(axis=0))
    report.add(
        f"acceptance gate, {100 * share:.0f} % without a change, annotator {who}, "
        f"{'drive after drive' if by_drive else 'random order'}: projects in which it holds at all "
        "looks",
        f"≥ 95 of {PROJECTS}",
        f"{PROJECTS - broken} of {PROJECTS}",
        f"{covered} % of the pictures pass after {', '.join(map(str, LOOKS))} corrections, in "
        f"mean; open in {opened} projects; {100 * untouched:.0f} % of all need no change; "
        f"{world.name}",
    )
    assert broken <= 0.05 * PROJECTS


def test_near_duplicates_make_it_no_surer_than_it_is(report: Report) -> None:
    """Each picture is there four times, one after another."""
    annotator, share = TEAMS["corrects below IoU 0.75, overlooks 1 in 10"]
    broken = 0
    for seed in range(PROJECTS):
        own = project(drawn(), annotator, seed, LOOKS[0], by_drive=False)
        four = [
            replace(each, task=4 * each.task + copy, annotations=(4 * place + copy,))
            for place, each in enumerate(own)
            for copy in range(4)
        ]
        _, changes = truth(drawn(), make_gate(four, share, CONFIDENCE), annotator)
        broken += changes > 1 - share
    report.add(
        "acceptance gate, each of 200 pictures four times in a row: projects in which it holds",
        f"≥ 95 of {PROJECTS}",
        f"{PROJECTS - broken} of {PROJECTS}",
    )
    assert broken <= 0.05 * PROJECTS
