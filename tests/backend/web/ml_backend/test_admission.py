"""Who is let in, and what those hear who are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend.errors import BadRequest, Busy
from backend.label_studio.requests import Context, PredictRequest, Task
from backend.web.ml_backend import admission
from backend.web.ml_backend.admission import Admission, Asker

LABEL_STUDIO = Asker("192.0.2.1", is_label_studio=True)
OTHER = Asker("192.0.2.2")


def asked(count: int, context: Context | None = None) -> PredictRequest:
    tasks = tuple(Task(number, 7, {}) for number in range(count))
    return PredictRequest(tasks, "<View/>", context=context)


def numbered(request: PredictRequest) -> list[Any]:
    return [{"result": [task.id]} for task in request.tasks]


def busy(_: PredictRequest) -> list[Any]:
    raise Busy("The queue is full.")


def test_what_is_within_the_limits_is_answered_whole() -> None:
    for asker in (OTHER, LABEL_STUDIO):
        entries = Admission(numbered, 2, max_tasks=3, deadline_s=20).predict(
            lambda: asked(3), asker
        )
        assert entries == [{"result": [0]}, {"result": [1]}, {"result": [2]}]


def test_label_studio_has_empty_entries_for_the_tasks_above_the_limit() -> None:
    entries = Admission(numbered, 2, max_tasks=2, deadline_s=20).predict(
        lambda: asked(5), LABEL_STUDIO
    )
    assert entries == [{"result": [0]}, {"result": [1]}, [], [], []]


def test_others_are_told_to_ask_for_fewer() -> None:
    with pytest.raises(Busy, match=r"5 tasks, more than MAX_TASKS \(2\)"):
        Admission(numbered, 2, max_tasks=2, deadline_s=20).predict(lambda: asked(5), OTHER)


def test_a_full_queue_is_an_empty_entry_unless_an_annotator_waits() -> None:
    admission = Admission(busy, 2, max_tasks=9, deadline_s=20)
    assert admission.predict(lambda: asked(1), LABEL_STUDIO) == [[]]
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1, Context()), LABEL_STUDIO)
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1), OTHER)


def test_a_request_that_cannot_be_read_leaves_its_place() -> None:
    def unreadable() -> PredictRequest:
        raise BadRequest("no JSON")

    admission = Admission(numbered, 2, max_tasks=9, deadline_s=20)
    for _ in range(3):
        with pytest.raises(BadRequest):
            admission.predict(unreadable, LABEL_STUDIO)
    assert admission.predict(lambda: asked(1), OTHER)


def test_no_more_bodies_of_others_are_read_at_once_than_there_are_slots() -> None:
    admission = Admission(numbered, 2, max_tasks=9, deadline_s=20)
    reading, may_end = threading.Semaphore(0), threading.Event()

    def slow() -> PredictRequest:
        reading.release()
        assert may_end.wait(20)
        return asked(1)

    ask = lambda: admission.predict(slow, OTHER)  # noqa: E731
    threads = [started(ask) for _ in range(2)]
    for _ in threads:
        assert reading.acquire(timeout=20)
    with pytest.raises(Busy):
        ask()
    assert admission.predict(lambda: asked(1), LABEL_STUDIO) == [{"result": [0]}]
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert admission.predict(lambda: asked(1), OTHER)


class Held:
    """Predicts once it may; counts the requests inside.

    Attributes:
        waited_s: how long each request had waited, in the order in which they were let in.
    """

    def __init__(self) -> None:
        self.inside, self.may_end = threading.Semaphore(0), threading.Event()
        self.waited_s: list[float] = []
        self.order: list[Any] = []

    def __call__(self, request: PredictRequest) -> list[Any]:
        self.waited_s.append(request.waited_s)
        self.order.append(request.project_id)
        self.inside.release()
        assert self.may_end.wait(20)
        return numbered(request)


def started(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it has not come true in 20 s")


def batch_of(count: int, project: int) -> PredictRequest:
    return replace(asked(count), project_id=project)


class Full:
    """An admission whose two slots are held by annotators, until they may end."""

    def __init__(self, deadline_s: float = 20) -> None:
        self.held = Held()
        self.admission = Admission(self.held, 2, max_tasks=9, deadline_s=deadline_s)
        self.answers: dict[str, list[Any]] = {}
        self.threads: list[threading.Thread] = []
        for name in ("first", "second"):
            self.ask(name, asked(1, Context()))
            assert self.held.inside.acquire(timeout=20)

    def ask(self, name: str, request: PredictRequest, asker: Asker = LABEL_STUDIO) -> None:
        """Ask in a thread."""

        def run() -> None:
            self.answers[name] = self.admission.predict(lambda: request, asker)

        self.threads.append(started(run))

    def wait_for_line(self, annotators: int = 0, batches: int = 0) -> None:
        """Wait until so many wait in line."""
        until(lambda: self.admission.waiting == annotators)
        until(lambda: self.admission.waiting_batches == batches)

    def end(self) -> None:
        self.held.may_end.set()
        for thread in self.threads:
            thread.join(20)


def test_other_clients_are_refused_unread_while_all_slots_are_held() -> None:
    full = Full()
    full.ask("batch", asked(2))
    assert full.held.inside.acquire(timeout=20)

    def unread() -> PredictRequest:
        raise AssertionError("a body that there is no room for is not read")

    with pytest.raises(Busy):
        full.admission.predict(unread, OTHER)
    full.end()
    assert full.admission.predict(lambda: asked(1), OTHER)


def test_a_batch_of_another_client_is_refused_where_batches_hold_all_of_theirs() -> None:
    held = Held()
    admission = Admission(held, 2, max_tasks=9, deadline_s=20)
    batch = started(lambda: admission.predict(lambda: asked(3), LABEL_STUDIO))
    assert held.inside.acquire(timeout=20)
    with pytest.raises(Busy):
        admission.predict(lambda: asked(2), OTHER)
    held.may_end.set()
    assert admission.predict(lambda: asked(1), OTHER)
    batch.join(20)


@pytest.mark.parametrize("context", [None, Context()], ids=["opened task", "prompt"])
def test_an_annotator_waits_in_line_while_others_have_all_places(context: Context | None) -> None:
    full = Full()
    full.ask("annotator", asked(1, context))
    full.wait_for_line(1)
    full.end()
    assert full.answers["annotator"] == [{"result": [0]}]
    first, _, waited_s = full.held.waited_s
    assert first < waited_s


def test_a_batch_has_a_slot_beside_annotators_without_end() -> None:
    full = Full()
    for number in range(3):
        full.ask(f"click {number}", asked(1, Context()))
        full.wait_for_line(number + 1)
    full.ask("batch", batch_of(3, project=8))
    assert full.held.inside.acquire(timeout=20), "while three clicks wait"
    assert full.held.order[-1] == 8
    assert full.admission.waiting == 3
    full.end()
    assert full.answers["batch"] == [{"result": [0]}, {"result": [1]}, {"result": [2]}]


def test_batches_wait_in_a_line_of_their_own_and_the_last_are_left_for_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MAX_WAITING_BATCHES", 1)
    full = Full()
    full.ask("first batch", batch_of(2, project=8))
    assert full.held.inside.acquire(timeout=20)
    full.ask("next batch", batch_of(2, project=9))
    full.wait_for_line(batches=1)
    assert full.admission.predict(lambda: asked(3), LABEL_STUDIO) == [[], [], []]
    full.end()
    assert full.answers["next batch"] == [{"result": [0]}, {"result": [1]}]
    *_, before, waited_s = full.held.waited_s
    assert before < waited_s, "which counts towards its deadline"


def test_any_number_of_batches_leaves_annotators_their_slots() -> None:
    held = Held()
    admission = Admission(held, 4, max_tasks=9, deadline_s=20)
    batches = [started(lambda: admission.predict(lambda: asked(3), LABEL_STUDIO)) for _ in range(5)]
    until(lambda: admission.waiting_batches == 3)
    annotators = [
        started(lambda: admission.predict(lambda: asked(1, Context()), LABEL_STUDIO))
        for _ in range(4)
    ]
    for _ in range(2 + 4):
        assert held.inside.acquire(timeout=20)
    assert admission.waiting == 0
    held.may_end.set()
    for thread in (*batches, *annotators):
        thread.join(20)


def test_nobody_waits_longer_than_the_deadline() -> None:
    full = Full(deadline_s=0.01)
    assert full.admission.predict(lambda: asked(1), LABEL_STUDIO) == [[]]
    with pytest.raises(Busy):
        full.admission.predict(lambda: asked(1, Context()), LABEL_STUDIO)
    full.ask("batch", asked(2))
    assert full.held.inside.acquire(timeout=20)
    assert full.admission.predict(lambda: asked(2), LABEL_STUDIO) == [[], []]
    full.end()


def test_a_request_that_cannot_be_predicted_hands_its_place_on() -> None:
    def failing(_: PredictRequest) -> list[Any]:
        raise RuntimeError("the model is gone")

    admission = Admission(failing, 2, max_tasks=9, deadline_s=20)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            admission.predict(lambda: asked(1), LABEL_STUDIO)


def test_a_client_that_fills_the_line_of_batches_keeps_no_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MAX_WAITING_BATCHES", 3)
    hostile = replace(LABEL_STUDIO, client="203.0.113.9")
    full = Full()
    for number in range(4):
        full.ask(f"hostile {number}", batch_of(2, project=8), hostile)
        if number == 0:
            assert full.held.inside.acquire(timeout=20)
        full.wait_for_line(batches=number)
    full.ask("retrieve", batch_of(2, project=9))
    until(lambda: "hostile 3" in full.answers)
    assert full.answers["hostile 3"] == [[], []], "its newest one has lost its place"
    assert full.admission.waiting_batches == 3
    full.end()
    assert full.answers["retrieve"] == [{"result": [0]}, {"result": [1]}]
    assert full.held.order[3] == 9, "the next after the batch that ran"


def test_one_slot_of_batches_is_for_a_client_that_has_none() -> None:
    held = Held()
    admission = Admission(held, 6, max_tasks=9, deadline_s=20)
    hostile = replace(LABEL_STUDIO, client="203.0.113.9")
    threads = [started(lambda: admission.predict(lambda: asked(2), hostile)) for _ in range(3)]
    until(lambda: admission.waiting_batches == 1)
    threads.append(started(lambda: admission.predict(lambda: asked(2), LABEL_STUDIO)))
    for _ in range(3):
        assert held.inside.acquire(timeout=20)
    assert admission.waiting_batches == 1
    held.may_end.set()
    for thread in threads:
        thread.join(20)


def test_a_client_that_has_gone_leaves_the_line() -> None:
    full = Full()
    full.ask("first batch", batch_of(2, project=8))
    assert full.held.inside.acquire(timeout=20)
    is_gone = threading.Event()
    full.ask("gone", batch_of(2, project=8), replace(LABEL_STUDIO, is_gone=is_gone.is_set))
    full.wait_for_line(batches=1)
    is_gone.set()
    full.wait_for_line()
    full.end()
    assert full.answers["gone"] == [[], []]


def test_few_bodies_are_parsed_at_once_and_large_ones_apart() -> None:
    """More threads that parse are no faster, and keep `/setup` from its turn."""
    at_once = 12
    admission = Admission(numbered, at_once, max_tasks=9, deadline_s=20)
    reading, may_end = threading.Semaphore(0), threading.Event()

    def slow() -> PredictRequest:
        reading.release()
        assert may_end.wait(20)
        return asked(1)

    large = replace(LABEL_STUDIO, body_bytes=50 << 20)
    threads = [
        started(lambda asker=asker: admission.predict(slow, asker))  # type: ignore[misc]
        for asker in [large] * 3 + [LABEL_STUDIO] * 5
    ]
    for _ in range(2 + 4):
        assert reading.acquire(timeout=20)
    assert not reading.acquire(blocking=False)
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert [reading.acquire(blocking=False) for _ in range(3)] == [True, True, False]


def test_whoever_cannot_be_read_in_time_is_told_so() -> None:
    admission = Admission(numbered, 12, max_tasks=9, deadline_s=0.01)
    reading, may_end = threading.Semaphore(0), threading.Event()

    def slow() -> PredictRequest:
        reading.release()
        assert may_end.wait(20)
        return asked(1)

    threads = [started(lambda: admission.predict(slow, LABEL_STUDIO)) for _ in range(4)]
    for _ in threads:
        assert reading.acquire(timeout=20)
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1), LABEL_STUDIO)
    may_end.set()
    for thread in threads:
        thread.join(20)
