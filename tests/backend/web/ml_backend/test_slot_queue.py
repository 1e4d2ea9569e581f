"""Slots are handed out in order, each client in its turn, and none is lost."""

from __future__ import annotations

import threading

import pytest

from backend.web.ml_backend import slot_queue
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
    assert not queue.has_free()
    queue.release()
    assert queue.has_free()
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


class Line:
    """Threads that wait for a slot of a queue.

    Attributes:
        order: the clients that have had a slot.
        left: the clients that were told there is none.
    """

    def __init__(self, queue: SlotQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self.left: list[str] = []
        self.threads: list[threading.Thread] = []

    def join(self, client: str, length: int) -> None:
        """Let a client wait; then so many do."""
        self.threads.append(threading.Thread(target=self._wait, args=(client,)))
        self.threads[-1].start()
        wait_for_line(self.queue, length)

    def _wait(self, client: str) -> None:
        if not self.queue.acquire(20, client):
            self.left.append(client)
            return
        self.order.append(client)
        self.queue.release(client)

    def end(self) -> None:
        for thread in self.threads:
            thread.join(20)


def test_a_slot_goes_to_the_client_that_holds_the_fewest() -> None:
    queue = SlotQueue(2, max_waiting=9)
    assert queue.acquire(0, "a")
    assert queue.acquire(0, "a")
    line = Line(queue)
    for length, client in enumerate("aab", 1):
        line.join(client, length)
    queue.release("a")
    line.end()
    assert line.order == ["b", "a", "a"]


def test_clients_share_the_places_of_the_line() -> None:
    queue = SlotQueue(1, max_waiting=4)
    assert queue.acquire(0, "a")
    line = Line(queue)
    for length in range(1, 5):
        line.join("a", length)
    assert not queue.acquire(20, "a"), "it has all places, and loses none to itself"
    for _ in range(2):
        line.join("b", 4)
    assert not queue.acquire(20, "b"), "half of them are its"
    line.join("c", 4)
    queue.release("a")
    line.end()
    assert (sorted(line.left), sorted(line.order)) == (["a", "a", "a"], ["a", "b", "b", "c"])


def test_as_many_clients_as_places_keep_no_other_out() -> None:
    queue = SlotQueue(1, max_waiting=3)
    for client in ("studio", "a", "b", "c"):  # all have had a turn, the studio first
        assert queue.acquire(0, client)
        queue.release(client)
    assert queue.acquire(0, "d")
    line = Line(queue)
    for length, client in enumerate("abc", 1):
        line.join(client, length)
    line.join("studio", 3)
    line.threads[2].join(20)  # that of "c" has left the line
    assert not queue.acquire(20, "c"), "it was served after all that wait, and takes nobody's place"
    assert not queue.acquire(20, "d"), "nor does who is at it"
    queue.release("d")
    line.end()
    assert (line.left, line.order) == (["c"], ["studio", "a", "b"])


def test_of_very_many_clients_the_last_turns_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slot_queue, "_REMEMBERED", 2)
    queue = SlotQueue(1, max_waiting=1)
    for client in ("a", "b", "c", "b"):
        assert queue.acquire(0, client)
        queue.release(client)
    assert list(queue._turns) == ["c", "b"]


def test_a_reserved_slot_is_for_clients_that_hold_none() -> None:
    queue = SlotQueue(3, max_waiting=0, reserved=1)
    assert [queue.acquire(0, "a") for _ in range(3)] == [True, True, False]
    assert (queue.has_free("a"), queue.has_free("b")) == (False, True)
    assert [queue.acquire(0, "b") for _ in range(2)] == [True, False]
    queue.release("a")
    assert [queue.acquire(0, "b"), queue.acquire(0, "a")] == [True, False]


def test_who_does_not_wait_takes_nobodys_place() -> None:
    queue = SlotQueue(1, max_waiting=2)
    assert queue.acquire(0, "a")
    line = Line(queue)
    for length in (1, 2):
        line.join("a", length)
    assert not queue.acquire(0, "b")
    assert queue.waiting == 2
    queue.release("a")
    line.end()
