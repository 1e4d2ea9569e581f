"""Batches by a deadline: what is not ready goes on, is made once, and is not lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.database.database import Database
from backend.database.leases import LEASE_S
from backend.label_studio.requests import Task
from backend.prediction.deadline import _POLL_S, DeadlineRunner
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import PredictionOutbox, result_key
from backend.prediction.task_runner import PROJECT_CONCURRENCY, Outcome
from tests.backend.fakes.flaky_database import FlakyDatabase
from tests.backend.prediction.held_work import (
    VERSION,
    GoneModel,
    HeldWork,
    made_of,
    tasks,
    wait_for,
)

FOREVER_S = 60.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/pending.db"


@pytest.fixture
def make_runner(url: str) -> Iterator[Callable[..., DeadlineRunner]]:
    stores = []

    def make(owner: str = "me", deadline_s: float = FOREVER_S) -> DeadlineRunner:
        stores.append(Database(url))
        return DeadlineRunner(
            FailureStore(stores[-1]), PredictionOutbox(stores[-1], owner), deadline_s
        )

    yield make
    for database in stores:
        database.close()


class Clock:
    """Stands in for `time` where batches are made: their deadline passes when they have to wait."""

    def __init__(self) -> None:
        self._is_late = False

    def monotonic(self) -> float:
        return float("inf") if self._is_late else 0.0

    def sleep(self, seconds: float) -> None:
        self._is_late = True


def test_all_that_is_ready_in_time_is_answered_in_order(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work = HeldWork()
    outcomes = make_runner().run(tasks(3, 1, 2), VERSION, 7, work)
    assert made_of(outcomes) == [3, 1, 2]


def test_the_rest_goes_on_and_the_next_request_takes_it(
    make_runner: Callable[..., DeadlineRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_two_are_done(futures: list[Future[Outcome]], _: float) -> None:
        wait_for(lambda: sum(future.done() for future in futures) == 2)

    work, runner = HeldWork(2), make_runner(deadline_s=0)
    with monkeypatch.context() as patch:
        patch.setattr("backend.prediction.deadline.wait", until_two_are_done)
        answer = runner.run(tasks(1, 2, 3), VERSION, 7, work)
    assert made_of(answer) == [1, None, 3]
    assert runner.count_waiting() == {7: 1}
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of(runner.run(tasks(2), VERSION, 7, work)) == [2]
    assert sorted(work.made) == [1, 2, 3], "each was made once"


def test_predictions_that_nobody_reads_are_not_handed_out(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    runner = make_runner(deadline_s=0)
    gone = make_runner().run(tasks(1, 2), VERSION, 7, HeldWork(), is_gone=lambda: True)
    assert made_of(gone) == [None, None]
    assert made_of(runner.run(tasks(1, 2), VERSION, 7, HeldWork())) == [1, 2]


def test_a_batch_whose_client_has_gone_waits_no_more(
    make_runner: Callable[..., DeadlineRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep the slot of another batch until its deadline."""
    monkeypatch.setattr("backend.prediction.deadline._POLL_S", 0.01)
    work, runner, other = HeldWork(1), make_runner(), make_runner("other")
    with ThreadPoolExecutor() as pool:
        gone = threading.Event()
        answers = [
            pool.submit(each.run, tasks(1), VERSION, 7, work, is_gone=gone.is_set)
            for each in (runner, other)
        ]
        assert work.started[1].wait(20)
        gone.set()
        assert [made_of(each.result(20)) for each in answers] == [[None], [None]]
        work.release()
    wait_for(lambda: made_of(runner.run(tasks(1), VERSION, 7, work)) == [1])
    assert work.made == [1], "it has gone on"


