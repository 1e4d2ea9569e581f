"""The pictures of a project page are those at the two ends of the scores."""

import pytest

from backend.database.database import Database
from backend.learning.compared_images import BeforeAfter, ComparedImage
from backend.projects.scores import ScoreStore
from backend.views.glance import LearnedChanges, glance
from tests.backend.fakes.learning_stores import LearningStores, adaptation, version_with


@pytest.fixture
def scores() -> ScoreStore:
    return ScoreStore(Database("sqlite://"))


def tasks(scores: ScoreStore, *, by_confidence: bool = True) -> list[int]:
    return [each.task for each in glance(scores, 7, "v1", by_confidence=by_confidence)]


def test_three_of_each_end_are_shown_the_least_certain_first(scores: ScoreStore) -> None:
    scores.keep(7, "v1", {task: task / 10 for task in range(1, 10)})
    assert tasks(scores) == [1, 2, 3, 7, 8, 9]


def test_a_high_score_may_be_that_of_an_uncertain_prediction(scores: ScoreStore) -> None:
    scores.keep(7, "v1", {task: task / 10 for task in range(1, 10)})
    assert tasks(scores, by_confidence=False) == [9, 8, 7, 3, 2, 1]


def test_no_picture_is_shown_twice(scores: ScoreStore) -> None:
    scores.keep(7, "v1", {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})
    assert tasks(scores) == [1, 2, 3, 4]


def test_predictions_of_another_version_are_left_out(scores: ScoreStore) -> None:
    scores.keep(7, "v0", {1: 0.1, 2: 0.9})
    scores.keep(7, "v1", {3: 0.5})
    assert tasks(scores) == [3]


def learned(*tasks: int) -> LearningStores:
    """Make a version that waits for somebody, with pictures of its changes in some tasks."""
    stores = LearningStores.of(Database("sqlite://"), "me")
    stores.replace_all(1)
    images = (ComparedImage(task, "a", "b", "c", changes="d", changed=0.5) for task in tasks)
    lease, scores = stores.lease(), adaptation()
    stores.versions.commit(lease, version_with(scores), scores, "auto", BeforeAfter((*images,)))
    return stores


def test_a_version_that_waits_shows_what_it_would_change() -> None:
    changes = LearnedChanges.read(learned(4, 5, 6, 7).versions, 7)
    assert changes.heading == "What version 1 would change"
    assert [each.task for each in changes.pictures] == [4, 5, 6]


def test_a_version_in_use_shows_what_it_has_changed() -> None:
    stores = learned(4)
    stores.use_first()
    assert LearnedChanges.read(stores.versions, 7).heading == "What version 1 has changed"


def test_nothing_is_shown_where_nothing_was_learned_or_changes() -> None:
    assert LearnedChanges.read(learned().versions, 7) == LearnedChanges()
    assert LearnedChanges.read(learned(4).versions, 8) == LearnedChanges()
