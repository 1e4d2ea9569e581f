"""Marks and what was read of them, on SQLite and on a real PostgreSQL; the webhook that pending."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from backend import create_app
from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.feedback.annotation_store import AnnotationStore, PendingAnnotation
from backend.feedback.annotation_table import ReadAnnotation
from backend.feedback.comparison import LabelDiff
from backend.settings import Settings
from tests.backend.conftest import Clock
from tests.backend.fakes.colour_segmenter import colour_engine
from tests.backend.fakes.flaky_database import FlakyDatabase


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


def test_a_mark_is_read_once_however_often_it_was_made(annotations: AnnotationStore) -> None:
    annotations.mark(7, [3, 1, 3])
    annotations.mark(7, [3])
    pending = annotations.lease(10)
    assert [(each.annotation, each.count) for each in pending] == [(3, 2), (1, 1)]
    change = LabelDiff("car", accepted=1, relabelled={"dog": 2}, true_px=9)
    told = read_of(3, annotator=4, seconds=1.5, created=10.0, updated=11.0, changes=(change,))
    assert annotations.complete(pending[0], told)
    assert annotations.complete(pending[1], read_of(1))
    assert annotations.lease(10) == []
    assert annotations.count_open() == 0
    assert annotations.read(7) == [read_of(1), told]
    assert annotations.read(8) == []
    assert annotations.projects() == [7]


def test_a_change_that_comes_while_it_is_read_is_read_too(annotations: AnnotationStore) -> None:
    annotations.mark(7, [3])
    (pending,) = annotations.lease(10)
    annotations.mark(7, [3])
    assert annotations.lease(10) == []  # it is leased
    annotations.complete(pending, read_of(3))
    assert annotations.count_open(7) == 1
    (again,) = annotations.lease(10)
    assert again.count == 2
    annotations.complete(again, read_of(3, seconds=2.0))
    assert annotations.count_open(7) == 0
    assert annotations.read(7) == [read_of(3, seconds=2.0)]


def test_what_is_gone_is_forgotten(annotations: AnnotationStore) -> None:
    annotations.mark(7, [3])
    annotations.complete(annotations.lease(1)[0], read_of(3))
    annotations.mark(7, [3])
    assert annotations.discard(annotations.lease(1)[0])
    assert (annotations.read(7), annotations.count_open()) == ([], 0)
    annotations.mark(7, [4])
    (pending,) = annotations.lease(1)
    annotations.mark(7, [4])
    assert annotations.discard(pending)
    assert ids(annotations.lease(1)) == [4]


def test_marks_are_leased_by_one_and_those_of_the_dead_by_another(
    annotations: AnnotationStore, other: AnnotationStore, clock: Clock
) -> None:
    annotations.mark(7, [1, 2, 3])
    assert ids(annotations.lease(2)) == [3, 2]  # the newest first
    assert ids(other.lease(9)) == [1]
    clock.now += 0.9 * LEASE_S
    annotations.renew()
    clock.now += 0.9 * LEASE_S
    (taken,) = other.lease(9)
    assert taken.annotation == 1  # it did not renew its own, and may have it again
    clock.now += 1.1 * LEASE_S
    late = other.lease(9)
    assert ids(late) == [3, 2, 1]
    assert not annotations.complete(late[0], read_of(3))
    assert not annotations.discard(late[0])
    assert annotations.read(7) == []
    assert other.complete(late[0], read_of(3))


def test_an_outage_of_the_database_keeps_no_annotation_from_others(
    tmp_path: Path, clock: Clock
) -> None:
    database = FlakyDatabase(f"sqlite:///{tmp_path}/own.db", clock)
    mine, other = AnnotationStore(database, "me"), AnnotationStore(database, "other")
    mine.mark(7, [1, 2, 3])
    one, two, three = mine.lease(3)
    for end in (
        lambda: mine.complete(one, read_of(3)),
        lambda: mine.discard(two),
        lambda: mine.release([three], failed=three),
    ):
        database.away = 1
        with pytest.raises(OperationalError):
            end()
    clock.now += 0.9 * LEASE_S
    mine.renew()
    clock.now += 0.9 * LEASE_S
    assert ids(other.lease(9)) == [3, 2, 1]


def test_what_could_not_be_read_comes_again_ever_later(
    annotations: AnnotationStore, clock: Clock
) -> None:
    annotations.mark(7, [1, 2])
    waited = []
    for _ in range(3):
        pending = annotations.lease(2)
        failed = next(each for each in pending if each.annotation == 1)
        annotations.release(pending, failed=failed)
        assert ids(annotations.lease(2)) == [2]
        annotations.release([PendingAnnotation(2, 7, 1)])
        start = clock.now
        while len(found := annotations.lease(2)) < 2:
            annotations.release(found)
            clock.now += 1
        annotations.release(found)
        waited.append(clock.now - start)
    assert waited == [15, 30, 60]
    first = next(each for each in annotations.lease(2) if each.annotation == 1)
    annotations.release([first], failed=first)
    annotations.mark(7, [1])  # it has changed: it may be readable now
    assert ids(annotations.lease(2)) == [1]


def test_what_nobody_has_learned_from_is_read_by_who_does(
    annotations: AnnotationStore, other: AnnotationStore
) -> None:
    annotations.mark(7, [1, 2, 3])
    three, two, one = annotations.lease(9)
    annotations.complete(one, read_of(1), learned=False)
    annotations.discard(two, learned=False)
    annotations.complete(three, read_of(3))
    assert annotations.count_open() == 0
    assert annotations.lease(9) == []
    assert [row.annotation for row in annotations.read(7)] == [1, 3]
    two, one = other.lease(9, unlearned=True)
    assert (one.annotation, two.annotation) == (1, 2)
    other.complete(one, read_of(1))
    other.discard(two)
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


def test_tasks_and_projects_are_marked_as_far_as_they_are_known(
    annotations: AnnotationStore,
) -> None:
    annotations.mark(7, [1, 2])
    for each in annotations.lease(2):
        annotations.complete(each, read_of(each.annotation))
    annotations.mark_tasks(8, [101])
    assert annotations.count_open() == 0
    annotations.mark_tasks(7, [101, 555])
    assert ids(annotations.lease(9)) == [1]
    annotations.mark_all(7)
    assert ids(annotations.lease(9)) == [2]


def test_a_task_that_goes_while_its_annotation_is_read_first_has_it_read_again(
    annotations: AnnotationStore,
) -> None:
    annotations.mark(7, [1, 2])
    (pending,) = annotations.lease(1)
    annotations.mark_tasks(7, [102])
    annotations.complete(pending, read_of(2))
    assert {(each.annotation, each.count) for each in annotations.lease(9)} == {(1, 1), (2, 2)}
    assert annotations.tasks([2, 1, 3]) == {2: 102}


# ---- the webhook -----------------------------------------------------------------------------

KEYS = {"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": "a" * 40}


def told(action: str, annotation: Any, project: Any = 7) -> dict[str, Any]:
    """A message as Label Studio sends it."""
    key = "annotations" if action == "ANNOTATIONS_DELETED" else "annotation"
    project = {"id": project, "label_config": "<View/>"}
    return {"action": action, key: annotation, "project": project, "task": {"id": 5}}


def make_app(**more: str) -> Flask:
    return create_app(Settings(**(KEYS | more)), colour_engine())  # type: ignore[arg-type]


def marked(path: Path) -> Counter[tuple[int, int]]:
    """How often each annotation was marked, as another reader of the database sees it."""
    import sqlite3

    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT project, annotation, marked FROM annotations")
        return Counter({(project, annotation): count for project, annotation, count in rows})


def test_annotations_that_have_changed_are_noted(tmp_path: Path) -> None:
    client = make_app().test_client()
    for message in (
        told("ANNOTATIONS_DELETED", [{"id": 1}, {"id": 2}]),  # before it was made: any order
        told("ANNOTATION_CREATED", {"id": 1, "result": []}),
        told("ANNOTATION_UPDATED", {"id": 3}, project=8),
        told("ANNOTATIONS_CREATED", [{"id": 4}]),
        {"action": "TASKS_DELETED", "project": {"id": 7}, "tasks": [{"id": 1}]},
    ):
        assert client.post("/webhook", json=message).get_json() == {"status": "noted"}
    assert marked(tmp_path / "own.db") == {(7, 1): 2, (7, 2): 1, (8, 3): 1, (7, 4): 1}


@pytest.mark.parametrize(
    "message",
    [
        told("ANNOTATION_UPDATED", {"id": 0}),
        told("ANNOTATION_UPDATED", {"id": -1}),
        told("ANNOTATION_UPDATED", {"id": 1 << 63}),
        told("ANNOTATION_UPDATED", {"id": "1"}),
        told("ANNOTATION_UPDATED", {"id": True}),
        told("ANNOTATION_UPDATED", None),
        told("ANNOTATION_UPDATED", {"id": 1}, project=1 << 31),
        told("ANNOTATION_UPDATED", {"id": 1}, project=0),
        told("ANNOTATION_UPDATED", {"id": 1}, project=None),
        told("ANNOTATION_UPDATED", {"id": 1}) | {"project": 7},
        told("ANNOTATION_UPDATED", {"id": 1}) | {"action": ["ANNOTATION_UPDATED"]},
        told("ANNOTATION_READ", {"id": 1}),
    ],
)
def test_messages_that_make_no_sense_are_ignored(message: dict[str, Any], tmp_path: Path) -> None:
    assert make_app().test_client().post("/webhook", json=message).get_json()["status"] == "ignored"
    assert not (tmp_path / "own.db").exists() or not marked(tmp_path / "own.db")


def test_without_a_token_nothing_is_noted(tmp_path: Path) -> None:
    client = create_app(Settings(), colour_engine()).test_client()
    answer = client.post("/webhook", json=told("ANNOTATION_CREATED", {"id": 1}))
    assert answer.get_json() == {"status": "ignored"}
    assert not (tmp_path / "own.db").exists() or not marked(tmp_path / "own.db")


def test_a_burst_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Four hundred messages from eight threads, while another process's work is being read."""
    app = make_app()
    messages = [
        told(action, {"id": number}, project=7 + number % 3)
        for number in range(1, 101)
        for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED") * 2
    ]
    reader = AnnotationStore(Database(f"sqlite:///{tmp_path}/own.db"), "reader")
    done = threading.Event()
    read: Counter[int] = Counter()

    def send(some: list[dict[str, Any]]) -> None:
        client = app.test_client()
        for message in some:
            assert client.post("/webhook", json=message).status_code == 200

    def take() -> None:
        while not done.is_set() or reader.count_open():
            for each in reader.lease(10):
                told_of = ReadAnnotation(each.annotation, each.project, 1, "scratch")
                read[each.annotation] += reader.complete(each, told_of)

    senders = [threading.Thread(target=send, args=(messages[n::8],)) for n in range(8)]
    taker = threading.Thread(target=take)
    for thread in (*senders, taker):
        thread.start()
    for thread in senders:
        thread.join()
    done.set()
    taker.join()
    assert marked(tmp_path / "own.db") == {(7 + n % 3, n): 4 for n in range(1, 101)}
    assert sorted(read) == list(range(1, 101))
    assert [len(reader.read(project)) for project in (7, 8, 9)] == [33, 34, 33]


