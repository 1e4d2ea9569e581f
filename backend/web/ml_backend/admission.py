"""Limit how many requests for predictions are worked on at once, and the tasks of each.

Other clients are told to ask again later (429). Label Studio never asks again because of a status;
it gets an empty entry for each task that there is no room for, and asks for those tasks again when
somebody retrieves predictions the next time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from backend.errors import Busy
from backend.label_studio.requests import PredictRequest
from backend.prediction.task_runner import Entry
from backend.settings import Settings

log = logging.getLogger(__name__)

#: The start of ``User-Agent`` in the requests that Label Studio sends to ML backends.
LABEL_STUDIO_AGENT = "heartex/"

_NO_SLOT = "All threads for predictions are taken: try again in a moment."


class Admission:
    """Admit requests for predictions.

    Args:
        predict: predicts one entry a task; may raise `Busy`.
        at_once: requests that may be worked on at once.
        max_tasks: most tasks of one request.

    >>> admission = Admission(lambda asked: [{"result": []} for _ in asked.tasks], 2, max_tasks=1)
    >>> from backend.label_studio.requests import Task
    >>> asked = PredictRequest((Task(1, 7, {}), Task(2, 7, {})), "<View/>")
    >>> admission.predict(lambda: asked, by_label_studio=True)
    [{'result': []}, []]
    """

    def __init__(
        self, predict: Callable[[PredictRequest], list[Entry]], at_once: int, max_tasks: int
    ) -> None:
        self._predict = predict
        self._slots = threading.BoundedSemaphore(at_once)
        self._max_tasks = max_tasks

    @classmethod
    def from_settings(
        cls, settings: Settings, predict: Callable[[PredictRequest], list[Entry]]
    ) -> Admission:
        """Make an admission that leaves a part of the threads to ``/health`` and ``/setup``."""
        reserved = max(2, settings.threads // 4)
        return cls(predict, settings.threads - reserved, settings.max_tasks)

    def predict(self, read: Callable[[], PredictRequest], by_label_studio: bool) -> list[Entry]:
        """Predict the tasks of a request.

        Args:
            read: reads the request, which may be large; not called where a client other than Label
                Studio is refused.
            by_label_studio: whether Label Studio asks. Unless an annotator waits, the entry of a
                task that there is no room for is ``[]`` then.

        Returns:
            One entry a task, in their order.

        Raises:
            Busy: there is no room for the request.
            BackendError: from `read`, or from the function that predicts.
        """
        has_slot = self._slots.acquire(blocking=False)
        try:
            if not has_slot and not by_label_studio:
                raise Busy(_NO_SLOT)
            request = read()
            if by_label_studio and request.context is None:
                return self._predict_some(request, has_slot)
            return self._predict_all(request, has_slot)
        finally:
            if has_slot:
                self._slots.release()

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
            return [[] for _ in range(count)]
        if rest:
            log.warning("%d tasks above MAX_TASKS are left for the next time", rest)
        return entries + [[] for _ in range(rest)]
