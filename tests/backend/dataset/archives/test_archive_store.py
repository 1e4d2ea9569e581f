"""Archives that are asked for, leased, finished and deleted."""

from __future__ import annotations

import pytest

from backend.database.database import Database
from backend.database.leases import LEASE_S, LeaseLost
from backend.dataset.archives.archive_request import ArchiveRequest
from backend.dataset.archives.archive_store import MAX_UNFINISHED, ArchiveStore
from backend.errors import ArchiveNotFound, Busy
from tests.backend.conftest import Clock


@pytest.fixture
def store(clock: Clock) -> ArchiveStore:
    return ArchiveStore(Database("sqlite://", clock))


def made(store: ArchiveStore, clock: Clock, size_bytes: int) -> int:
    archive = store.request(ArchiveRequest(7))
    store.lease("a")
    store.finish(archive.id, "a", size_bytes=size_bytes)
    clock.now += 100
    return archive.id


def test_an_archive_is_queued_made_and_done(store: ArchiveStore) -> None:
    asked = store.request(ArchiveRequest(7, formats=("coco",)))
    assert (asked.state, asked.over) == ("queued", False)
    leased = store.lease("a")
    assert leased is not None
    assert (leased.id, leased.state, leased.started) == (asked.id, "running", 1000.0)
    assert store.lease("b") is None
    store.advance(asked.id, "a", 5, 10)
    assert (store.get(asked.id).done, store.get(asked.id).total) == (5, 10)
    skipped = [{"task": number, "reason": "gone"} for number in range(150)]
    done = store.finish(asked.id, "a", report={"skipped": skipped}, size_bytes=9)
    assert (done.state, done.size_bytes, done.over) == ("done", 9, True)
    assert (len(done.report["skipped"]), done.report["skipped_count"]) == (100, 150)
    assert done.request == asked.request
    assert done.file_name == "project-7-coco-1.zip"


def test_pressing_twice_asks_once_and_many_have_to_wait(store: ArchiveStore) -> None:
    first = store.request(ArchiveRequest(1))
    assert store.request(ArchiveRequest(1)).id == first.id
    for project in range(2, MAX_UNFINISHED + 1):
        store.request(ArchiveRequest(project))
    with pytest.raises(Busy, match="10 data sets wait"):
        store.request(ArchiveRequest(99))
    assert [each.request.project for each in store.list_archives(3)] == [3]
    store.delete(first.id)
    store.request(ArchiveRequest(99))


def test_another_owner_takes_over_when_the_first_has_died(
    store: ArchiveStore, clock: Clock
) -> None:
    archive = store.request(ArchiveRequest(7))
    store.lease("a")
    clock.now += LEASE_S - 1
    store.renew(archive.id, "a")
    store.renew(archive.id, "b")
    clock.now += LEASE_S - 1
    assert store.lease("b") is None
    clock.now += 2
    assert store.lease("b") is not None
    with pytest.raises(LeaseLost):
        store.advance(archive.id, "a", 1, None)
    store.release(archive.id, "b")
    assert store.get(archive.id).state == "queued"


def test_who_makes_a_deleted_archive_loses_the_lease(store: ArchiveStore) -> None:
    archive = store.request(ArchiveRequest(7))
    store.lease("a")
    assert store.delete(archive.id).state == "running"
    for act in (
        lambda: store.advance(archive.id, "a", 1, None),
        lambda: store.finish(archive.id, "a"),
    ):
        with pytest.raises(LeaseLost):
            act()
    with pytest.raises(ArchiveNotFound, match="no data set 1"):
        store.get(archive.id)


def test_old_archives_go_and_the_oldest_of_too_many(store: ArchiveStore, clock: Clock) -> None:
    first, second, third = (made(store, clock, size) for size in (10, 20, 30))
    waiting = store.request(ArchiveRequest(7)).id
    assert [each.id for each in store.take_old(before=1050, max_bytes=1000)] == [first]
    assert [each.id for each in store.take_old(before=0, max_bytes=49)] == [second]
    assert store.take_old(before=0, max_bytes=30) == []
    assert {each.id for each in store.list_archives()} == {third, waiting}
