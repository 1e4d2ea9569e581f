"""Training examples, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import numpy as np
import pytest

from backend.database.database import Database
from backend.errors import LearningRefused, ModelUnavailable
from backend.feedback.learning.versions import TrainingExample
from clearclip_core import Example
from tests.backend.conftest import Clock
from tests.backend.fakes.learning_stores import LearningStores, example


def test_an_example_that_comes_again_changes_nothing(learning: LearningStores) -> None:
    assert learning.examples.replace(1, 7, [example("a"), example("b")])
    assert not learning.examples.replace(1, 7, [example("a"), example("b")])
    state = learning.registry.state(7)
    assert (state.changed, state.annotations, state.pictures) == (1, 1, 2)
    assert learning.examples.replace(1, 7, [example("b")])
    assert [each.digest for each in learning.examples.examples(7)] == ["b"]
    assert learning.examples.forget(1)
    assert not learning.examples.forget(1)
    assert learning.examples.examples(7) == []


def test_an_example_that_is_changed_keeps_the_time_at_which_it_came(
    learning: LearningStores, clock: Clock
) -> None:
    learning.replace_all(1)
    (before,) = learning.examples.examples(7)
    clock.now += 60
    learning.examples.replace(1, 7, [example("changed")])
    learning.replace_all(2)
    known = {each.digest: each.learned for each in learning.examples.examples(7)}
    assert known == {"changed": before.learned, "of 2": before.learned + 60}


def test_the_order_in_which_several_learn_does_not_matter(
    learning: LearningStores, other: LearningStores
) -> None:
    learning.replace_all(3, 1)
    other.replace_all(2)
    content = [(each.digest, each.example) for each in other.examples.examples(7)]
    assert content == [(f"of {i}", f"of {i}".encode()) for i in (1, 2, 3)]
    assert other.registry.state(7).changed == 3


def test_an_annotation_that_moves_to_another_project_is_there_alone(
    learning: LearningStores,
) -> None:
    learning.replace_all(1, project=7)
    learning.make_version()
    learning.replace_all(1, project=8)
    assert learning.examples.examples(7) == []
    assert learning.registry.state(7).live is None
    assert learning.registry.state(8).pictures == 1


def test_each_model_has_its_own(database: Database, learning: LearningStores) -> None:
    elsewhere = LearningStores.of(database, "me", lambda: "another")
    learning.replace_all(1, 2)
    learning.make_version()
    assert elsewhere.examples.examples(7) == []
    assert elsewhere.active_models.get(7, "scores") is None
    assert elsewhere.steps.lease_step(1) is None
    assert elsewhere.registry.projects() == []


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
        state = each.registry.state(7)
        assert (state.annotations, state.changed, state.live) == (1, 1, 1)
    assert elsewhere.examples.forget(2)
    assert not elsewhere.examples.forget(2)
    for each in (learning, elsewhere):
        assert each.examples.examples(7) == []
        assert each.active_models.get(7, "scores") is None


def test_without_examples_the_words_decide_at_once(
    learning: LearningStores, other: LearningStores
) -> None:
    learning.replace_all(1, 2)
    learning.make_version()
    learning.examples.forget(1)
    assert other.active_models.get(7, "scores") is not None
    learning.examples.forget(2)
    assert other.active_models.get(7, "scores") is None
    assert (other.registry.state(7).changed, other.steps.lease_step(1)) == (0, None)


def test_an_annotation_is_trusted_until_it_is_not_or_is_gone(
    learning: LearningStores, other: LearningStores
) -> None:
    with pytest.raises(LearningRefused, match="does not learn from annotation 3"):
        learning.examples.trust(7, 3)
    learning.replace_all(3, 4, 5)
    before = learning.registry.state(7).changed
    for annotation in (3, 4, 4):
        learning.examples.trust(7, annotation)
    assert other.examples.trusted(7) == [3, 4]
    assert other.registry.state(7).changed == before + 2, "the next fit is due sooner"
    other.examples.trust(7, 4, trusted=False)
    other.examples.trust(7, 99, trusted=False)
    assert learning.examples.trusted(7) == [3]
    learning.examples.forget(3)
    assert learning.examples.trusted(7) == []
    assert learning.examples.trusted(8) == []


def painted(share: float, feature: float = 1.0) -> TrainingExample:
    """Of a picture of one patch, of which a car covers a share."""
    made = Example(
        ("car",),
        ("", "car"),
        np.array([1 - share, share], np.float32),
        np.ones((2, 3), np.float32),
        np.full((1, 3), feature, np.float16),
        np.array([[1 - share, share]], np.float16),
        np.ones(1, np.float32),
        picture="a picture",
    )
    return TrainingExample(made.digest, made.to_bytes(), "{}")


def test_trust_is_in_what_is_painted(learning: LearningStores) -> None:
    for annotation in (3, 4, 5):
        learning.examples.replace(annotation, 7, [painted(0.5)])
        learning.examples.trust(7, annotation)
    learning.examples.replace(3, 7, [painted(0.5, feature=1.01)])
    assert learning.examples.trusted(7) == [3, 4, 5], "only the model's precision differs"
    learning.examples.replace(3, 7, [painted(0.75)])
    learning.examples.replace(4, 7, [painted(0.5), painted(0.5)])
    assert learning.examples.trusted(7) == [5]
    learning.examples.replace(3, 7, [painted(0.5)])
    assert learning.examples.trusted(7) == [5], "nobody has looked at it since"


def test_trust_ends_with_the_examples_that_newer_annotations_replace(
    learning: LearningStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.feedback.learning.example_store.MOST_ANNOTATIONS", 2)
    learning.replace_all(1, 2)
    for annotation in (1, 2):
        learning.examples.trust(7, annotation)
    learning.replace_all(3)
    assert (learning.examples.annotations(7), learning.examples.trusted(7)) == ([2, 3], [2])


def test_trust_ends_where_another_model_has_no_example_to_compare(
    learning: LearningStores, database: Database
) -> None:
    for annotation in (3, 4):
        learning.examples.replace(annotation, 7, [painted(0.5)])
        learning.examples.trust(7, annotation)
    elsewhere = LearningStores.of(database, "me", lambda: "another model")
    elsewhere.examples.replace(3, 7, [painted(0.75)])
    assert learning.examples.trusted(7) == [4]
