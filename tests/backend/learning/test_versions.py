"""Examples, steps, versions and what is live, on SQLite and on a real PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import LearningRefused, ModelUnavailable
from backend.learning import versions
from backend.learning.versions import Person, StepLease
from backend.settings import Adapt
from tests.backend.conftest import Clock
from tests.backend.fakes.databases import end_leases
from tests.backend.fakes.learning_stores import (
    LearningStores,
    adaptation,
    example,
    version_with,
)


@pytest.fixture
def learning(database: Database) -> LearningStores:
    return LearningStores.of(database, "me")


@pytest.fixture
def other(database: Database) -> LearningStores:
    return LearningStores.of(database, "other")


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


def test_what_is_deleted_is_forgotten_by_all(database: Database, learning: LearningStores) -> None:
    def unloaded() -> str:
        raise ModelUnavailable("The weights are missing.")

    elsewhere = LearningStores.of(database, "me", lambda: "another")
    learning.replace_all(1, 2)
    elsewhere.replace_all(3, 4)
    for each in (learning, elsewhere):
        each.make_version()
    for annotation in (1, 3):
        assert LearningStores.of(database, "me", unloaded).examples.forget(annotation)
    for each in (learning, elsewhere):
        state = each.versions.state(7)
        assert (state.annotations, state.changed, state.live) == (1, 1, 1)
    for annotation in (2, 4):
        assert elsewhere.examples.forget(annotation)
    for each in (learning, elsewhere):
        assert each.examples.examples(7) == []
        assert each.versions.active(7, "auto") is None


def test_a_step_is_due_after_some_changes(learning: LearningStores, other: LearningStores) -> None:
    learning.replace_all(1, 2)
    assert learning.versions.lease_step(3) is None
    learning.examples.forget(1)
    lease = learning.versions.lease_step(3)
    assert lease == StepLease(7, changed=3)
    assert other.versions.lease_step(3) is None
    learning.replace_all(4)  # meanwhile
    assert learning.commit(lease) is not None
    assert learning.versions.state(7).changed == 1


def test_a_tenth_of_many_annotations_has_to_change(learning: LearningStores) -> None:
    learning.replace_all(*range(1, 41))
    learning.make_version()
    for annotation in (1, 2, 3):
        learning.examples.replace(annotation, 7, [example(f"changed {annotation}")])
        assert learning.versions.lease_step(2) is None
    learning.replace_all(50, 51, project=8)  # others wait for nobody
    lease = learning.versions.lease_step(2)
    assert lease.project == 8
    learning.examples.forget(4)  # of 39, so 4 will do as 3 do
    assert learning.versions.lease_step(2) == StepLease(7, changed=4, live=1, newest=1)


def test_a_step_whose_maker_is_killed_is_taken_by_another(
    learning: LearningStores, other: LearningStores, clock: Clock
) -> None:
    learning.replace_all(1, 2)
    lost = learning.versions.lease_step(2)
    assert lost is not None
    clock.now += LEASE_S - 1
    learning.versions.leases.renew()
    clock.now += LEASE_S - 1
    assert other.versions.lease_step(2) is None
    clock.now += 2
    lease = other.versions.lease_step(2)
    assert lease == lost
    assert learning.commit(lost, 1) is None  # it lives after all
    assert other.commit(lease, 2) is not None
    assert [each.digest for each in learning.versions.versions(7)] == [adaptation(2).digest]


def test_several_that_look_at_once_take_one_step(url: str) -> None:
    stores = [Database(url) for _ in range(4)]
    many = [LearningStores.of(database, f"owner {i}") for i, database in enumerate(stores)]
    many[0].replace_all(1)
    start = threading.Barrier(len(many))

    def take(learning: LearningStores) -> StepLease | None:
        start.wait(60)
        return learning.versions.lease_step(1)

    with ThreadPoolExecutor(len(many)) as pool:
        assert sum(lease is not None for lease in pool.map(take, many)) == 1
    for database in stores:
        database.close()


MOVES = st.tuples(
    st.sampled_from(["learn", "learn", "learn", "forget", "step"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)


@given(st.lists(MOVES, max_size=25))
@settings(max_examples=40)
def test_in_whatever_order_what_is_there_counts(moves: list[tuple[str, int, int, bool]]) -> None:
    """Against a dictionary: two backends learn, forget and step by chance."""
    database = Database("sqlite://")
    both = [LearningStores.of(database, owner) for owner in ("one", "other")]
    known: dict[int, str] = {}
    changed, stepped = 0, 0
    for what, annotation, content, first in moves:
        learning = both[first]
        before = dict(known)
        if what == "learn":
            known[annotation] = f"{content}"
            learning.examples.replace(annotation, 7, [example(f"{content}")])
        elif what == "forget":
            known.pop(annotation, None)
            learning.examples.forget(annotation)
        elif (lease := learning.versions.lease_step(2)) is not None:
            assert lease.changed == changed >= 2
            learning.commit(lease, hash(tuple(sorted(known.items()))) % 97)
            learning.use_first()
            changed, stepped = 0, stepped + 1
        changed = changed + 1 if known != before else changed
        if not known:
            changed, stepped = 0, 0
    state = both[0].versions.state(7)
    assert [each.digest for each in both[1].examples.examples(7)] == sorted(known.values())
    assert (state.annotations, state.changed) == (len(known), changed)
    assert (both[0].versions.active(7, "auto") is not None) == bool(stepped)


def test_a_step_of_examples_that_are_gone_by_then_is_not_kept(learning: LearningStores) -> None:
    learning.replace_all(1)
    lease = learning.versions.lease_step(1)
    learning.examples.forget(1)
    assert learning.commit(lease) is None
    assert learning.versions.active(7, "auto") is None


def test_what_passes_no_gate_or_waits_leaves_the_words(learning: LearningStores) -> None:
    learning.replace_all(1)
    assert learning.make_version(1).number == learning.versions.state(7).live == 1
    learning.make_version(None)
    assert learning.versions.state(7).live is None
    assert learning.versions.active(None, "auto") is None
    learning.make_version(3, goes_live=False)
    state = learning.versions.state(7)
    assert (state.live, state.waits) == (None, 3)
    learning.make_version(None, goes_live=False)
    assert learning.versions.state(7).waits == 3, "nobody has decided on it"
    state = learning.versions.use(7, 3, pin=False)
    assert (state.live, state.waits, state.pinned) == (3, None, False)
    learning.make_version(5, goes_live=False)
    assert learning.versions.state(7).waits == 5
    state = learning.versions.use(7, 0, pin=False)  # keep the words
    assert (state.live, state.waits) == (None, None)
    learning.make_version(6)
    learning.make_version(None)
    assert learning.versions.state(7).waits is None, "nobody is asked to decide"


def test_the_first_version_waits_and_those_after_it_go_live(learning: LearningStores) -> None:
    learning.replace_all(1)
    for number in (1, 2):
        learning.commit(learning.lease(), number)
        state = learning.versions.state(7)
        assert (state.live, state.waits) == (None, number), "nobody has decided"
    learning.versions.use(7, 2, pin=False)
    assert learning.make_version(None).number == 3
    learning.commit(learning.lease(), 4)
    assert learning.versions.state(7).live == 4
    learning.versions.reset(7)
    learning.replace_all(1)
    learning.commit(learning.lease(), 5)
    assert learning.versions.state(7).live is None, "all was forgotten"


def test_what_somebody_uses_is_pinned_and_nothing_moves(learning: LearningStores) -> None:
    learning.replace_all(1, 2)
    for number in (1, None, 3):
        learning.make_version(number)
    learning.versions.use(7, 1, pin=False)
    running = learning.lease()
    for number in (2, 4):
        with pytest.raises(LearningRefused, match=f"no version {number}"):
            learning.versions.use(7, number)
    assert learning.versions.use(7, 0).live is None
    state = learning.versions.use(7, 1)
    assert (state.live, state.pinned) == (1, True)
    learning.commit(running, 2)
    assert learning.versions.state(7).live == 1
    assert learning.versions.lease_step(0) is None
    with pytest.raises(LearningRefused, match="chosen by hand"):
        learning.versions.request_step(7)
    learning.examples.forget(1)
    learning.examples.forget(2)
    assert learning.versions.state(7).live == 1
    assert not learning.versions.unpin(7).pinned


def test_labels_keep_their_words_until_they_learn_again(learning: LearningStores) -> None:
    assert learning.versions.keep_words(7, "sign").as_words == ("sign",)
    assert not learning.versions.state(7).asked, "there is nothing to learn from"
    learning.replace_all(1)
    learning.versions.keep_words(7, "pole")
    lease = learning.versions.lease_step(10)
    assert lease.as_words == ("pole", "sign")
    assert learning.versions.keep_words(7, "sign", kept=False).as_words == ("pole",)
    learning.commit(lease, None)
    assert learning.versions.state(7).asked, "it has changed since the lease"
    learning.make_version()
    assert not learning.versions.state(7).asked


ADA = Person("a1", "Ada", "She exchanges them.", is_left_out=False)


def name_ada(learning: LearningStores) -> None:
    """Make a version that names somebody."""
    learning.replace_all(1)
    version = msgspec.structs.replace(version_with(adaptation()), people=(ADA,))
    learning.versions.commit(learning.lease(), version, adaptation())


def test_a_version_that_does_the_same_and_names_somebody_is_kept(
    learning: LearningStores,
) -> None:
    """Where nothing is learned of somebody's pictures, they change nothing but what is said."""
    learning.replace_all(1)
    learning.make_version(1)
    name_ada(learning)
    assert [each.people for each in learning.versions.versions(7)] == [(ADA,), ()]


