"""Slots are handed out in the order of service, and none is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from backend.web.ml_backend.slot_queue import SlotQueue

ANNOTATOR, BATCH = False, True


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it has not come true in 20 s")


def length(queue: SlotQueue) -> int:
    return queue.waiting + queue.waiting_batches


class Line:
    """Those who wait for a slot, each in a thread, and keep it until it is released for them."""

    def __init__(self, queue: SlotQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self._threads: list[threading.Thread] = []

    def join(self, name: str) -> None:
        """Wait as a batch where the name says so; return once in line."""
        before = length(self.queue)
        self._threads.append(threading.Thread(target=self._take, args=(name,)))
        self._threads[-1].start()
        until(lambda: length(self.queue) == before + 1)

    def release(self, is_batch: bool) -> None:
        """Release a slot, and wait until one in line has it."""
        before = len(self.served)
        self.queue.release(is_batch)
        until(lambda: len(self.served) == before + 1)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(20)

    def _take(self, name: str) -> None:
        if self.queue.acquire("batch" in name, 20):
            self.served.append(name)


@contextmanager
def line_behind(queue: SlotQueue, *names: str) -> Iterator[Line]:
    line = Line(queue)
    for name in names:
        line.join(name)
    yield line
    line.end()


def test_no_more_slots_are_held_than_there_are() -> None:
    queue = SlotQueue(2, max_waiting=0, max_waiting_batches=0)
    assert [queue.acquire(ANNOTATOR, 20) for _ in range(3)] == [True, True, False]
    assert not queue.has_free
    assert not queue.acquire(BATCH, 20), "the line is full, so it does not wait"
    queue.release(ANNOTATOR)
    assert queue.has_free
    assert queue.acquire(BATCH, 20)


@pytest.mark.parametrize("is_batch", [ANNOTATOR, BATCH])
def test_those_in_line_have_their_turn_in_the_order_in_which_they_came(is_batch: bool) -> None:
    queue = SlotQueue(2, max_waiting=5, max_waiting_batches=5)
    assert queue.acquire(ANNOTATOR, 20)
    assert queue.acquire(is_batch, 20)
    names = [f"{'batch' if is_batch else 'annotator'} {number}" for number in range(5)]
    with line_behind(queue, *names) as line:
        assert not queue.acquire(is_batch, 20), "the line is full"
        for _ in names:
            line.release(is_batch)
    assert line.served == names
    queue.release(ANNOTATOR)
    assert queue.acquire(ANNOTATOR, 0)
    assert not queue.acquire(ANNOTATOR, 0)


def test_batches_have_a_quarter_of_the_slots_beside_annotators_without_end() -> None:
    queue = SlotQueue(8, max_waiting=9, max_waiting_batches=9)
    assert all(queue.acquire(ANNOTATOR, 0) for _ in range(8))
    names = ["click 1", "click 2", "click 3", "batch 1", "batch 2", "batch 3", "click 4"]
    with line_behind(queue, *names) as line:
        for _ in range(5):
            line.release(ANNOTATOR)
        assert line.served == ["batch 1", "batch 2", "click 1", "click 2", "click 3"]
        line.release(BATCH)
        assert line.served[-1] == "batch 3", "in the place of the one that has ended"
        line.release(ANNOTATOR)


def test_batches_alone_hold_half_of_the_slots() -> None:
    queue = SlotQueue(5, max_waiting=0, max_waiting_batches=9)
    assert [queue.acquire(BATCH, 0) for _ in range(3)] == [True, True, False]
    with line_behind(queue, "batch 3") as line:
        assert [queue.acquire(ANNOTATOR, 0) for _ in range(4)] == [True, True, True, False]
        queue.release(ANNOTATOR)
        assert queue.acquire(ANNOTATOR, 0), "what is left to annotators waits for them"
        line.release(BATCH)


def test_a_slot_that_nobody_came_for_in_time_is_the_next_ones() -> None:
    queue = SlotQueue(2, max_waiting=5, max_waiting_batches=5)
    assert all(queue.acquire(ANNOTATOR, 0) for _ in range(2))
    for is_batch in (ANNOTATOR, BATCH):
        assert not queue.acquire(is_batch, 0.01)
    assert length(queue) == 0
    queue.release(ANNOTATOR)
    assert queue.acquire(BATCH, 0)


def test_in_any_order_no_slot_is_lost_and_annotators_keep_half() -> None:
    rng, slots = random.Random(0), 6
    queue = SlotQueue(slots, max_waiting=0, max_waiting_batches=0)
    held = {ANNOTATOR: 0, BATCH: 0}
    for _ in range(3000):
        is_batch = rng.random() < 0.5
        if rng.random() < 0.5 and held[is_batch]:
            queue.release(is_batch)
            held[is_batch] -= 1
        else:
            room = sum(held.values()) < slots and (not is_batch or held[BATCH] < slots // 2)
            assert queue.acquire(is_batch, 0) == room
            held[is_batch] += room
        assert queue.has_free == (sum(held.values()) < slots)


def test_one_slot_would_let_a_batch_keep_annotators_out() -> None:
    with pytest.raises(ValueError, match="`slots` to be 2 or more, but got 1"):
        SlotQueue(1, max_waiting=1, max_waiting_batches=1)
