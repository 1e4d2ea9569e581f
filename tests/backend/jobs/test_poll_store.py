"""How far projects were polled, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.jobs.change_poller import Poll, PollStore
from tests.backend.conftest import Clock


@pytest.fixture
def polls(database: Database) -> PollStore:
    return PollStore(database, "me")


@pytest.fixture
def other(database: Database) -> PollStore:
    return PollStore(database, "other")


def test_a_project_is_added_once(polls: PollStore) -> None:
    polls.add(7, 10.0)
    assert polls.lease() is None
    polls.add(7, 0.0)
    assert polls.list_polls() == [Poll(7)]
    assert polls.lease() is None


def test_one_that_is_woken_is_due_once_and_an_unknown_one_never(
    polls: PollStore, clock: Clock
) -> None:
    polls.add(7, 60.0)
    for _ in range(3):
        polls.wake([7, 8], 1.0)
    assert polls.lease() is None
    clock.now += 1
    woken = polls.lease()
    assert woken == Poll(7)
    polls.wake([7], 1.0)
    polls.finish(woken, 60.0)
    clock.now += 2
    assert polls.lease() is None
    assert polls.list_polls() == [Poll(7, polled=clock.now - 2)]


def test_the_longest_due_is_leased_first_and_by_one(
    polls: PollStore, other: PollStore, clock: Clock
) -> None:
    for project in (7, 8):
        polls.add(project, 0.0)
    first = polls.lease()
    assert first is not None
    polls.finish(first, 60.0)
    clock.now += 61
    leased = polls.lease(), other.lease(), polls.lease()
    assert [each.project if each else None for each in leased] == [
        15 - first.project,
        first.project,
        None,
    ]


def test_the_lease_of_one_that_died_ends_and_its_late_word_counts_for_nothing(
    polls: PollStore, other: PollStore, clock: Clock
) -> None:
    polls.add(7, 0.0)
    poll = polls.lease()
    assert poll is not None
    clock.now += 0.9 * LEASE_S
    polls.renew()
    clock.now += 0.9 * LEASE_S
    assert other.lease() is None
    polls.let_go(7)
    polls.renew()
    clock.now += LEASE_S
    assert other.lease() == poll
    polls.finish(replace(poll, since=9.0), 60.0)
    polls.fail(7, "Late.", 60.0)
    assert polls.list_polls() == [poll]
