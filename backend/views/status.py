"""What the dashboard says of the model, and of the tasks that it works on."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from msgspec import Struct

from backend.views.text import Colour, Pill

_URGENCIES: Final = {"interactive": "a click", "opened": "an opened task", "batch": "a batch"}

_STAGES: Final = {
    "": "starting",
    "load": "waiting for the model to load",
    "fetch": "fetching the picture",
    "prepare": "resizing the picture",
    "wait": "waiting for the model",
    "model": "in the model",
    "regions": "proposing regions",
    "decide": "choosing the labels",
    "draw": "drawing the regions",
}

#: State of the model -> what is said of it, in which colour, and before the title of the page.
_STATES: Final[dict[str, tuple[str, Colour, str]]] = {
    "ready": ("Ready", "good", ""),
    "loading": ("Loading the model", "wait", "Loading – "),
    "failed": ("The model could not be loaded", "bad", "Failed – "),
}


class ModelStatus(Struct, frozen=True, kw_only=True):
    """The model that predicts."""

    name: str
    clicks: str  # what answers clicks and boxes, where that is another one
    method: str
    device: str | None
    precision: str | None
    state: str
    reason: str  # why it could not be loaded

    @property
    def pill(self) -> Pill:
        text, colour, _ = _STATES[self.state]
        return Pill(text, colour)

    @property
    def title(self) -> str:
        """The title of the page, which begins with what is wrong."""
        _, _, before = _STATES[self.state]
        return f"{before}ClearCLIP for Label Studio"

    @property
    def details(self) -> list[str]:
        """How it predicts and on what, and what answers clicks in its place."""
        where = f" on {self.device}, {self.precision}" if self.device else ""
        works = f"{self.method}{where}"
        return [works, self.clicks] if self.clicks else [works]


class RunningTask(Struct, frozen=True, kw_only=True):
    """A task that is being worked on."""

    task: int | str | None
    project: int | None
    urgency: str
    seconds: float
    stage: str
    url: str | None

    @property
    def name(self) -> str:
        return "No task number" if self.task is None else f"Task {self.task}"

    @property
    def purpose(self) -> str:
        """Who waits for it."""
        return purpose(self.urgency)

    @property
    def doing(self) -> str:
        """What is done with it now."""
        return _STAGES.get(self.stage, self.stage)


class WaitingTasks(Struct, frozen=True, kw_only=True):
    """How many tasks of a project wait."""

    urgency: str
    project: Hashable  # its number; None where a request does not tell it
    count: int

    @property
    def purpose(self) -> str:
        """Who waits for them."""
        return purpose(self.urgency)


def purpose(urgency: str) -> str:
    """Say what predictions are for, by the word of their priority.

    >>> purpose("opened")
    'an opened task'
    """
    return _URGENCIES.get(urgency, urgency)