@pytest.mark.parametrize("person", ["a1", "Ada"])
def test_people_are_left_out_until_they_teach_again(learning: LearningStores, person: str) -> None:
    name_ada(learning)
    assert learning.versions.leave_out(7, person).left_out == {"a1": "Ada"}
    lease = learning.versions.lease_step(10)
    assert lease is not None, "a version is made at once"
    assert lease.left_out == ("a1",)
    assert learning.versions.leave_out(7, person, left_out=False).left_out == {}
    learning.commit(lease, 2)
    assert learning.versions.state(7).asked, "it has changed since the lease"


def test_only_people_whom_a_version_names_are_left_out(learning: LearningStores) -> None:
    name_ada(learning)
    with pytest.raises(LearningRefused, match="names 'Ben'"):
        learning.versions.leave_out(7, "Ben")


def test_a_reset_forgets_who_was_left_out(learning: LearningStores) -> None:
    name_ada(learning)
    learning.versions.leave_out(7, "Ada")
    assert learning.versions.reset(7).left_out == {}


def test_what_somebody_has_made_live_meanwhile_stays(learning: LearningStores) -> None:
    learning.replace_all(1)
    for number in (1, 2):
        learning.make_version(number)
    running = learning.lease()
    learning.versions.use(7, 1, pin=False)
    made = learning.commit(running, 3)
    assert (made.number, learning.versions.state(7).live) == (3, 1)


