"""Gates on projects whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.feedback.gate.gate import LOOKS, Gate, make_gate
from backend.feedback.gate.outcomes import TaskOutcome
from tests.backend.feedback.gate.worlds import SAFE_FROM, good_world


def test_a_gate_lets_through_what_is_safe_and_nothing_else() -> None:
    gate = make_gate(good_world(800, seed=1), 0.95, 0.95)
    assert gate.is_open
    assert gate.passes({"car": 0.99})
    assert not gate.passes({"car": 0.3})
    assert not gate.passes({"car": 0.99, "tree": 0.99}), "trees are wrong half of the time"
    assert not gate.passes({"car": 0.99, "boat": 0.99}), "nobody has corrected a boat"
    assert not gate.passes({}), "nothing speaks for an empty prediction"
    # 0.4 of the tasks have a safe car, and 2 in 3 of these no tree
    assert 0.15 < gate.coverage < 0.4
    unseen = [each for each in good_world(5000, seed=2) if gate.passes(each.scores)]
    assert sum(bool(each.changed) for each in unseen) <= 0.05 * len(unseen)


def test_the_score_that_each_label_is_safe_from_is_found() -> None:
    gate = make_gate(good_world(1600, seed=3), 0.95, 0.95)
    car, sign_or_tree = gate.labels[0], gate.labels[-1]
    assert car.label == "car"
    assert car.alone is not None
    assert SAFE_FROM - 0.1 < car.alone < 0.85
    assert car.alone_kept >= 0.95 * car.alone_pictures
    assert sign_or_tree.label == "tree"
    assert sign_or_tree.alone is None
    assert sign_or_tree.asked is None
    assert car.pictures == 1600


def test_things_that_are_missed_close_a_gate_whose_regions_are_all_right() -> None:
    gate = make_gate(good_world(1600, seed=4, missed=0.12), 0.95, 0.95)
    assert not gate.is_open
    assert gate.bound is None
    assert not gate.passes({"car": 0.99})
    car = gate.labels[0]
    assert car.alone is not None, "the label by itself is safe"


def test_too_few_pictures_open_nothing() -> None:
    assert not make_gate(good_world(60, seed=5), 0.95, 0.95).is_open
    assert not make_gate([], 0.95, 0.95).is_open


@pytest.mark.parametrize("share", [0.95, 0.9])
def test_the_bound_is_on_the_wanted_side(share: float) -> None:
    gate = make_gate(good_world(800, seed=6), share, 0.95)
    assert gate.bound is not None
    assert gate.changed / gate.passed < gate.bound <= 1 - share


def test_all_looks_together_keep_the_promise() -> None:
    """A project without any safe score whose tasks need no change in 94 of 100: 5 % may be wrong.

    The gate is made at each look; one that lets anything pass is wrong.
    """
    wrong = 0
    for seed in range(60):
        world = [
            replace(each, scores={"car": each.scores["car"]}, changed=frozenset())
            for each in good_world(LOOKS[-1], seed=1000 + seed)
        ]
        bad = good_world(LOOKS[-1], seed=3000 + seed, missed=0.06)
        world = [
            replace(each, changed=each.changed | (other.changed & {"sign"}))
            for each, other in zip(world, bad, strict=True)
        ]
        wrong += any(make_gate(world[:look], 0.95, 0.95).is_open for look in LOOKS)
    assert wrong <= 6  # 3 are expected at most; more than 6 have a chance of 3 in 100


def drives(seed: int, frames: int) -> list[TaskOutcome]:
    """Drives, corrected one after another: in one of eight, half of the tasks need a change.

    So 6 % of all do, whatever the score, which is much alike in a drive.
    """
    rng = np.random.default_rng(seed)
    tasks = rng.permutation(100 * LOOKS[-1])[: LOOKS[-1]].tolist()
    made = []
    for place, task in enumerate(tasks):
        if place % frames == 0:
            chance, score = 0.5 if rng.random() < 1 / 8 else 0.0, rng.uniform(0.3, 0.9)
        changed = frozenset({"car"} if rng.random() < chance else ())
        made.append(TaskOutcome(task, (place,), {"car": score + 0.1 * rng.random()}, changed))
    return made


def test_drives_that_are_corrected_one_after_another_open_nothing_by_luck() -> None:
    """Were each frame counted in full, the gate would open in nine of ten such projects."""
    opened = sum(
        any(make_gate(drives(seed, 40)[:look], 0.95, 0.95).is_open for look in LOOKS[:3])
        for seed in range(10)
    )
    assert opened <= 1


def test_a_task_stands_where_it_was_first_annotated() -> None:
    """Second annotations came in later, and are read in any order."""
    once = drives(1, 40)
    later = np.random.default_rng(0).permutation(LOOKS[-1]) + LOOKS[-1]
    twice = [
        replace(each, annotations=(int(second), *each.annotations))
        for each, second in zip(once, later, strict=True)
    ]
    assert make_gate(twice, 0.95, 0.95) == make_gate(once, 0.95, 0.95)


def test_the_checked_tasks_are_counted_as_independent_ones() -> None:
    shuffled = make_gate(good_world(800, seed=8), 0.95, 0.95)
    assert shuffled.independent == shuffled.checked
    in_drives = make_gate(drives(1, 40), 0.95, 0.95)
    assert in_drives.independent is not None
    assert in_drives.independent < 0.2 * in_drives.checked


def test_a_gate_comes_back_from_json() -> None:
    gate = make_gate(good_world(400, seed=7), 0.95, 0.95)
    assert Gate.from_json(gate.to_json()) == gate


def test_a_gate_of_an_earlier_release_counts_nothing_as_independent() -> None:
    stored = make_gate(good_world(400, seed=7), 0.95, 0.95).to_json()
    del stored["independent"]
    assert Gate.from_json(stored).independent is None
