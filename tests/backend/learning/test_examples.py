"""Training examples, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import pytest

from backend.database.database import Database
from backend.errors import ModelUnavailable
from backend.learning import examples
from tests.backend.fakes.learning_stores import LearningStores, example


def test_an_example_that_comes_again_changes_nothing(learning: LearningStores) -> None:
    assert learning.examples.replace(1, 7, [example("a"), example("b")])
    assert not learning.examples.replace(1, 7, [example("a"), example("b")])
    state = learning.versions.state(7)
    assert (state.changed, state.annotations) == (1, 1)
    assert learning.examples.replace(1, 7, [example("b")])
    assert [each.digest for each in learning.examples.examples(7)] == ["b"]
    assert learning.examples.forget(1)
    assert not learning.examples.forget(1)
    assert learning.examples.examples(7) == []


def test_the_order_in_which_several_learn_does_not_matter(
    learning: LearningStores, other: LearningStores
) -> None:
    learning.replace_all(3, 1)
    other.replace_all(2)
    content = [(each.digest, each.example) for each in other.examples.examples(7)]
    assert content == [(f"of {i}", f"of {i}".encode()) for i in (1, 2, 3)]
    assert other.versions.state(7).changed == 3


def test_what_is_deleted_is_forgotten_by_all_models_loaded_or_not(
    database: Database, learning: LearningStores
) -> None:
    def unloaded() -> str:
        raise ModelUnavailable("The weights are missing.")

    elsewhere = LearningStores.of(database, "me", lambda: "another")
    for each in (learning, elsewhere):
        each.replace_all(1, 2)
        each.make_version()
    assert LearningStores.of(database, "me", unloaded).examples.forget(1)
    for each in (learning, elsewhere):
        state = each.versions.state(7)
        assert (state.annotations, state.changed, state.live) == (1, 1, 1)
    assert elsewhere.examples.forget(2)
    for each in (learning, elsewhere):
        assert each.examples.examples(7) == []
        assert each.versions.active(7, "auto") is None


def test_the_newest_annotations_count(
    learning: LearningStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MOST_ANNOTATIONS", 2)
    learning.replace_all(5, 1, 3)
    assert sorted(each.annotation for each in learning.examples.examples(7)) == [3, 5]
    assert learning.examples.is_too_old(2, 7)
    assert not learning.examples.is_too_old(4, 7)
