"""Who is let in, and what those hear who are not."""

from __future__ import annotations

import threading
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
        entries = Admission(numbered, 1, max_tasks=3).predict(lambda: asked(3), by_label_studio)
        assert entries == [{"result": [0]}, {"result": [1]}, {"result": [2]}]


def test_label_studio_has_empty_entries_for_the_tasks_above_the_limit() -> None:
    entries = Admission(numbered, 1, max_tasks=2).predict(lambda: asked(5), by_label_studio=True)
    assert entries == [{"result": [0]}, {"result": [1]}, [], [], []]


def test_others_are_told_to_ask_for_fewer() -> None:
    with pytest.raises(Busy, match=r"5 tasks, more than MAX_TASKS \(2\)"):
        Admission(numbered, 1, max_tasks=2).predict(lambda: asked(5), by_label_studio=False)


def test_a_full_queue_is_an_empty_entry_unless_an_annotator_waits() -> None:
    admission = Admission(busy, 1, max_tasks=9)
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

    admission = Admission(slow, 2, max_tasks=9)
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

    admission = Admission(numbered, 1, max_tasks=9)
    for _ in range(3):
        with pytest.raises(BadRequest):
            admission.predict(unreadable, by_label_studio=True)
    assert admission.predict(lambda: asked(1), by_label_studio=False)