NUMBERS = st.integers(-1, 4) | st.sampled_from([1 << 31, 1 << 63, 1 << 70])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("id"), inner, max_size=1),
    max_leaves=4,
)
THINGS = st.fixed_dictionaries({"id": NUMBERS}) | JSON
ACTIONS = st.sampled_from(
    [
        "TASKS_CREATED",
        "TASKS_DELETED",
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "PROJECT_UPDATED",
    ]
)
MESSAGES = st.fixed_dictionaries(
    {"action": ACTIONS | JSON},
    optional={
        "project": THINGS,
        "annotation": THINGS | st.lists(THINGS, max_size=3),
        "annotations": st.lists(THINGS, max_size=3) | JSON,
        "tasks": st.lists(THINGS, max_size=3) | JSON,
    },
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Flask, Path]:
    path = tmp_path_factory.mktemp("fuzzed") / "fuzzed.db"
    return make_app(database_url=f"sqlite:///{path}"), path


@settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=4))
def test_whatever_comes_is_answered_and_nothing_impossible_is_marked(
    fuzzed: tuple[Flask, Path], messages: list[Any]
) -> None:
    app, path = fuzzed
    for message in messages:
        raw = json.dumps(message).encode()
        before = marked(path) if path.exists() else Counter()
        answer = app.test_client().post("/webhook", data=raw)
        assert answer.status_code == 200
        status = answer.get_json()["status"]
        assert status in ("noted", "ignored")
        after = marked(path) if path.exists() else Counter()
        assert all(0 < project < 1 << 31 and id_ > 0 for project, id_ in after)
        if status == "ignored":
            assert after == before