def test_tasks_that_go_on_after_their_deadline_are_bounded(
    make_runner: Callable[..., DeadlineRunner],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Clients that ask faster than tasks are done would fill the memory and the database."""
    monkeypatch.setattr("backend.prediction.deadline._MOST_LATE_BYTES", 7 * 1100)
    first = range(1, PROJECT_CONCURRENCY + 1)
    work, runner = HeldWork(*first), make_runner(deadline_s=0)
    runner.run(tasks(*first, 10, 11), VERSION, 7, work)
    assert runner.count_waiting() == {7: PROJECT_CONCURRENCY + 2}
    runner.run(tasks(20, 21, 22), VERSION, 7, work)
    assert "3 are left for the next time" in caplog.text
    assert runner.count_waiting() == {7: PROJECT_CONCURRENCY + 2}
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert sorted(work.made) == [*first, 10, 11]
    wait_for(lambda: made_of(make_runner("you").run(tasks(20, 10), VERSION, 7, work)) == [20, 10])


@pytest.mark.parametrize("opened", [False, True])
def test_a_task_that_somebody_else_waits_for_is_not_dropped(
    opened: bool, make_runner: Callable[..., DeadlineRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.prediction.deadline._MOST_LATE_BYTES", 0)
    first = range(1, PROJECT_CONCURRENCY + 1)
    work, runner = HeldWork(*first), make_runner()
    with ThreadPoolExecutor() as pool:
        if opened:  # as many as run at once, and one more, whose deadline is over
            for task in first:
                runner.run_until(0.0, tasks(task), VERSION, 7, work, opened=True)
            runner.run_until(0.0, tasks(9), VERSION, 7, work, opened=True)
        else:
            runner.run_until(0.0, tasks(*first), VERSION, 7, work)
            waits = pool.submit(runner.run, tasks(9), VERSION, 7, work)
            wait_for(lambda: runner.count_waiting() == {7: PROJECT_CONCURRENCY + 1})
        both = tasks(9) if opened else tasks(9, 10)
        runner.run_until(0.0, both, VERSION, 7, work)
        assert runner.count_waiting() == {7: PROJECT_CONCURRENCY + 1}, "only 10 was dropped"
        assert runner._outbox.lease_due(10) == []
        work.release()
        if opened:
            wait_for(lambda: made_of(runner.run(tasks(9), VERSION, 7, work)) == [9])
        else:
            assert made_of(waits.result(20)) == [9]


def test_the_time_in_line_counts_towards_the_deadline_of_a_batch(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work, runner = HeldWork(1), make_runner(deadline_s=FOREVER_S)
    assert made_of(runner.run(tasks(1), VERSION, 7, work, waited_s=FOREVER_S)) == [None]
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of(runner.run(tasks(1), VERSION, 7, work)) == [1], "it has gone on"


def test_a_request_for_what_is_being_made_joins_it(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work, runner = HeldWork(1), make_runner()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(runner.run, tasks(1), VERSION, 7, work)
        assert work.started[1].wait(20)
        second = pool.submit(runner.run, tasks(1, 2), VERSION, 7, work)
        wait_for(lambda: 2 in work.made)
        assert not second.done(), "it waits for the first task too"
        work.release()
        answers = [made_of(first.result(20)), made_of(second.result(20))]
    assert sorted(work.made) == [1, 2]
    handed = [answers[0][0], answers[1][0]]
    assert sorted(handed, key=str) == [1, None], "twice would be stored twice"


def test_backends_on_one_database_share_the_work(
    make_runner: Callable[..., DeadlineRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, here, there = HeldWork(1), make_runner("here"), make_runner("there")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(there.run, tasks(1), VERSION, 7, work)
        assert work.started[1].wait(20)
        with monkeypatch.context() as patch:
            patch.setattr("backend.prediction.deadline.time", Clock())
            assert made_of(here.run(tasks(1, 2), VERSION, 7, work)) == [None, 2]
        work.release()
        assert made_of(first.result(20)) == [1]
    assert sorted(work.made) == [1, 2]


def test_what_another_backend_has_made_is_taken(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work, here, there = HeldWork(1), make_runner("here"), make_runner("there", 0.2)
    assert made_of(there.run(tasks(1), VERSION, 7, work)) == [None]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(here.run, tasks(1), VERSION, 7, work)
        time.sleep(0.2)
        work.release()
        assert made_of(waiting.result(20)) == [1]
    assert work.made == [1]


def test_what_is_there_is_handed_out_with_the_answer_and_no_sooner(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    """Whoever answers first brings it; from two answers, Label Studio would store it twice."""
    work, runner = HeldWork(2), make_runner()
    runner.run_until(0.0, tasks(1), VERSION, 7, work)
    wait_for(lambda: runner.count_waiting() == {})
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(runner.run, tasks(1, 2), VERSION, 7, work)
        assert work.started[2].wait(20)
        assert made_of(runner.run(tasks(1), VERSION, 7, work)) == [1]
        work.release()
        assert made_of(slow.result(20)) == [None, 2]
    assert made_of(runner.run(tasks(1), VERSION, 7, work)) == [1], "in case that one was lost"
    assert work.made == [1, 2]


def test_what_is_taken_over_from_the_dead_is_waited_for(
    make_runner: Callable[..., DeadlineRunner], url: str
) -> None:
    work, (task,) = HeldWork(1), tasks(1)
    past = Database(url, lambda: time.time() - LEASE_S + 0.2)
    PredictionOutbox(past, "died").claim({result_key(task, VERSION): task}, 7, VERSION)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(make_runner().run, [task], VERSION, 7, work)
        assert work.started[1].wait(20)
        time.sleep(2 * _POLL_S)
        assert not answer.done()
        work.release()
        assert made_of(answer.result(20)) == [1]
    past.close()


def test_results_outlive_the_backend_that_made_them(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work, dies = HeldWork(1), make_runner("dies", 0.1)
    dies.run(tasks(1), VERSION, 7, work)
    work.release()
    wait_for(lambda: dies.count_waiting() == {})
    assert made_of(make_runner("lives").run(tasks(1), VERSION, 7, work)) == [1]
    assert work.made == [1]


def test_only_what_no_request_waits_for_is_due(
    make_runner: Callable[..., DeadlineRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, runner, over = HeldWork(2), make_runner(), threading.Event()
    time_ = SimpleNamespace(monotonic=lambda: float("inf") if over.is_set() else 0.0)
    monkeypatch.setattr("backend.prediction.deadline.wait", lambda *_: over.wait(20))
    monkeypatch.setattr("backend.prediction.deadline.time", time_)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(runner.run, tasks(1, 2), VERSION, 7, work)
        assert work.started[2].wait(20)
        wait_for(lambda: runner.count_waiting() == {7: 1})
        assert runner._outbox.lease_due(10) == []
        over.set()
        assert made_of(answer.result(20)) == [1, None]
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert [waiting.task for waiting in runner._outbox.lease_due(10)] == [2]


def test_an_opened_task_takes_what_is_kept(make_runner: Callable[..., DeadlineRunner]) -> None:
    work, runner = HeldWork(1), make_runner(deadline_s=0.1)
    (task,) = tasks(1)
    assert runner.run_opened(task, VERSION, 7, work) == Outcome([]), "in time"
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of([runner.run_opened(task, VERSION, 7, work)]) == [1]
    assert work.made == [1]
    assert made_of([make_runner().run_opened(task, "v2", 7, work)]) == [1]
    assert work.made == [1, 1]


def test_an_opened_task_comes_before_its_own_batch_and_is_made_once(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    ahead = range(1, PROJECT_CONCURRENCY + 1)
    work, runner = HeldWork(*ahead), make_runner()
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(runner.run, tasks(*ahead, 8, 9), VERSION, 7, work)
        wait_for(lambda: runner.count_waiting() == {7: PROJECT_CONCURRENCY + 2})
        assert made_of([runner.run_opened(tasks(9)[0], VERSION, 7, work)]) == [9]
        assert work.made == [9]
        work.release()
        assert made_of(batch.result(20)) == [*ahead, 8, None]
    assert sorted(work.made) == [*ahead, 8, 9]


def test_an_opened_task_does_not_wait_for_the_line_of_another_backend(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work, here, there = HeldWork(1), make_runner("here"), make_runner("there")
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(there.run, tasks(1), VERSION, 7, work)
        assert work.started[1].wait(20)
        assert made_of([here.run_opened(tasks(1)[0], VERSION, 7, HeldWork())]) == [1]
        work.release()
        assert made_of(batch.result(20)) == [1]


def test_two_who_open_a_task_at_once_both_get_it(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    """Annotators who begin a project together are all handed its first task."""
    work, runner = HeldWork(1), make_runner()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(runner.run_opened, tasks(1)[0], VERSION, 7, work)
        assert work.started[1].wait(20)
        second = pool.submit(runner.run_opened, tasks(1)[0], VERSION, 7, work)
        work.release()
        assert made_of([first.result(20), second.result(20)]) == [1, 1]


def test_an_opened_task_that_fails_is_noted(
    make_runner: Callable[..., DeadlineRunner], url: str
) -> None:
    gone = Outcome([], "No image.")
    assert make_runner().run_opened(tasks(1)[0], VERSION, 7, lambda _: gone) == gone
    (failure,) = FailureStore(Database(url)).newest()
    assert (failure.job, failure.task, failure.reason) == (0, 1, "No image.")


def test_what_a_prediction_lacks_is_noted_beside_it(
    make_runner: Callable[..., DeadlineRunner], url: str
) -> None:
    whole = HeldWork()

    def work(task: Task) -> Outcome:
        return replace(whole(task), missing="Predicted without 1 of 3 pictures.")

    assert made_of(make_runner().run(tasks(1), VERSION, 7, work)) == [1]
    (failure,) = FailureStore(Database(url)).newest()
    assert (failure.task, failure.reason) == (1, "Predicted without 1 of 3 pictures.")


def test_a_task_that_fails_is_noted_and_may_be_asked_for_again(
    make_runner: Callable[..., DeadlineRunner], url: str
) -> None:
    runner = make_runner()
    answers = runner.run(tasks(1), VERSION, 7, lambda _: Outcome([], "No image."))
    assert answers == [Outcome([], "No image.")]
    (failure,) = FailureStore(Database(url)).newest()
    assert (failure.job, failure.task, failure.reason) == (0, 1, "No image.")
    (failing,) = FailureStore(Database(url)).failing()
    assert (failing.task, failing.project, failing.reason) == (1, 7, "No image.")
    assert made_of(runner.run(tasks(1), VERSION, 7, HeldWork())) == [1]
    assert FailureStore(Database(url)).failing() == [], "it was predicted since"


def test_what_is_no_fault_of_one_task_ends_all_of_them_at_once(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    runner, work = make_runner(), GoneModel()
    with pytest.raises(ConnectionError, match="the model is gone"):
        runner.run(tasks(*range(500)), VERSION, 7, work)
    assert len(work.asked) < 500
    wait_for(lambda: runner.count_waiting() == {})
    assert made_of(runner.run(tasks(1), VERSION, 7, HeldWork())) == [1], "it is not claimed"


def test_a_task_that_is_sent_twice_is_made_once(
    make_runner: Callable[..., DeadlineRunner],
) -> None:
    work = HeldWork()
    assert made_of(make_runner().run(tasks(1, 1), VERSION, 7, work)) == [1, 1]
    assert work.made == [1]


def test_an_outage_of_the_database_costs_no_prediction_and_strands_no_task(url: str) -> None:
    now, ids = [1000.0], range(1, 11)
    database, work = FlakyDatabase(url, lambda: now[0]), HeldWork(*ids)
    results = PredictionOutbox(database, "me")
    runner = DeadlineRunner(FailureStore(database), results, FOREVER_S)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(runner.run, tasks(*ids), VERSION, 7, work)
        assert work.started[1].wait(20)
        database.away = float("inf")
        work.release()
        assert made_of(answer.result(20)) == list(ids)
    wait_for(lambda: runner.count_waiting() == {})
    database.away = 0
    now[0] += LEASE_S - 1
    results.renew()
    now[0] += 2
    other = DeadlineRunner(FailureStore(database), PredictionOutbox(database, "other"), FOREVER_S)
    assert made_of(other.run(tasks(*ids), VERSION, 7, HeldWork())) == list(ids)
    database.close()


def without_database(deadline_s: float) -> DeadlineRunner:
    """A runner whose PostgreSQL is not there."""
    database = Database("postgresql+psycopg://ann:secret@127.0.0.1:9/name")
    return DeadlineRunner(FailureStore(database), PredictionOutbox(database, "me"), deadline_s)


def test_a_batch_does_without_a_database_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    runner, ids = without_database(FOREVER_S), range(1, 3 * PROJECT_CONCURRENCY)
    assert made_of(runner.run(tasks(*ids), VERSION, 7, HeldWork())) == list(ids)
    assert "waiting predictions" in caplog.text
    assert "secret" not in caplog.text


def test_a_task_that_fails_while_the_database_is_away_costs_no_other_one() -> None:
    work = HeldWork()

    def failing(task: Task) -> Outcome:
        return Outcome([], "Gone.") if task.id == 2 else work(task)

    assert made_of(without_database(FOREVER_S).run(tasks(1, 2, 3), VERSION, 7, failing)) == [
        1,
        None,
        3,
    ]


def test_without_a_database_what_is_late_is_not_begun() -> None:
    ids = range(1, 2 * PROJECT_CONCURRENCY)
    runner, work = without_database(0.5), HeldWork(*range(2, 2 * PROJECT_CONCURRENCY))
    assert made_of(runner.run(tasks(*ids), VERSION, 7, work)) == [1, *[None] * (len(ids) - 1)]
    work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert len(work.made) == 1 + PROJECT_CONCURRENCY


def test_without_a_database_nothing_is_begun_for_a_client_that_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.prediction.deadline._POLL_S", 0.01)
    ids = range(1, 2 * PROJECT_CONCURRENCY)
    runner, work, gone = without_database(FOREVER_S), HeldWork(*ids), threading.Event()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(runner.run, tasks(*ids), VERSION, 7, work, is_gone=gone.is_set)
        assert work.started[1].wait(20)
        gone.set()
        assert made_of(answer.result(20)) == [None] * len(ids)
        work.release()
    wait_for(lambda: runner.count_waiting() == {})
    assert len(work.made) <= PROJECT_CONCURRENCY, "what waited was not begun"


def test_a_model_that_is_gone_is_said_while_the_database_is_away() -> None:
    with pytest.raises(ConnectionError):
        without_database(FOREVER_S).run(tasks(1, 2), VERSION, 7, GoneModel())


def test_an_opened_task_does_without_a_database_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = without_database(1.0)
    assert made_of([runner.run_opened(tasks(1)[0], VERSION, 7, HeldWork())]) == [1]
    assert "waiting predictions" in caplog.text
    assert "secret" not in caplog.text
