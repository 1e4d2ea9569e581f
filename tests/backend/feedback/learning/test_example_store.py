"""Lessons and versions, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from backend.database.leases import LEASE_S
from backend.errors import LearningRefused, ModelUnavailable
from backend.feedback.learning import example_store as module
from backend.feedback.learning.example_store import ExampleStore
from backend.feedback.learning.versions import ActiveModel, StepLease, TrainingExample, Version
from backend.jobs.job_store import JobStore
from backend.settings import Adapt
from clearclip_core import Adaptation
from tests.backend.conftest import Clock


@pytest.fixture
def lessons(store: JobStore) -> ExampleStore:
    return ExampleStore(store, "me", lambda: "model")


@pytest.fixture
def other(store: JobStore) -> ExampleStore:
    return ExampleStore(store, "other", lambda: "model")


def lesson(content: str) -> TrainingExample:
    return TrainingExample(content, content.encode(), "{}")


def adaptation(number: float = 1.0) -> Adaptation:
    return Adaptation(("car",), np.full((1, 2), number, np.float32), np.zeros(1, np.float32), 1)


def version(digest: str = "a", better: bool = True) -> Version:
    return Version(10, 12, digest, better, 0.4, 0.5, {"car": 0.4}, {"car": 0.5}, {"car": 0.3})


def teach(lessons: ExampleStore, *annotations: int, project: int = 7) -> None:
    for annotation in annotations:
        lessons.replace(annotation, project, [lesson(f"of {annotation}")])


def make(
    lessons: ExampleStore, digest: str = "a", better: bool = True, number: float = 1.0
) -> Version:
    """A step of project 7 that comes to something."""
    turn = lessons.take_step(1, 7)
    assert turn is not None
    scores = adaptation(number) if better else None
    kept = lessons.settle(turn, version(digest, better), scores, "live" if better else "words")
    assert kept is not None
    return kept


def test_a_lesson_that_comes_again_changes_nothing(lessons: ExampleStore) -> None:
    assert lessons.replace(1, 7, [lesson("a"), lesson("b")])
    assert not lessons.replace(1, 7, [lesson("a"), lesson("b")])
    state = lessons.state(7)
    assert (state.changed, state.annotations, state.pictures) == (1, 1, 2)
    assert lessons.replace(1, 7, [lesson("b")])
    assert [each.digest for each in lessons.lessons(7)] == ["b"]
    assert lessons.forget(1)
    assert not lessons.forget(1)
    assert lessons.lessons(7) == []


def test_a_lesson_that_is_changed_keeps_the_time_at_which_it_came(
    lessons: ExampleStore, clock: Clock
) -> None:
    teach(lessons, 1)
    (before,) = lessons.lessons(7)
    clock.now += 60
    lessons.replace(1, 7, [lesson("changed")])
    teach(lessons, 2)
    known = {each.digest: each.learned for each in lessons.lessons(7)}
    assert known == {"changed": before.learned, "of 2": before.learned + 60}


def test_the_order_in_which_several_learn_does_not_matter(
    lessons: ExampleStore, other: ExampleStore
) -> None:
    teach(lessons, 3, 1)
    teach(other, 2)
    content = [(each.digest, each.example) for each in other.lessons(7)]
    assert content == [(f"of {i}", f"of {i}".encode()) for i in (1, 2, 3)]
    assert other.state(7).changed == 3


def test_an_annotation_that_moves_to_another_project_is_there_alone(lessons: ExampleStore) -> None:
    teach(lessons, 1, project=7)
    make(lessons)
    teach(lessons, 1, project=8)
    assert lessons.lessons(7) == []
    assert lessons.state(7).live is None
    assert lessons.state(8).pictures == 1


def test_each_model_has_its_own(store: JobStore, lessons: ExampleStore) -> None:
    elsewhere = ExampleStore(store, "me", lambda: "another")
    teach(lessons, 1, 2)
    make(lessons)
    assert elsewhere.lessons(7) == []
    assert elsewhere.learned(7, "scores") is None
    assert elsewhere.take_step(1) is None
    assert elsewhere.projects() == []


def test_what_is_deleted_is_forgotten_by_all_models_loaded_or_not(
    store: JobStore, lessons: ExampleStore
) -> None:
    def unloaded() -> str:
        raise ModelUnavailable("The weights are missing.")

    elsewhere = ExampleStore(store, "me", lambda: "another")
    for each in (lessons, elsewhere):
        teach(each, 1, 2)
        make(each)
    assert ExampleStore(store, "me", unloaded).forget(1)
    for each in (lessons, elsewhere):
        state = each.state(7)
        assert (state.annotations, state.changed, state.live) == (1, 1, 1)
    assert elsewhere.forget(2)
    assert not elsewhere.forget(2)
    for each in (lessons, elsewhere):
        assert each.lessons(7) == []
        assert each.learned(7, "scores") is None


def test_a_step_is_due_after_so_many_changes_and_one_takes_it(
    lessons: ExampleStore, other: ExampleStore
) -> None:
    teach(lessons, 1, 2)
    assert lessons.take_step(3) is None
    lessons.forget(1)
    turn = lessons.take_step(3)
    assert turn == StepLease(7, changed=3)
    assert other.take_step(3) is None
    assert other.take_step(3, 7) is None
    teach(lessons, 4)  # meanwhile
    assert lessons.settle(turn, version(), adaptation(), "live") is not None
    assert lessons.state(7).changed == 1


def test_a_tenth_of_many_annotations_has_to_change(lessons: ExampleStore) -> None:
    teach(lessons, *range(1, 41))
    make(lessons)
    for annotation in (1, 2, 3):
        lessons.replace(annotation, 7, [lesson(f"changed {annotation}")])
        assert lessons.take_step(2) is None
    teach(lessons, 50, project=8)  # others wait for nobody
    teach(lessons, 51, project=8)
    turn = lessons.take_step(2)
    assert turn is not None
    assert turn.project == 8
    lessons.forget(4)  # of 39, so 4 will do as 3 do
    assert lessons.take_step(2) == StepLease(7, changed=4, live=1)


def test_a_step_can_be_asked_for(lessons: ExampleStore, other: ExampleStore) -> None:
    with pytest.raises(LearningRefused, match="no corrections"):
        lessons.ask(7)
    teach(lessons, 1)
    assert lessons.ask(7).asked
    turn = other.take_step(10)
    assert turn is not None
    other.settle(turn, version(), adaptation(), "live")
    assert not lessons.state(7).asked
    assert other.take_step(10) is None


def test_a_step_whose_maker_is_killed_is_taken_by_another(
    lessons: ExampleStore, other: ExampleStore, clock: Clock
) -> None:
    teach(lessons, 1, 2)
    lost = lessons.take_step(2)
    assert lost is not None
    clock.now += LEASE_S - 1
    lessons.renew(lost)
    clock.now += LEASE_S - 1
    assert other.take_step(2) is None
    clock.now += 2
    turn = other.take_step(2)
    assert turn == lost
    assert lessons.settle(lost, version("late"), adaptation(), "live") is None  # it lives after all
    assert other.settle(turn, version("good"), adaptation(), "live") is not None
    assert [each.digest for each in lessons.versions(7)] == ["good"]


def test_a_step_that_fails_comes_again_later(lessons: ExampleStore, clock: Clock) -> None:
    teach(lessons, 1)
    turn = lessons.take_step(1)
    assert turn is not None
    lessons.give_up(turn, "The model is away.", 60)
    assert lessons.state(7).trouble == "The model is away."
    assert lessons.take_step(1) is None
    clock.now += 61
    make(lessons)
    assert lessons.state(7).trouble == ""


def test_several_that_look_at_once_take_one_step(url: str) -> None:
    stores = [JobStore(url) for _ in range(4)]
    many = [ExampleStore(store, f"owner {i}", lambda: "model") for i, store in enumerate(stores)]
    teach(many[0], 1)
    taken: list[StepLease | None] = []
    start = threading.Barrier(len(many))

    def take(lessons: ExampleStore) -> None:
        start.wait(20)
        taken.append(lessons.take_step(1))

    threads = [threading.Thread(target=take, args=(each,)) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(turn is not None for turn in taken) == 1
    for store in stores:
        store.close()


MOVES = st.tuples(
    st.sampled_from(["learn", "learn", "learn", "forget", "step"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)


@given(st.lists(MOVES, max_size=25))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_whatever_comes_in_whatever_order_what_is_there_counts(
    moves: list[tuple[str, int, int, bool]],
) -> None:
    """Against a dictionary: two backends learn, forget and step by chance."""
    store = JobStore("sqlite://")
    both = [ExampleStore(store, owner, lambda: "model") for owner in ("one", "other")]
    known: dict[int, str] = {}
    changed, stepped = 0, False
    for what, annotation, content, first in moves:
        lessons = both[first]
        before = dict(known)
        if what == "learn":
            known[annotation] = f"{content}"
            lessons.replace(annotation, 7, [lesson(f"{content}")])
        elif what == "forget":
            known.pop(annotation, None)
            lessons.forget(annotation)
        elif (turn := lessons.take_step(2)) is not None:
            assert turn.changed == changed >= 2
            lessons.settle(turn, version(f"{sorted(known.items())}"), adaptation(), "live")
            changed, stepped = 0, True
        changed = changed + 1 if known != before else changed
        if not known:
            changed, stepped = 0, False
    state = both[0].state(7)
    assert [each.digest for each in both[1].lessons(7)] == sorted(known.values())
    assert (state.annotations, state.changed) == (len(known), changed)
    assert (both[0].learned(7, "scores") is not None) == stepped


def test_what_is_live_is_used_as_the_mode_says(lessons: ExampleStore, other: ExampleStore) -> None:
    assert lessons.learned(7, "all") is None
    teach(lessons, 1)
    make(lessons)
    scores = other.learned(7, "scores")
    assert scores is not None
    assert scores.adaptation is not None
    assert (scores.adaptation.digest, scores.thresholds) == (adaptation().digest, {})
    thresholds = other.learned(7, "thresholds")
    assert thresholds is not None
    assert (thresholds.adaptation, thresholds.thresholds) == (None, {"car": 0.3})
    both = other.learned(7, "all")
    assert both is not None
    assert both.adaptation is not None
    assert both.thresholds == {}  # those of its own scores
    assert len({scores.digest, thresholds.digest}) == 2
    assert other.learned(7, "off") is None
    assert other.learned(None, "all") is None


def test_where_the_database_is_away_what_it_said_last_counts(
    store: JobStore, lessons: ExampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    teach(lessons, 1)
    make(lessons)
    before = lessons.learned(7, "scores")
    assert before is not None
    with store.write() as connection:
        connection.execute(text("DROP TABLE learners"))
    assert lessons.learned(8, "scores") is None
    after = lessons.learned(7, "scores")
    assert after is not None
    assert after.digest == before.digest
    assert "The database of what projects have learned" in caplog.text


def test_a_version_of_another_release_counts_as_none(
    store: JobStore, lessons: ExampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    teach(lessons, 1)
    make(lessons)
    with store.write() as connection:
        connection.execute(text("UPDATE learned_versions SET adaptation = :b"), {"b": b"other"})
    assert lessons.learned(7, "scores") is None
    assert "cannot be used" in caplog.text


def test_without_lessons_the_words_decide_at_once(
    lessons: ExampleStore, other: ExampleStore
) -> None:
    teach(lessons, 1, 2)
    make(lessons)
    lessons.forget(1)
    assert other.learned(7, "scores") is not None
    lessons.forget(2)
    assert other.learned(7, "scores") is None
    assert (other.state(7).changed, other.take_step(1)) == (0, None)


def test_a_step_of_lessons_that_are_gone_by_then_is_not_kept(lessons: ExampleStore) -> None:
    teach(lessons, 1)
    turn = lessons.take_step(1)
    assert turn is not None
    lessons.forget(1)
    assert lessons.settle(turn, version(), adaptation(), "live") is None
    assert lessons.learned(7, "scores") is None


def test_where_a_project_is_pinned_nothing_moves(lessons: ExampleStore) -> None:
    teach(lessons, 1, 2)
    make(lessons)
    running = lessons.take_step(1, 7)
    assert running is not None
    assert lessons.pin(7).pinned
    lessons.settle(running, version("b"), adaptation(2), "live")
    assert lessons.state(7).live == 1
    assert lessons.take_step(0) is None
    with pytest.raises(LearningRefused, match="pinned"):
        lessons.ask(7)
    with pytest.raises(LearningRefused, match="pinned"):
        lessons.bring(7, version("c"), adaptation())
    lessons.forget(1)
    lessons.forget(2)
    assert lessons.state(7).live == 1
    assert not lessons.pin(7, pinned=False).pinned


def test_back_goes_to_the_last_better_one_and_stays_there(lessons: ExampleStore) -> None:
    with pytest.raises(LearningRefused, match="the words alone"):
        lessons.roll_back(7)
    teach(lessons, 1)
    for digest, better in (("a", True), ("b", False), ("c", True)):
        make(lessons, digest, better)
    state = lessons.roll_back(7)
    assert (state.live, state.pinned) == (1, True)
    assert lessons.roll_back(7).live is None
    assert lessons.roll_back(7, 3).live == 3
    for number in (2, 4):
        with pytest.raises(LearningRefused, match=f"no version {number}"):
            lessons.roll_back(7, number)
    assert lessons.roll_back(7, 0).live is None


@pytest.mark.parametrize("mode", ["thresholds", "all", "scores"])
def test_back_goes_to_thresholds_where_they_are_used(lessons: ExampleStore, mode: Adapt) -> None:
    """By the mode; or, where only the label config says so, by what is live."""
    teach(lessons, 1)
    for digest in "abc":
        turn = lessons.take_step(1, 7)
        assert turn is not None
        lessons.settle(turn, version(digest, better=False), None, "live")
    assert lessons.roll_back(7, mode=mode).live == 2
    assert lessons.roll_back(7, 1, mode).live == 1
    with pytest.raises(LearningRefused, match=r"no version 9\."):
        lessons.roll_back(7, 9, mode)
    assert lessons.roll_back(7, mode=mode).live is None


def test_what_somebody_has_made_live_meanwhile_stays(lessons: ExampleStore) -> None:
    teach(lessons, 1)
    turn = lessons.take_step(1)
    assert turn is not None
    brought = lessons.bring(7, Version(5, 5, "file", True, origin="import"), adaptation())
    made = lessons.settle(turn, version("made"), adaptation(2), "live")
    assert made is not None
    assert (made.number, lessons.state(7).live) == (2, brought.number)


def test_reset_forgets_all_or_all_but_the_lessons(lessons: ExampleStore) -> None:
    teach(lessons, 1, 2)
    make(lessons)
    lessons.pin(7)
    state = lessons.reset(7, keep_lessons=True)
    assert (state.live, state.pinned, state.changed, state.pictures) == (None, False, 2, 2)
    assert lessons.versions(7) == []
    running = lessons.take_step(1, 7)
    assert running is not None
    state = lessons.reset(7)
    assert (state.changed, state.pictures) == (0, 0)
    assert lessons.settle(running, version(), adaptation(), "live") is None


def test_what_equals_the_newest_version_is_no_new_one(lessons: ExampleStore) -> None:
    teach(lessons, 1)
    first = make(lessons)
    teach(lessons, 2)
    assert make(lessons) == first
    assert make(lessons, "b").number == 2
    assert [each.number for each in lessons.versions(7)] == [2, 1]
    assert lessons.version(7, 1)[0] == first
    with pytest.raises(LearningRefused, match="no version 9"):
        lessons.version(7, 9)


def test_what_comes_from_a_file_stays_without_lessons(lessons: ExampleStore) -> None:
    teach(lessons, 1)
    imported = Version(5, 5, "file", True, origin="import")
    assert lessons.bring(7, imported, adaptation()).number == 1
    lessons.forget(1)
    learned = lessons.learned(7, "scores")
    assert learned is not None
    assert learned.annotations == 5


def test_a_job_finds_the_version_that_it_has_begun_with(lessons: ExampleStore) -> None:
    def digests() -> Sequence[str | None]:
        return [each and each.digest for each in lessons.earlier(7, "scores")]

    assert digests() == []
    teach(lessons, 1)
    make(lessons, "a", number=1)
    make(lessons, "b", number=2)
    used: Callable[[float], str] = lambda number: ActiveModel(10, adaptation(number)).digest  # noqa: E731
    assert digests() == [used(2), used(1), None]
    lessons.forget(1)
    assert digests() == []


def test_what_is_kept_is_bounded(lessons: ExampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANNOTATIONS", 2)
    monkeypatch.setattr(module, "MOST_VERSIONS", 2)
    teach(lessons, 5, 1, 3)
    assert [each.digest for each in lessons.lessons(7)] == ["of 3", "of 5"]
    for digest in "abc":
        make(lessons, digest)
    assert [each.number for each in lessons.versions(7)] == [3, 2]
    lessons.roll_back(7, 2)
    lessons.pin(7, pinned=False)
    for digest in "def":
        turn = lessons.take_step(1, 7)
        assert turn is not None
        lessons.settle(turn, version(digest), adaptation(), "stays")
    assert [each.number for each in lessons.versions(7)] == [6, 5, 2]