def test_numbers_count_up_and_never_come_again(learning: LearningStores) -> None:
    learning.replace_all(1, 2)
    first = learning.make_version(1)
    assert learning.make_version(1) == first, "it does as the newest one"
    assert learning.make_version(2).number == 2
    running = learning.lease()
    learning.versions.use(7, 1)
    learning.versions.keep_words(7, "sign")
    state = learning.versions.reset(7)
    assert (state.live, state.pinned, state.as_words) == (None, False, ())
    assert (state.changed, state.annotations, learning.versions.versions(7)) == (0, 0, [])
    assert learning.commit(running) is None
    learning.replace_all(1)
    assert learning.make_version(3).number == 3


def test_a_step_that_ends_the_process_each_time_is_given_up_until_somebody_asks(
    database: Database, learning: LearningStores
) -> None:
    learning.replace_all(1)
    learning.versions.request_step(7)
    for number in range(3):
        dies = LearningStores.of(database, f"dies-{number}")
        assert dies.versions.lease_step(1) is not None
        end_leases(database, table="learning_states")
    assert learning.versions.lease_step(1) is None
    assert "ended each time while it learned" in learning.versions.state(7).trouble
    learning.versions.request_step(7)
    assert learning.versions.lease_step(1) is not None


def test_what_is_kept_is_bounded(learning: LearningStores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MOST_VERSIONS", 2)
    learning.replace_all(1)
    for number in (1, 2, 3):
        learning.make_version(number)
    assert [each.number for each in learning.versions.versions(7)] == [3, 2]
    learning.versions.use(7, 2, pin=False)
    for number in (4, 5, 6):
        learning.make_version(number, goes_live=False)
    assert [each.number for each in learning.versions.versions(7)] == [6, 5, 2]
    with pytest.raises(LearningRefused, match="no version 9"):
        learning.versions.version(7, 9)


@pytest.mark.parametrize(
    "harm", ["DROP TABLE learning_states", "UPDATE learned_versions SET adaptation = :b"]
)
def test_what_cannot_be_read_leaves_the_words(
    database: Database, learning: LearningStores, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    learning.replace_all(1)
    learning.make_version()
    with database.write() as connection:
        connection.execute(text(harm), {"b": b"other"} if ":b" in harm else {})
    assert learning.versions.active(7, "auto") is None
    assert "What project 7 has learned cannot be used" in caplog.text


def test_what_another_model_used_is_made_again_until_the_first_step_ends(
    database: Database, learning: LearningStores
) -> None:
    before = LearningStores.of(database, "me", lambda: "another")
    before.replace_all(1, 2)
    before.make_version(goes_live=False)
    assert learning.versions.made_again() == set(), "nobody used it"
    before.use_first()
    assert learning.versions.made_again() == {7}
    assert before.versions.made_again() == set(), "it is in use"

    learning.replace_all(1, 2)
    lease = learning.lease()
    assert learning.versions.made_again() == {7}
    learning.commit(lease, None)
    assert learning.versions.made_again() == set(), "the words are as good"


@pytest.mark.parametrize("adapt", ["auto", "ask"])
def test_what_is_made_again_of_what_was_in_use_waits_for_nobody_unless_asked_to(
    database: Database, learning: LearningStores, adapt: Adapt
) -> None:
    before = LearningStores.of(database, "me", lambda: "another")
    before.replace_all(1)
    before.make_version()
    learning.replace_all(1)
    learning.commit(learning.lease(), 1, adapt)
    assert learning.versions.state(7).live == (1 if adapt == "auto" else None)


def test_what_is_made_again_waits_where_the_words_were_in_use(
    database: Database, learning: LearningStores
) -> None:
    before = LearningStores.of(database, "me", lambda: "another")
    before.replace_all(1)
    before.make_version()
    before.versions.use(7, 0, pin=False)
    learning.replace_all(1)
    learning.commit(learning.lease(), 1)
    assert learning.versions.state(7).live is None


def test_what_another_model_used_decides_nothing_once_all_is_forgotten(
    database: Database, learning: LearningStores
) -> None:
    before = LearningStores.of(database, "me", lambda: "another")
    before.replace_all(1)
    before.make_version()
    learning.versions.reset(7)
    learning.replace_all(1)
    learning.commit(learning.lease(), 1)
    assert learning.versions.state(7).live is None


def test_a_version_that_nobody_makes_is_not_waited_for(
    database: Database, learning: LearningStores
) -> None:
    before = LearningStores.of(database, "me", lambda: "another")
    before.replace_all(1)
    before.make_version()
    lease = learning.lease() if learning.examples.replace(1, 7, [example("a")]) else None
    assert lease is not None
    learning.versions.release(lease, "The disk is full.")
    assert learning.versions.made_again() == set()

    last = LearningStores.of(database, "me", lambda: "a third")
    assert last.versions.made_again() == {7}
    last.versions.use(7, 0)  # by hand: no step is made
    assert last.versions.made_again() == set()
