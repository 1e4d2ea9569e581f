"""Versions and what is live, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import pytest

from backend.errors import LearningRefused
from backend.feedback.learning import example_store, version_rows
from backend.feedback.learning.versions import Version
from backend.settings import Adapt
from tests.backend.fakes.learning_stores import LearningStores, adaptation, version


def test_where_a_project_is_pinned_nothing_moves(learning: LearningStores) -> None:
    learning.replace_all(1, 2)
    learning.make_version()
    running = learning.steps.lease_step(1, 7)
    assert running is not None
    assert learning.registry.pin(7).pinned
    learning.steps.commit(running, version("b"), adaptation(2), "live")
    assert learning.registry.state(7).live == 1
    assert learning.steps.lease_step(0) is None
    with pytest.raises(LearningRefused, match="pinned"):
        learning.steps.request(7)
    with pytest.raises(LearningRefused, match="pinned"):
        learning.registry.import_version(7, version("c"), adaptation())
    learning.examples.forget(1)
    learning.examples.forget(2)
    assert learning.registry.state(7).live == 1
    assert not learning.registry.pin(7, pinned=False).pinned


def test_back_goes_to_the_last_better_one_and_stays_there(learning: LearningStores) -> None:
    with pytest.raises(LearningRefused, match="the words alone"):
        learning.registry.roll_back(7)
    learning.replace_all(1)
    for digest, better in (("a", True), ("b", False), ("c", True)):
        learning.make_version(digest, better)
    state = learning.registry.roll_back(7)
    assert (state.live, state.pinned) == (1, True)
    assert learning.registry.roll_back(7).live is None
    assert learning.registry.roll_back(7, 3).live == 3
    for number in (2, 4):
        with pytest.raises(LearningRefused, match=f"no version {number}"):
            learning.registry.roll_back(7, number)
    assert learning.registry.roll_back(7, 0).live is None


@pytest.mark.parametrize("mode", ["thresholds", "all", "scores"])
def test_back_goes_to_thresholds_where_they_are_used(learning: LearningStores, mode: Adapt) -> None:
    """By the mode; or, where only the label config says so, by what is live."""
    learning.replace_all(1)
    for digest in "abc":
        lease = learning.steps.lease_step(1, 7)
        assert lease is not None
        learning.steps.commit(lease, version(digest, better=False), None, "live")
    assert learning.registry.roll_back(7, mode=mode).live == 2
    assert learning.registry.roll_back(7, 1, mode).live == 1
    with pytest.raises(LearningRefused, match=r"no version 9\."):
        learning.registry.roll_back(7, 9, mode)
    assert learning.registry.roll_back(7, mode=mode).live is None


def test_reset_forgets_all_or_all_but_the_examples(learning: LearningStores) -> None:
    learning.replace_all(1, 2)
    learning.make_version()
    learning.registry.pin(7)
    state = learning.registry.reset(7, keep_examples=True)
    assert (state.live, state.pinned, state.changed, state.pictures) == (None, False, 2, 2)
    assert learning.registry.versions(7) == []
    running = learning.steps.lease_step(1, 7)
    assert running is not None
    state = learning.registry.reset(7)
    assert (state.changed, state.pictures) == (0, 0)
    assert learning.steps.commit(running, version(), adaptation(), "live") is None


def test_what_equals_the_newest_version_is_no_new_one(learning: LearningStores) -> None:
    learning.replace_all(1)
    first = learning.make_version()
    learning.replace_all(2)
    assert learning.make_version() == first
    assert learning.make_version("b").number == 2
    assert [each.number for each in learning.registry.versions(7)] == [2, 1]
    assert learning.registry.version(7, 1)[0] == first
    with pytest.raises(LearningRefused, match="no version 9"):
        learning.registry.version(7, 9)


def test_what_comes_from_a_file_stays_without_examples(learning: LearningStores) -> None:
    learning.replace_all(1)
    imported = Version(5, 5, "file", True, origin="import")
    assert learning.registry.import_version(7, imported, adaptation()).number == 1
    learning.examples.forget(1)
    active = learning.active_models.get(7, "scores")
    assert active is not None
    assert active.annotations == 5


def test_what_is_kept_is_bounded(learning: LearningStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_store, "MOST_ANNOTATIONS", 2)
    monkeypatch.setattr(version_rows, "MOST_VERSIONS", 2)
    learning.replace_all(5, 1, 3)
    assert [each.digest for each in learning.examples.examples(7)] == ["of 3", "of 5"]
    for digest in "abc":
        learning.make_version(digest)
    assert [each.number for each in learning.registry.versions(7)] == [3, 2]
    learning.registry.roll_back(7, 2)
    learning.registry.pin(7, pinned=False)
    for digest in "def":
        lease = learning.steps.lease_step(1, 7)
        assert lease is not None
        learning.steps.commit(lease, version(digest), adaptation(), "stays")
    assert [each.number for each in learning.registry.versions(7)] == [6, 5, 2]
