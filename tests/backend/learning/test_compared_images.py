"""Pictures of what a version changes, and the trial of propagated scores."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.database.database import Database
from backend.learning.compared_images import Work
from tests.backend.fakes.colour_segmenter import (
    ColourSegmenter,
    pixels_of,
)
from tests.backend.feedback.test_comparison import region
from tests.backend.learning.school import (
    CONFIG,
    School,
    Studio,
    flags,
    left_third,
)

#: PostgreSQL's double has its tests in `test_versions.py`.
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def test_before_and_after_are_shown(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """On its pictures as they were held out; an annotation that is gone is left out."""
    school, there = School(database), Studio(CONFIG.replace('"wine"', '"wine" background="Red"'))
    there.regions = {1: [region("a", "wine", left_third(), to_name="image")]}
    school.learn(1)
    school.learn(2, image="red")
    assert school.learner.take_due_step(there)
    before_after = school.stores.versions.before_after(7, 1)
    (shown,) = before_after.pictures
    assert shown.task == 1
    third = pytest.approx(1 / 3)  # to erase: the blue one, which nobody has labelled
    assert (shown.text_work, shown.adapted_work) == (Work(third, third), Work(0, third))
    assert before_after.colours["wine"] == "#ff0000"
    assert set(before_after.colours) == {"wine", "blue"}
    pictures = [pixels_of(url) for url in (shown.annotated, shown.words, shown.adapted)]
    third = np.s_[5:35, 2:18]
    assert np.allclose(pictures[0][third], pictures[2][third], atol=12)


@pytest.mark.parametrize(
    ("sees_propagated", "count", "is_used"), [(True, 8, True), (False, 8, False), (True, 5, None)]
)
def test_a_version_propagates_its_scores_where_held_out_pictures_gain_by_it(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    sees_propagated: bool,
    count: int,
    is_used: bool | None,
) -> None:
    """The stand-in sees wine only where scores are propagated, or only where they are not.

    That is clear after six of the eight.
    """
    decide = ColourSegmenter.decide

    def some(self: Any, scores: Any, *how: Any) -> Any:
        sees = how[-1] == sees_propagated
        return decide(self, scores if sees else replace(scores, taught={}), *how)

    monkeypatch.setattr(ColourSegmenter, "decide", some)
    school, there = School(database), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, count + 1):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    version, adaptation = school.stores.versions.version(7, 1)
    assert adaptation is not None
    assert adaptation.propagate == bool(is_used)
    assert version.digest == adaptation.digest
    trial = version.propagation_trial
    assert (None if trial is None else trial.is_used) == is_used
    if trial is not None:
        assert (trial.pictures, trial.gain) == (6, pytest.approx(1 if sees_propagated else -1))
        assert trial.losing == (() if sees_propagated else ("wine",))


def test_a_trial_whose_sign_is_not_clear_takes_no_more_than_twelve_pictures(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in sees wine in turns: where scores are propagated, and where they are not."""
    decide, tried = ColourSegmenter.decide, itertools.count()

    def in_turns(self: Any, scores: Any, *how: Any) -> Any:
        sees = next(tried) % 4 in (0, 3)
        return decide(self, scores if sees else replace(scores, taught={}), *how)

    monkeypatch.setattr(ColourSegmenter, "decide", in_turns)
    school, there = School(database), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, 15):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    trial = school.stores.versions.versions(7)[0].propagation_trial
    assert trial is not None
    assert (trial.pictures, trial.is_used) == (12, False)
    assert trial.low < 0 < trial.high


def test_nothing_is_tried_where_all_scores_are_propagated(database: Database) -> None:
    school, there = School(database, propagate=True), Studio(CONFIG)
    school.learner.read_image = flags
    for number in range(1, 8):
        there.regions[number] = [region("a", "wine", left_third(), to_name="image")]
        school.learn(number)
    assert school.learner.take_due_step(there)
    assert school.stores.versions.versions(7)[0].propagation_trial is None


def test_the_picture_of_changes_is_green_where_the_version_alone_is_right(
    database: Database,
) -> None:
    school, there = School(database), Studio(CONFIG)
    there.regions = {1: [region("a", "wine", left_third(), to_name="image")]}
    school.learn(1)
    school.learn(2, image="red")
    assert school.learner.take_due_step(there)
    (shown,) = school.stores.versions.before_after(7, 1).pictures
    assert (shown.changed, shown.gained, shown.lost) == (pytest.approx(1 / 3),) * 2 + (0,)
    picture = pixels_of(shown.changes).astype(int)
    red, green, blue = picture[5:35, 4:16].reshape(-1, 3).mean(0)
    assert green > red + 20
    assert green > blue + 20
    assert np.ptp(picture[5:35, 30:].reshape(-1, 3).mean(0)) < 6, "the rest is grey"
    assert school.stores.versions.before_after(7, 9).pictures == ()
