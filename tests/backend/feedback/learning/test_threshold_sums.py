"""The sums of threshold counts are those of the examples, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update

from backend.database.database import Database
from backend.feedback.learning import example_store
from backend.feedback.learning.tables import EXAMPLES
from backend.feedback.learning.threshold_sums import THRESHOLD_SUMS
from backend.feedback.learning.thresholds import ThresholdCounts, add_up, counts_from_json
from backend.feedback.learning.versions import TrainingExample
from tests.backend.fakes.learning_stores import LearningStores

Summed = dict[str, dict[str, Any]]


def counted(rng: random.Random, labels: str) -> TrainingExample:
    """An example with counts of some labels; few pictures, so that several show the same."""
    counts = {
        label: ThresholdCounts(
            np.array([rng.randrange(1 << 20) for _ in range(50)], np.float64),
            np.array([rng.randrange(1 << 20) for _ in range(50)], np.float64),
            rng.randrange(1 << 24),
            frozenset(rng.sample(["p", "q", "r"], rng.randrange(2))),
        ).to_json()
        for label in labels
    }
    content = f"{rng.random()}"
    return TrainingExample(content, content.encode(), json.dumps(counts))


def as_json(counts: Mapping[str, ThresholdCounts]) -> Summed:
    return {name: each.to_json() for name, each in counts.items()}


def summed(learning: LearningStores, project: int = 7) -> Summed:
    return as_json(counts_from_json(learning.examples.threshold_sums(project)))


def added_up(learning: LearningStores, project: int = 7) -> Summed:
    stored = learning.examples.examples(project)
    return as_json(add_up(counts_from_json(each.threshold_counts) for each in stored))


def test_whatever_changes_the_sums_are_those_of_the_examples(
    learning: LearningStores, other: LearningStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_store, "MOST_ANNOTATIONS", 5)
    rng = random.Random(0)
    for step in range(60):
        stores, annotation = rng.choice((learning, other)), rng.randrange(12)
        if rng.random() < 0.3:
            stores.examples.forget(annotation)
        else:
            examples = [counted(rng, rng.choice(("a", "ab", "c"))) for _ in range(rng.randrange(3))]
            stores.examples.replace(annotation, rng.choice((7, 8)), examples)
        if step % 5 == 0:
            for project in (7, 8):
                assert summed(learning, project) == added_up(other, project)
    for annotation in range(12):
        learning.examples.forget(annotation)
    assert summed(learning) == summed(learning, 8) == {}


def test_the_sums_are_made_anew_where_they_are_not_of_all_examples(
    database: Database, learning: LearningStores
) -> None:
    """As after an upgrade, or where an earlier release has added examples since."""
    rng = random.Random(1)
    for annotation in range(4):
        learning.examples.replace(annotation, 7, [counted(rng, "ab")])
    with database.write() as connection:
        connection.execute(delete(THRESHOLD_SUMS))
    learning.examples.replace(9, 7, [counted(rng, "a")])
    assert summed(learning) == added_up(learning)
    with database.write() as connection:
        connection.execute(delete(EXAMPLES).where(EXAMPLES.c.annotation == 2))
    assert summed(learning) == added_up(learning)


def test_the_sums_are_read_in_place_of_the_examples(
    database: Database, learning: LearningStores
) -> None:
    learning.examples.replace(1, 7, [counted(random.Random(2), "a")])
    before = summed(learning)
    with database.write() as connection:
        connection.execute(update(EXAMPLES).values(paint="not read"))
    assert summed(learning) == before


def test_a_reset_forgets_the_sums_with_the_examples(learning: LearningStores) -> None:
    learning.examples.replace(1, 7, [counted(random.Random(3), "a")])
    learning.registry.reset(7, keep_examples=True)
    assert summed(learning) == added_up(learning) != {}
    learning.registry.reset(7)
    assert summed(learning) == {}
