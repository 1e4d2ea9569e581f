"""Work on tasks that waits or fails, for tests of task runners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome

VERSION = "v1"


class HeldWork:
    """Makes predictions; those of the held tasks wait until `release`."""

    def __init__(self, *held: int) -> None:
        self.made: list[Any] = []
        self.held = {task: threading.Event() for task in held}
        self.started = {task: threading.Event() for task in held}

    def __call__(self, task: Task) -> Outcome:
        if task.id in self.held:
            self.started[task.id].set()  # type: ignore[index]
            assert self.held[task.id].wait(30)  # type: ignore[index]
        self.made.append(task.id)
        return Outcome({"model_version": VERSION, "score": 0.5, "result": [task.id]})

    def release(self) -> None:
        for event in self.held.values():
            event.set()


class GoneModel:
    """Fails with an error that is no fault of one task."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __call__(self, task: Task) -> Outcome:
        self.asked.append(task.id)
        raise ConnectionError("the model is gone")


def tasks(*ids: int) -> list[Task]:
    return [Task(i, 7, {"image": f"{i}.png"}) for i in ids]


def made_of(outcomes: list[Outcome]) -> list[Any]:
    """The task that each entry is of; None where there is none."""
    return [o.entry["result"][0] if isinstance(o.entry, dict) else None for o in outcomes]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
