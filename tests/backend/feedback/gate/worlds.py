"""Projects as a draw of chance: outcomes whose truth is known."""

from __future__ import annotations

import numpy as np

from backend.feedback.gate.outcomes import TaskOutcome

#: From this score on, a label of `good_world` never needs a change.
SAFE_FROM = 0.6


def good_world(count: int, seed: int, *, missed: float = 0.0) -> list[TaskOutcome]:
    """Return outcomes of tasks with "car", "tree" or both.

    A car needs a change below `SAFE_FROM` and never above it; a tree needs one in half of the
    pictures, whatever its score. Two tasks in three have no tree.

    Args:
        count: number of tasks.
        seed: of chance.
        missed: share of the tasks that lack a thing.
    """
    rng = np.random.default_rng(seed)
    made = []
    for task in rng.permutation(10 * count)[:count].tolist():
        scores, changed = {"car": float(rng.random())}, set()
        if scores["car"] < SAFE_FROM and rng.random() < 0.7:
            changed.add("car")
        if rng.random() < 1 / 3:
            scores["tree"] = float(rng.random())
            if rng.random() < 0.5:
                changed.add("tree")
        if rng.random() < missed:
            changed.add("sign")
        made.append(TaskOutcome(task, (task,), scores, frozenset(changed)))
    return made
