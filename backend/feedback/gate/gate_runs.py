"""Do what pages ask of acceptance gates, one after the other, and keep what became of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from backend.errors import BackendError, BadRequest, Busy
from backend.feedback.gate.gate_keeper import VIEW_TITLES, Acceptance, GateKeeper

log = logging.getLogger(__name__)

#: Find the tasks that pass, make views of them, turn them into annotations, delete these again.
GateAction = Literal["find", "show", "accept", "withdraw"]
ACTIONS: Final[tuple[GateAction, ...]] = get_args(GateAction)

RunState = Literal["queued", "running", "done", "failed"]

#: Runs that may wait.
_MAX_WAITING: Final = 20

#: Runs that are kept, of one project each.
MAX_KEPT: Final = 100

#: Refusals that are told of a run.
_TOLD: Final = 5


@dataclass(frozen=True)
class GateRun:
    """What a page asked for last in a project.

    Attributes:
        project: its id.
        version: the model version.
        action: what was asked for.
        created: when, in seconds since the epoch.
        state: what it is doing.
        done: tasks that are done.
        said: what became of it, in a sentence; why it failed.
    """

    project: int
    version: str
    action: GateAction
    created: float
    state: RunState = "queued"
    done: int = 0
    said: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ("done", "failed")

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
        self._lock = threading.Lock()
        self._runs: dict[int, GateRun] = {}

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
        with self._lock:
            open_ = [each.project for each in self._runs.values() if not each.is_over]
            if project in open_ or len(open_) >= _MAX_WAITING:
                raise Busy("The gate is at work already: try again in a minute.")
            self._runs.pop(project, None)  # the newest stands last
            run = GateRun(project, version, action, time.time())
            self._runs[project] = run
            over = [each.project for each in self._runs.values() if each.is_over]
            for each in over[: max(0, len(self._runs) - MAX_KEPT)]:
                del self._runs[each]
            return run

    def last(self, project: int) -> GateRun | None:
        """Return the last run of a project; None where nothing was asked for."""
        with self._lock:
            return self._runs.get(project)

    def run_next(self) -> bool:
        """Do what was asked for first; return whether there was anything."""
        with self._lock:
            run = next((each for each in self._runs.values() if each.state == "queued"), None)
        if run is None or self._keeper is None:
            return False
        self._change(run, state="running")
        try:
            said = self._do(self._keeper, run)
        except BackendError as error:
            self._change(run, state="failed", said=str(error))
        except Exception as error:
            log.exception("The acceptance gate of project %d has failed", run.project)
            said = f"Unexpected {type(error).__name__}: see the backend's log."
            self._change(run, state="failed", said=said)
        else:
            self._change(run, state="done", said=said)
        return True

    def _do(self, keeper: GateKeeper, run: GateRun) -> str:
        def advance(done: int) -> bool:
            self._change(run, done=done)
            return not self._is_stopping()

        asked = (run.project, run.version)
        if run.action == "find":
            tasks = keeper.find(*asked, advance).tasks
            return f"{tasks['listed']} tasks pass and {tasks['audit']} more are to be audited."
        if run.action == "show":
            for which in ("listed", "audit"):
                keeper.show(run.project, which, run.version)
            return f"Views of the data manager: {VIEW_TITLES['listed']}, {VIEW_TITLES['audit']}."
        if run.action == "accept":
            return describe("turned into annotations", keeper.accept(*asked, advance))
        return describe("without the gate's annotation again", keeper.withdraw(*asked, advance))

    def _change(self, run: GateRun, **values: object) -> None:
        with self._lock:
            now = self._runs[run.project]
            self._runs[run.project] = replace(now, **values)  # type: ignore[arg-type]


def describe(what: str, made: Acceptance) -> str:
    """Say what became of tasks.

    >>> describe("turned into annotations", Acceptance(3, 1, {9: "no label"}))
    '3 tasks turned into annotations, 1 left as they are. Refused: task 9: no label'
    """
    said = f"{made.done} tasks {what}, {made.left} left as they are."
    if made.refused:
        refused = [*made.refused.items()]
        said += " Refused: " + "; ".join(f"task {task}: {why}" for task, why in refused[:_TOLD])
        more = len(refused) - _TOLD
        said += f"; and {more} more" if more > 0 else ""
    return said
