"""Slots are handed out in the order in which they were asked for, and none is lost."""

from __future__ import annotations

import threading

from backend.web.ml_backend.slot_queue import SlotQueue


def wait_for_line(queue: SlotQueue, length: int) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if queue.waiting == length:
            return
        pause.wait(0.01)
    raise AssertionError(f"{queue.waiting} wait in line, not {length}")


def test_no_more_slots_are_held_than_there_are() -> None:
    queue = SlotQueue(2, max_waiting=0)
    assert [queue.acquire(20) for _ in range(3)] == [True, True, False], "the line is full"
    assert not queue.has_free
    queue.release()
    assert queue.has_free
    assert queue.acquire(20)


def test_those_in_line_have_their_turn_in_the_order_in_which_they_came() -> None:
    queue, order = SlotQueue(1, max_waiting=5), list[int]()
    assert queue.acquire(0)

    def take(number: int) -> None:
        assert queue.acquire(20)
        order.append(number)
        queue.release()

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        wait_for_line(queue, number + 1)
    assert not queue.acquire(20), "the line is full"
    queue.release()
    for thread in threads:
        thread.join(20)
    assert order == [0, 1, 2, 3, 4]
    assert queue.acquire(0)
    assert not queue.acquire(0)


def test_a_slot_that_nobody_came_for_in_time_is_the_next_ones() -> None:
    queue = SlotQueue(1, max_waiting=5)
    assert queue.acquire(0)
    assert not queue.acquire(0.01)
    assert queue.waiting == 0
    queue.release()
    assert queue.acquire(0)
