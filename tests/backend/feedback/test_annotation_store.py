"""Marks and what was read of them, on SQLite and on a real PostgreSQL."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.feedback.annotation_store import AnnotationStore, PendingAnnotation
from backend.feedback.annotation_table import ReadAnnotation
from tests.backend.conftest import Clock
from tests.backend.fakes.databases import FlakyDatabase
from tests.backend.fakes.report import rows_of


@pytest.fixture
def annotations(database: Database) -> AnnotationStore:
    return AnnotationStore(database, "me")


@pytest.fixture
def other(database: Database) -> AnnotationStore:
    return AnnotationStore(database, "other")


def read_of(annotation: int, **more: Any) -> ReadAnnotation:
    return ReadAnnotation(
        annotation, 7, task=100 + annotation, kind="compared", version="v", **more
    )


def ids(pending: list[PendingAnnotation]) -> list[int]:
    return [each.annotation for each in pending]


def test_the_regions_of_annotations_count_as_they_are_now(annotations: AnnotationStore) -> None:
    old, new = {"mask|image|brushlabels": {"House": 2}}, {"mask|image|brushlabels": {"Building": 1}}
    for number, regions in ((1, old), (2, old), (1, new)):
        annotations.mark(7, [number])
        (pending,) = annotations.lease(1)
        annotations.complete(pending, read_of(number, regions=regions))
    found = annotations.region_counts(7)
    assert found.created_labels == {"mask": {"House": 2, "Building": 1}}
    assert found.created_annotations == {"mask|image|brushlabels": 3}
    assert annotations.region_counts(8).created_labels == {}


def test_a_change_meanwhile_is_read(annotations: AnnotationStore, other: AnnotationStore) -> None:
    annotations.mark(7, [3])
    (pending,) = annotations.lease(10)
    assert other.has_due(), "a version waits for it"
    annotations.mark(7, [3])
    assert annotations.lease(10) == []  # it is leased
    annotations.complete(pending, read_of(3))
    assert annotations.count_open(7) == 1
    (again,) = annotations.lease(10)
    assert again.count == 2
    annotations.complete(again, read_of(3, seconds=2.0))
    assert (annotations.count_open(7), other.has_due()) == (0, False)
    assert rows_of(annotations) == [read_of(3, seconds=2.0)]


def test_what_is_gone_and_marked_again_meanwhile_is_read(annotations: AnnotationStore) -> None:
    annotations.mark(7, [4])
    (pending,) = annotations.lease(1)
    annotations.mark(7, [4])
    annotations.complete(pending, None)
    assert ids(annotations.lease(1)) == [4]


def test_marks_are_leased_by_one_and_those_of_the_dead_by_another(
    annotations: AnnotationStore, other: AnnotationStore, clock: Clock
) -> None:
    annotations.mark(7, [1, 2, 3])
    assert ids(annotations.lease(2)) == [3, 2]  # the newest first
    assert ids(other.lease(9)) == [1]
    clock.now += 0.9 * LEASE_S
    annotations.leases.renew()
    clock.now += 0.9 * LEASE_S
    (taken,) = other.lease(9)
    assert taken.annotation == 1  # it did not renew its own, and may have it again
    clock.now += 1.1 * LEASE_S
    (one,) = other.lease(9)
    assert one.annotation == 1, "those of a dead owner come last, one by one"
    other.complete(one, read_of(1))
    (three,) = other.lease(9)
    annotations.complete(three, read_of(3))
    assert [row.annotation for row in rows_of(annotations)] == [1], "its lease is another's"
    other.complete(three, read_of(3))
    assert [row.annotation for row in rows_of(annotations)] == [1, 3]
    assert ids(other.lease(9)) == [3], "the late one may have read an older state"


def test_an_outage_keeps_no_annotation_from_others(tmp_path: Path, clock: Clock) -> None:
    database = FlakyDatabase(f"sqlite:///{tmp_path}/own.db", clock)
    mine, other = AnnotationStore(database, "me"), AnnotationStore(database, "other")
    mine.mark(7, [1, 2, 3])
    one, two, three = mine.lease(3)
    for end in (
        lambda: mine.complete(one, read_of(3)),
        lambda: mine.complete(two, None),
        lambda: mine.release([three], failed=three),
    ):
        database.away = 1
        with pytest.raises(OperationalError):
            end()
    clock.now += 0.9 * LEASE_S
    mine.leases.renew()
    clock.now += 0.9 * LEASE_S
    found = []
    while some := other.lease(9):
        found += ids(some)
        other.complete(some[0], read_of(some[0].annotation))
    assert found == [3, 2, 1]


def test_the_third_death_at_an_annotation_is_said_of_that_one_alone(
    database: Database, clock: Clock
) -> None:
    AnnotationStore(database).mark(7, [1, 2, 3])
    read: list[int] = []
    for number in range(3):
        dies = AnnotationStore(database, f"dies-{number}")
        while some := dies.lease(9):
            assert not any(each.is_deadly for each in some)
            if 2 in ids(some):
                break
            read += ids(some)
            dies.complete(some[0], read_of(some[0].annotation))
        clock.now += LEASE_S + 1
    lives = AnnotationStore(database, "lives")
    left = []
    while some := lives.lease(9):
        left += [(each.annotation, each.is_deadly) for each in some]
        lives.complete(some[0], read_of(some[0].annotation))
    assert (2, True) in left
    assert [each for each, is_deadly in left if is_deadly] == [2]
    assert sorted(read + [each for each, _ in left]) == [1, 2, 3]


def test_what_was_unreadable_comes_ever_later(annotations: AnnotationStore, clock: Clock) -> None:
    annotations.mark(7, [1, 2])
    for waits_s in (15, 30, 60):
        pending = annotations.lease(2)
        failed = next(each for each in pending if each.annotation == 1)
        annotations.release(pending, failed=failed)
        clock.now += waits_s - 1
        other = annotations.lease(2)
        assert ids(other) == [2]
        annotations.release(other)
        clock.now += 1
    first = next(each for each in annotations.lease(2) if each.annotation == 1)
    annotations.release([first], failed=first)
    annotations.mark(7, [1])  # it has changed: it may be readable now
    assert ids(annotations.lease(2)) == [1]


def test_what_nobody_has_learned_from_is_read_by_who_does(
    annotations: AnnotationStore, other: AnnotationStore, clock: Clock
) -> None:
    annotations.mark(7, [1, 2, 3])
    three, two, one = annotations.lease(9)
    annotations.complete(one, read_of(1), learned=False)
    annotations.complete(two, None, learned=False)
    annotations.complete(three, read_of(3))
    assert annotations.count_open() == 0
    assert annotations.lease(9) == []
    assert [row.annotation for row in rows_of(annotations)] == [1, 3]
    two, one = other.lease(9, unlearned=True)
    assert (one.annotation, two.annotation) == (1, 2)
    other.complete(two, None)
    for waits_s in (15, 30):
        other.complete(one, read_of(1), learned=False, retry=True)
        clock.now += waits_s - 1
        assert other.lease(9, unlearned=True) == []
        clock.now += 1
        (one,) = other.lease(9, unlearned=True)
    other.complete(one, read_of(1))
    assert other.lease(9, unlearned=True) == []
    other.mark(7, [3])
    assert ids(other.lease(9, unlearned=True)) == [3]


def test_one_project_at_a_time(annotations: AnnotationStore) -> None:
    annotations.mark(7, [1, 3])
    annotations.mark(8, [2])
    assert ids(annotations.lease(9)) == [3, 1]
    assert ids(annotations.lease(9)) == [2]
    annotations.mark(9, [4])
    assert annotations.lease(9, project=7) == []
    assert ids(annotations.lease(9, project=9)) == [4]


def test_tasks_and_projects_are_marked_if_known(annotations: AnnotationStore) -> None:
    annotations.mark(7, [1, 2])
    for each in annotations.lease(2):
        annotations.complete(each, read_of(each.annotation))
    annotations.mark_tasks(8, [101])
    assert annotations.count_open() == 0
    annotations.mark_tasks(7, [101, 555])
    assert ids(annotations.lease(9)) == [1]
    annotations.mark_all(7)
    assert ids(annotations.lease(9)) == [2]


def test_a_task_that_goes_while_it_is_read_is_read_again(annotations: AnnotationStore) -> None:
    annotations.mark(7, [1, 2], {1: 101, 2: 102})
    (pending,) = annotations.lease(1)
    annotations.mark_tasks(7, [102])
    annotations.complete(pending, read_of(2))
    assert {(each.annotation, each.count) for each in annotations.lease(9)} == {(1, 1), (2, 2)}
