"""Who is let in, and what those hear who are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from backend.errors import BadRequest, Busy
from backend.label_studio.requests import Context, PredictRequest, Task
from backend.web.ml_backend.admission import Admission


def asked(count: int, context: Context | None = None) -> PredictRequest:
    tasks = tuple(Task(number, 7, {}) for number in range(count))
    return PredictRequest(tasks, "<View/>", context=context)


def numbered(request: PredictRequest) -> list[Any]:
    return [{"result": [task.id]} for task in request.tasks]


def busy(_: PredictRequest) -> list[Any]:
    raise Busy("The queue is full.")


def test_what_is_within_the_limits_is_answered_whole() -> None:
    for by_label_studio in (False, True):
        entries = Admission(numbered, 1, max_tasks=3, deadline_s=20).predict(
            lambda: asked(3), by_label_studio
        )
        assert entries == [{"result": [0]}, {"result": [1]}, {"result": [2]}]


def test_label_studio_has_empty_entries_for_the_tasks_above_the_limit() -> None:
    entries = Admission(numbered, 1, max_tasks=2, deadline_s=20).predict(
        lambda: asked(5), by_label_studio=True
    )
    assert entries == [{"result": [0]}, {"result": [1]}, [], [], []]


def test_others_are_told_to_ask_for_fewer() -> None:
    with pytest.raises(Busy, match=r"5 tasks, more than MAX_TASKS \(2\)"):
        Admission(numbered, 1, max_tasks=2, deadline_s=20).predict(
            lambda: asked(5), by_label_studio=False
        )


def test_a_full_queue_is_an_empty_entry_unless_an_annotator_waits() -> None:
    admission = Admission(busy, 1, max_tasks=9, deadline_s=20)
    assert admission.predict(lambda: asked(1), by_label_studio=True) == [[]]
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1, Context()), by_label_studio=True)
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1), by_label_studio=False)


def test_no_more_than_some_are_worked_on_at_once() -> None:
    inside, may_end = threading.Semaphore(0), threading.Event()

    def slow(request: PredictRequest) -> list[Any]:
        inside.release()
        assert may_end.wait(20)
        return numbered(request)

    admission = Admission(slow, 2, max_tasks=9, deadline_s=20)
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                admission.predict(lambda: asked(1), by_label_studio=False)
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=20)

    def unread() -> PredictRequest:
        raise AssertionError("a body that there is no room for is not read")

    with pytest.raises(Busy):
        admission.predict(unread, by_label_studio=False)
    assert admission.predict(lambda: asked(3), by_label_studio=True) == [[], [], []]
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 2
    assert admission.predict(lambda: asked(1), by_label_studio=False)


def test_a_request_that_cannot_be_read_leaves_its_place() -> None:
    def unreadable() -> PredictRequest:
        raise BadRequest("no JSON")

    admission = Admission(numbered, 1, max_tasks=9, deadline_s=20)
    for _ in range(3):
        with pytest.raises(BadRequest):
            admission.predict(unreadable, by_label_studio=True)
    assert admission.predict(lambda: asked(1), by_label_studio=False)


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


@pytest.mark.parametrize("context", [None, Context()], ids=["opened task", "prompt"])
def test_an_annotator_waits_in_line_while_others_have_all_places(context: Context | None) -> None:
    held = Held()
    admission = Admission(held, 1, max_tasks=9, deadline_s=20)
    batch = started(lambda: admission.predict(lambda: asked(3), by_label_studio=True))
    assert held.inside.acquire(timeout=20)
    answers: list[Any] = []
    annotator = started(
        lambda: answers.append(admission.predict(lambda: asked(1, context), by_label_studio=True))
    )
    until(lambda: admission.waiting == 1)
    assert admission.predict(lambda: asked(2), by_label_studio=True) == [[], []], "a batch"
    held.may_end.set()
    for thread in (batch, annotator):
        thread.join(20)
    assert answers == [[{"result": [0]}]]
    assert held.waited_s[0] == 0 < held.waited_s[1]


def test_an_annotator_waits_no_longer_than_the_deadline() -> None:
    held = Held()
    admission = Admission(held, 1, max_tasks=9, deadline_s=0.01)
    batch = started(lambda: admission.predict(lambda: asked(3), by_label_studio=True))
    assert held.inside.acquire(timeout=20)
    assert admission.predict(lambda: asked(1), by_label_studio=True) == [[]]
    with pytest.raises(Busy):
        admission.predict(lambda: asked(1, Context()), by_label_studio=True)
    held.may_end.set()
    batch.join(20)


def test_a_request_that_cannot_be_predicted_hands_its_place_on() -> None:
    def failing(_: PredictRequest) -> list[Any]:
        raise RuntimeError("the model is gone")

    admission = Admission(failing, 1, max_tasks=9, deadline_s=20)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            admission.predict(lambda: asked(1), by_label_studio=True)
