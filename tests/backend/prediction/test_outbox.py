"""Predictions on their way, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from backend.database.database import METADATA, Database
from backend.database.leases import LEASE_S
from backend.label_studio.requests import Task
from backend.prediction.outbox import OutboxItem, PredictionOutbox, result_key
from tests.backend.conftest import Clock
from tests.backend.fakes.flaky_database import FlakyDatabase
from tests.backend.fakes.postgres_plans import scans
from tests.backend.fakes.sqlite_steps import CountedDatabase

ROOT = Path(__file__).parents[3]
VERSION = "v1"


@pytest.fixture
def results(database: Database) -> PredictionOutbox:
    return PredictionOutbox(database, "me")


@pytest.fixture
def other(database: Database) -> PredictionOutbox:
    return PredictionOutbox(database, "other")


def tasks(*ids: int, project: int = 7) -> dict[str, Task]:
    made = [Task(i, project, {"image": f"{i}.png"}) for i in ids]
    return {result_key(task, VERSION): task for task in made}


def entry(number: int) -> dict[str, Any]:
    return {"model_version": VERSION, "score": 0.5, "result": [number]}


def make(results: PredictionOutbox, *ids: int, due: float = 0.0) -> list[str]:
    some = tasks(*ids)
    assert results.claim(some, 7, VERSION) == some.keys()
    for key, task in some.items():
        results.add(key, entry(int(task.id or 0)), due)
    return list(some)


def test_what_is_claimed_is_made_by_nobody_else(
    results: PredictionOutbox, other: PredictionOutbox
) -> None:
    one, two = tasks(1, 2), tasks(2, 3)
    assert results.claim(one, 7, VERSION) == one.keys()
    assert other.claim(two, 7, VERSION) == tasks(3).keys()
    other.discard(one)  # it is not theirs to give back
    assert other.claim(one, 7, VERSION) == set()
    results.discard(one)
    assert other.claim(tasks(1), 7, VERSION) == tasks(1).keys()


def test_what_is_made_can_be_handed_out_and_again_later(
    results: PredictionOutbox, other: PredictionOutbox, clock: Clock
) -> None:
    (key,) = make(results, 1)
    assert other.take([key, "none"], clock.now) == {key: entry(1)}
    clock.now += 60
    assert results.take([key], clock.now) == {key: entry(1)}  # Label Studio had given up


def test_two_answers_never_hold_the_same(
    results: PredictionOutbox, other: PredictionOutbox, clock: Clock
) -> None:
    asked = clock.now
    (key,) = make(results, 1)
    clock.now += 1
    assert results.take([key], asked) == {key: entry(1)}
    assert other.take([key], asked) == {}


def test_what_is_handed_out_is_not_written_too(results: PredictionOutbox, clock: Clock) -> None:
    first, _second = make(results, 1, 2)
    results.take([first], clock.now)
    assert [waiting.task for waiting in results.lease_due(10)] == [2]


def test_what_is_made_is_told_apart(results: PredictionOutbox, clock: Clock) -> None:
    first, second, third = make(results, 1, 2, 3)
    results.take([first], clock.now)
    results.lease_due(1)
    results.claim(tasks(4), 7, VERSION)
    assert results.find_made([first, second, third, *tasks(4), "none"]) == {first, second, third}


def test_what_is_written_is_not_handed_out_too(results: PredictionOutbox, clock: Clock) -> None:
    asked = clock.now
    (key,) = make(results, 1)
    (waiting,) = results.lease_due(10)
    assert (waiting.task, waiting.project, waiting.version) == (1, 7, VERSION)
    assert (waiting.prediction, waiting.begun) == (entry(1), asked)
    assert results.take([key], asked) == {}
    results.complete([key])
    assert results.take([key], asked) == {}
    assert results.lease_due(10) == []


def test_what_is_written_while_label_studio_chose_the_tasks_is_not_handed_out(
    results: PredictionOutbox, clock: Clock
) -> None:
    """It chose the task since it had no prediction, and got one before the request was read."""
    (key,) = make(results, 1)
    results.lease_due(10)
    results.complete([key])
    clock.now += 0.5
    assert results.take([key], clock.now) == {}
    clock.now += 1
    assert results.take([key], clock.now) == {key: entry(1)}  # it was deleted there


def test_what_somebody_still_waits_for_is_not_due(results: PredictionOutbox, clock: Clock) -> None:
    make(results, 1, due=clock.now + 90)
    assert results.lease_due(10) == []
    clock.now += 91
    assert len(results.lease_due(10)) == 1


def test_what_could_not_be_written_is_due_again(results: PredictionOutbox, clock: Clock) -> None:
    (key,) = make(results, 1)
    assert results.lease_due(10)
    results.release([key], clock.now + 15)
    assert results.lease_due(10) == []
    clock.now += 16
    assert len(results.lease_due(10)) == 1


def test_due_ones_come_by_project(results: PredictionOutbox, clock: Clock) -> None:
    make(results, 1)
    clock.now += 1
    some = tasks(2, project=8)
    results.claim(some, 8, VERSION)
    results.add(next(iter(some)), entry(2), 0.0)
    clock.now += 1
    make(results, 3)
    assert [waiting.task for waiting in results.lease_due(10)] == [1, 3]
    assert [waiting.task for waiting in results.lease_due(10)] == [2]


def test_few_rows_are_read_however_many_results_are_kept(tmp_path: Path) -> None:
    """SQLite could look up the project, which all rows have, and read each of them."""
    database = CountedDatabase(tmp_path)
    results = PredictionOutbox(database, "me")
    steps = []
    for first in (0, 5_000):
        make(results, first + 1)
        written = [
            {
                "key": f"{first + number}",
                "task": first + number,
                "project": 7,
                "version": VERSION,
                "state": "written",
                "begun": 1.0,
                "changed": 1.0,
            }
            for number in range(2, 101 if not first else 4_901)
        ]
        with database.write() as connection:
            connection.execute(insert(METADATA.tables["results"]), written)
        steps.append(database.steps(lambda: results.lease_due(10)))
    database.close()
    assert steps[1] <= 2 * steps[0] + 100


def ready_rows(numbers: range, project: int) -> list[dict[str, Any]]:
    """Rows of results that wait to be written."""
    entry_ = zlib.compress(json.dumps(entry(1)).encode())
    row = {"project": project, "version": VERSION, "state": "ready", "entry": entry_, "begun": 1.0}
    return [{**row, "key": f"{n}", "task": n, "changed": float(n), "due": 0.0} for n in numbers]


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_a_lease_does_not_grow_with_what_waits(tmp_path: Path, is_analyzed: bool) -> None:
    """Of the same project or of others: what is due the longest stands first in an index."""
    database = CountedDatabase(tmp_path)
    results = PredictionOutbox(database, "me")
    table = METADATA.tables["results"]
    steps = []
    for start, count in ((0, 100), (1_000, 5_000)):
        rows = ready_rows(range(start, start + count), 7)
        rows += ready_rows(range(10_000 + start, 10_000 + start + count), 8)
        with database.write() as connection:
            connection.execute(insert(table), rows)
            if is_analyzed:
                connection.exec_driver_sql("ANALYZE")
        database.close()  # statistics are read when a connection is opened
        leased: list[OutboxItem] = []
        steps.append(database.steps(lambda to=leased: to.extend(results.lease_due(10))))
        assert len(leased) == 10
    database.close()
    assert steps[1] <= 2 * steps[0] + 100


def test_postgresql_walks_an_index_to_what_is_due(
    postgres_url: Callable[[str], str], clock: Clock, tmp_path: Path
) -> None:
    database = Database(postgres_url(f"due-{tmp_path.name}"[:60]), clock)
    rows = ready_rows(range(1, 5_001), 7) + ready_rows(range(5_001, 10_001), 8)
    with database.write() as connection:
        connection.execute(insert(METADATA.tables["results"]), rows)
    results = PredictionOutbox(database, "me")
    nodes = scans(database, lambda: results.lease_due(10))
    database.close()
    assert len(nodes) == 3, "of those whose writer has died, and two of those that are ready"
    for plan in nodes:
        assert "Index Scan" in plan
        assert not {"Sort", "Incremental Sort", "Seq Scan", "Bitmap Heap Scan"} & {*plan}


def test_what_waits_the_longest_is_written_first(results: PredictionOutbox, clock: Clock) -> None:
    """Whichever project it is of, and after what a writer has left that died."""
    for task, project in ((1, 7), (2, 8), (3, 7)):
        for key in tasks(task, project=project):
            results.claim(tasks(task, project=project), project, VERSION)
            results.add(key, entry(task), due=0.0)
        clock.now += 1
    assert [each.task for each in results.lease_due(10)] == [1, 3]
    clock.now += LEASE_S + 1
    assert [each.task for each in results.lease_due(1)] == [1]
    assert [each.task for each in results.lease_due(1)] == [3]
    assert [each.task for each in results.lease_due(1)] == [2]
    assert results.lease_due(1) == []


def test_claims_of_the_dead_are_taken_over(
    results: PredictionOutbox, other: PredictionOutbox, clock: Clock
) -> None:
    some = tasks(1, 2)
    results.claim(some, 7, VERSION)
    clock.now += LEASE_S - 1
    results.renew()
    clock.now += LEASE_S - 1
    assert other.claim(some, 7, VERSION) == set()
    clock.now += 2
    assert other.claim(some, 7, VERSION) == some.keys()
    for key in some:
        results.add(key, entry(0), 0.0)  # too late: it is the other's by now
    assert results.take(some, clock.now) == {}


def test_writers_that_die_lose_nothing(
    results: PredictionOutbox, other: PredictionOutbox, clock: Clock
) -> None:
    make(results, 1)
    assert len(results.lease_due(10)) == 1
    assert other.lease_due(10) == []
    clock.now += LEASE_S + 1
    assert len(other.lease_due(10)) == 1


@pytest.mark.parametrize("end", [PredictionOutbox.complete, lambda r, keys: r.release(keys, 0.0)])
def test_what_the_database_has_not_heard_of_is_free_after_one_lease(
    url: str, clock: Clock, end: Callable[[PredictionOutbox, list[str]], None]
) -> None:
    database = FlakyDatabase(url, clock)
    results, other = PredictionOutbox(database, "me"), PredictionOutbox(database, "other")
    keys = make(results, 1, 2)
    assert len(results.lease_due(10)) == 2
    database.away = 1
    with pytest.raises(OperationalError):
        end(results, keys)
    clock.now += LEASE_S - 1
    results.renew()
    clock.now += 2
    assert len(other.lease_due(10)) == 2
    database.close()


def test_orphans_are_told_until_somebody_sees_to_them(
    results: PredictionOutbox, other: PredictionOutbox, clock: Clock
) -> None:
    results.claim(tasks(1, 2), 7, VERSION)
    results.claim(tasks(3, project=8), 8, VERSION)
    assert other.orphans() == {}
    clock.now += 2 * LEASE_S + 1
    found = other.orphans()
    assert {project: sorted(claims.values()) for project, claims in found.items()} == {
        7: [1, 2],
        8: [3],
    }
    assert other.orphans() == found
    assert results.claim(tasks(1), 7, VERSION) == tasks(1).keys()
    other.discard_orphans(found[7])
    assert other.orphans() == {8: found[8]}
    assert other.claim(tasks(1, 2), 7, VERSION) == tasks(2).keys(), "the first has an owner again"


def test_what_is_abandoned_can_be_claimed_at_once(
    results: PredictionOutbox, other: PredictionOutbox
) -> None:
    some = tasks(1)
    results.claim(some, 7, VERSION)
    results.abandon(some)
    assert other.claim(some, 7, VERSION) == some.keys()


def test_a_task_that_was_changed_is_another(results: PredictionOutbox, clock: Clock) -> None:
    make(results, 1)
    changed = Task(1, 7, {"image": "other.png"})
    key = result_key(changed, VERSION)
    assert results.take([key], clock.now) == {}
    assert results.claim({key: changed}, 7, VERSION) == {key}


def test_space_is_bounded_and_what_label_studio_has_goes_first(
    database: Database, results: PredictionOutbox, clock: Clock
) -> None:
    small = PredictionOutbox(database, "me", max_count=10, trim_every=1)
    keys = []
    for number in range(1, 11):
        clock.now += 1
        keys += make(small, number)
    small.take([keys[7]], clock.now)  # the eighth is with Label Studio
    clock.now += 1
    keys += make(small, 11)
    left = {key for key in keys if results.take([key], clock.now + 1)}
    assert left == set(keys) - {keys[7], keys[0]}


def test_bytes_are_bounded_too(database: Database, clock: Clock) -> None:
    small = PredictionOutbox(database, "me", max_mb=1, trim_every=1)
    noise = [str(hash((i, "x"))) for i in range(30_000)]
    keys = []
    for number in range(8):
        clock.now += 1
        some = tasks(number + 1)
        small.claim(some, 7, VERSION)
        keys += list(some)
        small.add(keys[-1], {"result": noise}, 0.0)
    left = [bool(small.take([key], clock.now + 1)) for key in keys]
    assert left == sorted(left), "the oldest go first"
    assert 0 < sum(left) < 8


def test_one_answer_is_bounded_and_the_next_one_brings_the_rest(
    database: Database, clock: Clock
) -> None:
    small = PredictionOutbox(database, "me", max_mb=1)
    some = tasks(1, 2, 3)
    small.claim(some, 7, VERSION)
    for key in some:
        small.add(key, {"result": "x" * 300_000}, 0.0)
    first = small.take(some, clock.now)
    clock.now += 1
    second = small.take(some, clock.now)
    assert (len(first), len(second)) == (2, 2)
    assert first.keys() | second.keys() == some.keys()
    clock.now += 1
    assert small.take(some, clock.now, whole=True).keys() == some.keys()


def test_counts_by_project(results: PredictionOutbox, clock: Clock) -> None:
    first, *_ = make(results, 1, 2)
    results.claim(tasks(3, project=8), 8, VERSION)
    assert results.count_waiting() == {7: 2, 8: 1}
    results.take([first], clock.now)
    assert results.count_waiting() == {7: 1, 8: 1}


def test_threads_and_processes_claim_each_task_once(url: str, tmp_path: Path) -> None:
    code = (
        "import sys; from backend.label_studio.requests import Task\n"
        "from backend.database.database import Database\n"
        "from backend.prediction.outbox import PredictionOutbox, result_key\n"
        "results = PredictionOutbox(Database(sys.argv[1]), sys.argv[2]); got = 0\n"
        "for start in range(0, 200, 20):\n"
        "    tasks = [Task(i, 7, {}) for i in range(start, start + 20)]\n"
        "    got += len(results.claim({result_key(t, 'v'): t for t in tasks}, 7, 'v'))\n"
        "print(got)"
    )
    Database(url).check()
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, f"p{i}"], cwd=ROOT, stdout=subprocess.PIPE
        )
        for i in range(3)
    ]
    got = [int(run.communicate(timeout=120)[0]) for run in runs]
    assert sum(got) == 200
    database, claimed, barrier = Database(url), [], threading.Barrier(4)

    def race(number: int) -> None:
        barrier.wait(20)
        claimed.extend(
            PredictionOutbox(database, f"t{number}").claim(tasks(*range(1000, 1050)), 7, VERSION)
        )

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(claimed) == len(set(claimed)) == 50
    database.close()
