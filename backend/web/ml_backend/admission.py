"""How many predictions are worked on at once, and how many tasks one may ask for.

Whoever asks for more is told to come again later. But Label Studio never asks again because of a
status: for it, what there is no room for has an empty entry, which it asks for again when somebody
retrieves predictions the next time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from backend.errors import Busy
from backend.label_studio.requests import PredictRequest
from backend.prediction.task_runner import Entry

log = logging.getLogger(__name__)

#: How Label Studio's requests to ML backends begin their ``User-Agent``.
LABEL_STUDIO_AGENT = "heartex/"


class Admission:
    """Lets some predictions in.

    Args:
        predict: one entry a task; may raise `Busy`.
        at_once: requests that may be worked on at the same time.
        max_tasks: most tasks of one request.

    >>> admission = Admission(lambda asked: [{"result": []} for _ in asked.tasks], 2, max_tasks=1)
    >>> from backend.label_studio.requests import Task
    >>> asked = PredictRequest((Task(1, 7, {}), Task(2, 7, {})), "<View/>")
    >>> admission.predict(lambda: asked, by_studio=True)
    [{'result': []}, []]
    """

    def __init__(
        self, predict: Callable[[PredictRequest], list[Entry]], at_once: int, max_tasks: int
    ) -> None:
        self._predict = predict
        self._slots = threading.BoundedSemaphore(at_once)
        self._max_tasks = max_tasks

    def predict(self, read: Callable[[], PredictRequest], by_studio: bool) -> list[Entry]:
        """One entry a task, in their order.

        Args:
            read: reads the request, which may be large; not called where there is no room for it.
            by_studio: whether Label Studio asks: unless an annotator waits, what there is no room
                for has the entry ``[]`` then.

        Raises:
            Busy: there is no room for all of it.
            BackendError: see `read` and `predict`.
        """
        has_room = self._slots.acquire(blocking=False)
        try:
            if not has_room and not by_studio:
                raise Busy("All threads for predictions are taken: try again in a moment.")
            request = read()
            if by_studio and request.context is None:
                return self._some(request, has_room)
            return self._all(request, has_room)
        finally:
            if has_room:
                self._slots.release()

    def _all(self, request: PredictRequest, has_room: bool) -> list[Entry]:
        count = len(request.tasks)
        if not has_room:
            raise Busy("All threads for predictions are taken: try again in a moment.")
        if count > self._max_tasks:
            raise Busy(
                f"The request has {count} tasks, more than MAX_TASKS ({self._max_tasks}): ask for "
                "fewer at a time."
            )
        return self._predict(request)

    def _some(self, request: PredictRequest, has_room: bool) -> list[Entry]:
        kept = replace(request, tasks=request.tasks[: self._max_tasks])
        left = request.tasks[self._max_tasks :]
        try:
            entries = self._all(kept, has_room)
        except Busy as error:
            log.warning("%d tasks are left for the next time: %s", len(request.tasks), error)
            return [[] for _ in request.tasks]
        if left:
            log.warning("%d tasks above MAX_TASKS are left for the next time", len(left))
        return entries + [[] for _ in left]
