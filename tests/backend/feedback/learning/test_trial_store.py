"""What is kept of trials, as SQLite and as a real PostgreSQL, for two backends that share it."""

from __future__ import annotations

from backend.database.database import Database
from backend.feedback.learning.trials import Trial, TrialPicture
from tests.backend.conftest import Clock
from tests.backend.fakes.learning_stores import LearningStores


def worse(number: int, count: int = 30, first: int = 0) -> list[TrialPicture]:
    """Pictures on which a version was worse than the one before, and as good as the words."""
    return [
        TrialPicture(number, f"p{index}", index, -0.4, 0.0) for index in range(first, first + count)
    ]


def tick(database: Database) -> float:
    assert isinstance(database.clock, Clock)
    database.clock.now += 1
    return database.clock.now


def on_trial(learning: LearningStores, database: Database) -> Trial:
    """Make versions 1 and 2, and let both be on trial."""
    learning.replace_all(1, 2)
    learning.make_version("a")
    learning.trials.current(7)
    tick(database)
    learning.make_version("b", number=2.0)
    trial = learning.trials.current(7)
    assert trial is not None
    return trial


def test_a_trial_begins_with_the_version_that_is_live(
    learning: LearningStores, other: LearningStores, database: Database
) -> None:
    assert learning.trials.current(7) is None
    trial = on_trial(learning, database)
    assert (trial.number, trial.before) == (2, 1)
    tick(database)
    assert other.trials.current(7) == trial
    learning.registry.roll_back(7, 0)
    assert other.trials.current(7) is None
    learning.registry.roll_back(7, 2)
    again = other.trials.current(7)
    assert again is not None
    assert again.before is None, "the words were live in between"


def test_a_version_with_a_lower_number_is_not_compared_with_one_that_came_later(
    learning: LearningStores, database: Database
) -> None:
    on_trial(learning, database)
    learning.registry.roll_back(7, 1)
    trial = learning.trials.current(7)
    assert trial is not None
    assert (trial.number, trial.before) == (1, None)


def test_what_is_worse_is_rolled_back_and_what_became_of_it_is_kept(
    learning: LearningStores, other: LearningStores, database: Database
) -> None:
    on_trial(learning, database)
    assert learning.trials.add(7, worse(2, 3), "digest") is None
    assert len(other.trials.pictures(7)) == 3
    now = tick(database)
    found = other.trials.add(7, worse(2), "digest")
    assert found is not None
    assert (found.number, found.target, found.pictures, found.at) == (2, 1, 30, now)
    assert learning.registry.state(7).live == 1
    assert not learning.registry.state(7).pinned
    assert learning.trials.rollbacks(7) == learning.trials.rollbacks() == [(7, found)]
    assert learning.trials.rollbacks(8) == []
    assert learning.trials.pictures(7) == []
    trial = learning.trials.current(7)
    assert trial is not None
    assert (trial.number, trial.before) == (1, None)


def test_a_picture_counts_once(learning: LearningStores, database: Database) -> None:
    on_trial(learning, database)
    for _ in range(30):
        assert learning.trials.add(7, worse(2, 1), "digest") is None
    assert len(learning.trials.pictures(7)) == 1


def test_what_is_pinned_stays(learning: LearningStores, database: Database) -> None:
    on_trial(learning, database)
    learning.registry.pin(7)
    assert learning.trials.add(7, worse(2), "digest") is None
    assert learning.registry.state(7).live == 2
    learning.registry.pin(7, pinned=False)
    found = learning.trials.add(7, worse(2, 1, first=99), "digest")
    assert found is not None
    assert found.pictures == 31


def test_pictures_of_a_version_that_is_live_no_more_are_not_kept(
    learning: LearningStores, database: Database
) -> None:
    on_trial(learning, database)
    learning.registry.roll_back(7, 1)
    assert learning.trials.add(7, worse(2), "digest") is None
    assert learning.trials.pictures(7) == []


def test_the_pictures_that_a_version_was_fitted_to_are_kept_with_it(
    learning: LearningStores,
) -> None:
    learning.replace_all(1)
    assert learning.trials.fitted_pictures(7, 1) is None
    learning.make_version("a")
    assert learning.trials.fitted_pictures(7, 1) == {"p", "q"}
    learning.registry.reset(7)
    assert learning.trials.fitted_pictures(7, 1) is None


def test_a_reset_forgets_trials_rollbacks_and_trust(
    learning: LearningStores, database: Database
) -> None:
    on_trial(learning, database)
    learning.examples.trust(7, 1)
    learning.trials.add(7, worse(2), "digest")
    learning.registry.reset(7, keep_examples=True)
    assert learning.trials.rollbacks(7) == []
    assert learning.trials.current(7) is None
    assert learning.examples.trusted(7) == [1]
    learning.registry.reset(7)
    assert learning.examples.trusted(7) == []
