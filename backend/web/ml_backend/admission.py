"""Limit how many requests for predictions are worked on at once, and the tasks of each.

Requests of Label Studio wait in line for their turn: what an annotator waits for, an opened task or
a prompt, in one line, and batches in another, so that neither keeps the other out. Clients share
both lines by their addresses: however many requests one of them sends, those of another have their
place. Which picture the model takes next is not decided here. Other clients are told to ask again
later (429). Label Studio never asks again because of a status; it gets an empty entry for each task
of a batch that there is no room for, and asks for those tasks again when somebody retrieves
predictions the next time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from backend.errors import Busy
from backend.inference.image_request import Priority
from backend.label_studio.requests import PredictRequest
from backend.prediction.batches import Entry
from backend.prediction.predictor import priority
from backend.settings import Settings
from backend.web.ml_backend.slot_queue import MAX_WAITING, MAX_WAITING_BATCHES, SlotQueue

log = logging.getLogger(__name__)

#: The start of ``User-Agent`` in the requests that Label Studio sends to ML backends.
LABEL_STUDIO_AGENT = "heartex/"

#: Bodies that are parsed at once, those that take seconds apart from the others. Threads take turns
#: with one interpreter: more of them are no faster, but keep those of ``/setup`` from their turn.
_READERS: Final = 4
_READERS_OF_LARGE: Final = 2
#: Bytes of a body from which on it is a large one.
_LARGE: Final = 8 << 20

#: More than the threads that there are: whoever has one may wait for its turn to read.
_EACH_THREAD: Final = 1 << 16

_NO_SLOT = "All threads for predictions are taken: try again in a moment."


@dataclass(frozen=True)
class Asker:
    """Who asks for predictions.

    Attributes:
        client: its address or network, see `backend.network.client_address`. Behind a proxy that
            is not trusted, all have one.
        is_label_studio: whether it is Label Studio.
        body_bytes: size of the body of its request.
        is_gone: tells whether it has closed its connection, so that nobody reads an answer.
    """

    client: str = ""
    is_label_studio: bool = False
    body_bytes: int = 0
    is_gone: Callable[[], bool] = lambda: False


class Admission:
    """Admit requests for predictions.

    Args:
        predict: predicts one entry a task; may raise `Busy`.
        at_once: requests of annotators that may be worked on at once, 2 or more; half as many
            batches beside them.
        max_tasks: most tasks of one request.
        deadline_s: the longest time in line, in seconds.

    >>> admission = Admission(lambda asked: [{"result": []} for _ in asked.tasks], 2, 1, 80)
    >>> from backend.label_studio.requests import Task
    >>> asked = PredictRequest((Task(1, 7, {}), Task(2, 7, {})), "<View/>")
    >>> admission.predict(lambda: asked, Asker(is_label_studio=True))
    [{'result': []}, []]
    """

    def __init__(
        self,
        predict: Callable[[PredictRequest], list[Entry]],
        at_once: int,
        max_tasks: int,
        deadline_s: float,
    ) -> None:
        self._predict = predict
        self._annotators = SlotQueue(at_once, MAX_WAITING)
        batches = at_once // 2  # a batch may hold its slot until the deadline
        self._batches = SlotQueue(batches, MAX_WAITING_BATCHES, reserved=int(batches > 2))
        self._reading = threading.Semaphore(at_once)
        self._readers = SlotQueue(_READERS, _EACH_THREAD)
        self._readers_of_large = SlotQueue(_READERS_OF_LARGE, _EACH_THREAD)
        self._max_tasks = max_tasks
        self._deadline_s = deadline_s

    @classmethod
    def from_settings(
        cls, settings: Settings, predict: Callable[[PredictRequest], list[Entry]]
    ) -> Admission:
        """Make an admission that leaves a part of the threads to ``/health`` and ``/setup``."""
        at_once = settings.threads - max(2, settings.threads // 4)
        return cls(predict, at_once, settings.max_tasks, settings.predict_deadline_s)

    @property
    def waiting(self) -> int:
        """How many requests of annotators wait in line."""
        return self._annotators.waiting

    @property
    def waiting_batches(self) -> int:
        """How many batches wait in line."""
        return self._batches.waiting

    def predict(self, read: Callable[[], PredictRequest], asker: Asker) -> list[Entry]:
        """Predict the tasks of a request.

        Args:
            read: reads the request, which may be large. For clients other than Label Studio it is
                not called where no slot is free, and no more than `at_once` are held at once.
            asker: who asks. A request of Label Studio waits in line, and the entry of a task that
                there is no room for is ``[]``.

        Returns:
            One entry a task, in their order.

        Raises:
            Busy: there is no room for the request.
            BackendError: from `read`, or from the function that predicts.
        """
        came = time.monotonic()
        request = self._read(read, asker)
        slots = self._batches if priority(request) is Priority.BATCH else self._annotators
        longest_s = max(0.0, came + self._deadline_s - time.monotonic())
        longest_s = longest_s if asker.is_label_studio else 0.0
        has_slot = slots.acquire(longest_s, asker.client, asker.is_gone)
        try:
            waited_s = time.monotonic() - came
            request = replace(request, waited_s=waited_s, is_gone=asker.is_gone)
            if asker.is_label_studio and request.context is None:
                return self._predict_some(request, has_slot)
            return self._predict_all(request, has_slot)
        finally:
            if has_slot:
                slots.release(asker.client)

    def _read(self, read: Callable[[], PredictRequest], asker: Asker) -> PredictRequest:
        """Read a request when it is its turn; not those of others that there is no room for."""
        if asker.is_label_studio:
            return self._read_in_turn(read, asker)
        has_free = any(each.has_free(asker.client) for each in (self._annotators, self._batches))
        if not has_free or not self._reading.acquire(blocking=False):
            raise Busy(_NO_SLOT)
        try:
            return self._read_in_turn(read, asker)
        finally:
            self._reading.release()

    def _read_in_turn(self, read: Callable[[], PredictRequest], asker: Asker) -> PredictRequest:
        readers = self._readers_of_large if asker.body_bytes >= _LARGE else self._readers
        if not readers.acquire(self._deadline_s, asker.client, asker.is_gone):
            raise Busy(_NO_SLOT)
        try:
            return read()
        finally:
            readers.release(asker.client)

    def _predict_all(self, request: PredictRequest, has_slot: bool) -> list[Entry]:
        count = len(request.tasks) + request.tasks_left_out
        if not has_slot:
            raise Busy(_NO_SLOT)
        if count > self._max_tasks:
            raise Busy(
                f"The request has {count} tasks, more than MAX_TASKS ({self._max_tasks}): ask for "
                "fewer at a time."
            )
        return self._predict(request)

    def _predict_some(self, request: PredictRequest, has_slot: bool) -> list[Entry]:
        """Predict as many of the first tasks as there is room for."""
        first = replace(request, tasks=request.tasks[: self._max_tasks], tasks_left_out=0)
        rest = len(request.tasks) - len(first.tasks) + request.tasks_left_out
        try:
            entries = self._predict_all(first, has_slot)
        except Busy as error:
            count = len(first.tasks) + rest
            log.warning("%d tasks are left for the next time: %s", count, error)
            return [[]] * count  # one list: making hundreds of thousands stops all threads
        if rest:
            log.warning("%d tasks above MAX_TASKS are left for the next time", rest)
        return entries + [[]] * rest
