"""Do what pages ask of acceptance gates, one after the other, and keep what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from backend.errors import BackendError, BadRequest, Busy
from backend.feedback.gate.gate_keeper import VIEW_TITLES, Acceptance, GateKeeper
from backend.run_queue import Run, RunQueue
from clearclip_core.quantities import quantity

#: Find the tasks that pass, make views of them, turn them into annotations, delete these again.
GateAction = Literal["find", "show", "accept", "withdraw"]
ACTIONS: Final[tuple[GateAction, ...]] = get_args(GateAction)

#: Runs that may wait.
_MAX_WAITING: Final = 20

#: Runs that are kept, of one project each.
MAX_KEPT: Final = 100

#: Refusals that are told of a run.
_TOLD: Final = 5


@dataclass(frozen=True)
class GateRun(Run):
    """What a page asked for last in a project.

    Attributes:
        project: its id.
        version: the model version.
        action: what was asked for.
        created: when, in seconds since the epoch.
        result: what became of it, in a sentence.
    """

    project: int
    version: str
    action: GateAction
    created: float
    result: str = ""

    @property
    def said(self) -> str:
        """What became of it, in a sentence; why it failed."""
        return self.reason or self.result

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON."""
        return {
            "project": self.project,
            "version": self.version,
            "action": self.action,
            "created": self.created,
            "state": self.state,
            "done": self.done,
            "said": self.said,
        }


class GateRuns:
    """The last runs of projects, in this process; one thread calls `run_next`.

    Args:
        keeper: does what is asked for; None without a token for Label Studio.
        is_stopping: whether a run is to end soon; what it has not done is left for the next one.
    """

    def __init__(self, keeper: GateKeeper | None, is_stopping: Callable[[], bool]) -> None:
        self._keeper = keeper
        self._is_stopping = is_stopping
        self._queue = RunQueue[GateRun](
            lambda run: run.project, "A run of an acceptance gate", (BackendError,)
        )

    def request(self, project: int, version: str, action: GateAction) -> GateRun:
        """Ask for something.

        Raises:
            BadRequest: there is no token for Label Studio.
            Busy: the last run of the project is not over, or too many wait.
        """
        if self._keeper is None:
            raise BadRequest(
                "Tasks are read from Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."
            )

        def make(open_: list[GateRun]) -> GateRun:
            if len(open_) >= _MAX_WAITING or any(each.project == project for each in open_):
                raise Busy("The gate is at work already: try again in a minute.")
            return GateRun(project, version, action, time.time())

        return self._queue.request(make, MAX_KEPT)

    def last(self, project: int) -> GateRun | None:
        """Return the last run of a project; None where nothing was asked for."""
        return self._queue.get(project)

    def run_next(self) -> bool:
        """Do what was asked for first; return whether there was anything."""
        keeper = self._keeper
        if keeper is None:
            return False
        return self._queue.run_next(lambda run: {"result": self._do(keeper, run)})

    def _do(self, keeper: GateKeeper, run: GateRun) -> str:
        def advance(done: int) -> bool:
            self._queue.change(run, done=done)
            return not self._is_stopping()

        asked = (run.project, run.version)
        if run.action == "find":
            tasks = keeper.find(*asked, advance).tasks
            passed = quantity(tasks["listed"], "task")
            return f"Passed: {passed}. To be audited: {tasks['audit']} more."
        if run.action == "show":
            for which in ("listed", "audit"):
                keeper.show(run.project, which, run.version)
            return f"Views of the data manager: {VIEW_TITLES['listed']}, {VIEW_TITLES['audit']}."
        if run.action == "accept":
            return describe("annotated by the gate", keeper.accept(*asked, advance))
        return describe("without the gate's annotation again", keeper.withdraw(*asked, advance))


def describe(what: str, made: Acceptance) -> str:
    """Say what became of tasks.

    >>> describe("annotated by the gate", Acceptance(3, 1, {9: "no label"}))
    '3 tasks annotated by the gate, 1 left unchanged. Refused: task 9: no label'
    """
    said = f"{quantity(made.done, 'task')} {what}, {made.left} left unchanged."
    if made.refused:
        refused = [*made.refused.items()]
        said += " Refused: " + "; ".join(f"task {task}: {why}" for task, why in refused[:_TOLD])
        more = len(refused) - _TOLD
        said += f"; and {more} more" if more > 0 else ""
    return said
