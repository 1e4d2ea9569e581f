"""Requests for predictions wait for a slot, a bounded number of them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.errors import Busy
from backend.web import ml_backend
from backend.web.request_slots import RequestSlots, Slots
from tests.backend.web.requests_to_app import RED, make_app, predict_body


def test_who_waits_gets_a_slot_and_who_is_too_many_is_told_so_at_once() -> None:
    slots, may_end = Slots(1, waiting=1), threading.Event()

    def work() -> str:
        try:
            with slots.hold(60):
                assert may_end.wait(60)
                return "done"
        except Busy:
            may_end.set()  # while the others hold a slot and wait
            return "busy"

    with ThreadPoolExecutor(3) as pool:
        done = [each.result() for each in [pool.submit(work) for _ in range(3)]]
    assert sorted(done) == ["busy", "done", "done"]
    with slots.hold(0), pytest.raises(Busy), slots.hold(0.01):
        pass


@pytest.mark.parametrize("threads", [4, 256])
def test_all_others_find_a_thread_while_all_slots_are_taken(threads: int) -> None:
    slots = RequestSlots(threads)
    held = (slots.bodies, slots.annotators, slots.batches)
    assert slots.threads - sum(each.places for each in held) >= 16


def test_tasks_above_the_limit_are_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml_backend, "MAX_TASKS", 2)
    client = make_app().test_client()
    answer = client.post("/predict", json=predict_body(*[RED | {"id": n} for n in range(4)]))
    first, second, *others = json.loads(answer.data)["results"]
    assert first["result"]
    assert second["result"]
    assert others == [[], []]
