"""Steps that make versions, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.errors import LearningRefused
from backend.feedback.learning.versions import StepLease, Version
from tests.backend.conftest import Clock
from tests.backend.fakes.learning_stores import LearningStores, adaptation, example, version


def test_a_step_is_due_after_so_many_changes_and_one_takes_it(
    learning: LearningStores, other: LearningStores
) -> None:
    learning.replace_all(1, 2)
    assert learning.steps.lease_step(3) is None
    learning.examples.forget(1)
    lease = learning.steps.lease_step(3)
    assert lease == StepLease(7, changed=3)
    assert other.steps.lease_step(3) is None
    assert other.steps.lease_step(3, 7) is None
    learning.replace_all(4)  # meanwhile
    assert learning.steps.commit(lease, version(), adaptation(), "live") is not None
    assert learning.registry.state(7).changed == 1


def test_a_tenth_of_many_annotations_has_to_change(learning: LearningStores) -> None:
    learning.replace_all(*range(1, 41))
    learning.make_version()
    for annotation in (1, 2, 3):
        learning.examples.replace(annotation, 7, [example(f"changed {annotation}")])
        assert learning.steps.lease_step(2) is None
    learning.replace_all(50, project=8)  # others wait for nobody
    learning.replace_all(51, project=8)
    lease = learning.steps.lease_step(2)
    assert lease is not None
    assert lease.project == 8
    learning.examples.forget(4)  # of 39, so 4 will do as 3 do
    assert learning.steps.lease_step(2) == StepLease(7, changed=4, live=1)


def test_a_step_can_be_asked_for(learning: LearningStores, other: LearningStores) -> None:
    with pytest.raises(LearningRefused, match="no corrections"):
        learning.steps.request(7)
    learning.replace_all(1)
    assert learning.steps.request(7).asked
    lease = other.steps.lease_step(10)
    assert lease is not None
    other.steps.commit(lease, version(), adaptation(), "live")
    assert not learning.registry.state(7).asked
    assert other.steps.lease_step(10) is None


def test_a_step_whose_maker_is_killed_is_taken_by_another(
    learning: LearningStores, other: LearningStores, clock: Clock
) -> None:
    learning.replace_all(1, 2)
    lost = learning.steps.lease_step(2)
    assert lost is not None
    clock.now += LEASE_S - 1
    learning.steps.renew(lost)
    clock.now += LEASE_S - 1
    assert other.steps.lease_step(2) is None
    clock.now += 2
    lease = other.steps.lease_step(2)
    assert lease == lost
    assert (
        learning.steps.commit(lost, version("late"), adaptation(), "live") is None
    )  # it lives after all
    assert other.steps.commit(lease, version("good"), adaptation(), "live") is not None
    assert [each.digest for each in learning.registry.versions(7)] == ["good"]


def test_a_step_that_fails_comes_again_later(learning: LearningStores, clock: Clock) -> None:
    learning.replace_all(1)
    lease = learning.steps.lease_step(1)
    assert lease is not None
    learning.steps.release(lease, "The model is away.", 60)
    assert learning.registry.state(7).trouble == "The model is away."
    assert learning.steps.lease_step(1) is None
    clock.now += 61
    learning.make_version()
    assert learning.registry.state(7).trouble == ""


def test_several_that_look_at_once_take_one_step(url: str) -> None:
    stores = [Database(url) for _ in range(4)]
    many = [LearningStores.of(database, f"owner {i}") for i, database in enumerate(stores)]
    many[0].replace_all(1)
    taken: list[StepLease | None] = []
    start = threading.Barrier(len(many))

    def take(learning: LearningStores) -> None:
        start.wait(20)
        taken.append(learning.steps.lease_step(1))

    threads = [threading.Thread(target=take, args=(each,)) for each in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(lease is not None for lease in taken) == 1
    for database in stores:
        database.close()


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
    database = Database("sqlite://")
    both = [LearningStores.of(database, owner) for owner in ("one", "other")]
    known: dict[int, str] = {}
    changed, stepped = 0, False
    for what, annotation, content, first in moves:
        learning = both[first]
        before = dict(known)
        if what == "learn":
            known[annotation] = f"{content}"
            learning.examples.replace(annotation, 7, [example(f"{content}")])
        elif what == "forget":
            known.pop(annotation, None)
            learning.examples.forget(annotation)
        elif (lease := learning.steps.lease_step(2)) is not None:
            assert lease.changed == changed >= 2
            learning.steps.commit(lease, version(f"{sorted(known.items())}"), adaptation(), "live")
            changed, stepped = 0, True
        changed = changed + 1 if known != before else changed
        if not known:
            changed, stepped = 0, False
    state = both[0].registry.state(7)
    assert [each.digest for each in both[1].examples.examples(7)] == sorted(known.values())
    assert (state.annotations, state.changed) == (len(known), changed)
    assert (both[0].active_models.get(7, "scores") is not None) == stepped


def test_a_step_of_examples_that_are_gone_by_then_is_not_kept(learning: LearningStores) -> None:
    learning.replace_all(1)
    lease = learning.steps.lease_step(1)
    assert lease is not None
    learning.examples.forget(1)
    assert learning.steps.commit(lease, version(), adaptation(), "live") is None
    assert learning.active_models.get(7, "scores") is None


def test_what_somebody_has_made_live_meanwhile_stays(learning: LearningStores) -> None:
    learning.replace_all(1)
    lease = learning.steps.lease_step(1)
    assert lease is not None
    brought = learning.registry.import_version(
        7, Version(5, 5, "file", True, origin="import"), adaptation()
    )
    made = learning.steps.commit(lease, version("made"), adaptation(2), "live")
    assert made is not None
    assert (made.number, learning.registry.state(7).live) == (2, brought.number)
