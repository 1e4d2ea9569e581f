"""Runs that pages ask for: done one after the other, in this process; the last ones are kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy.exc import OperationalError

from backend.database.causes import advise
from backend.database.database import error_message
from backend.errors import BackendError

log = logging.getLogger(__name__)

RunState = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Run:
    """Something that was asked for, and what became of it.

    Attributes:
        state: what it is doing.
        done: tasks or pictures that are done.
        reason: why it failed.
    """

    state: RunState = field(default="queued", kw_only=True)
    done: int = field(default=0, kw_only=True)
    reason: str = field(default="", kw_only=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in ("done", "failed", "cancelled")


AnyRun = TypeVar("AnyRun", bound=Run)


class RunQueue(Generic[AnyRun]):
    """The runs of one kind. Safe to share between threads; one thread calls `run_next`.

    Args:
        key_of: returns the key of a run; a new one takes the place of an older one of its key.
        what: what a run is, for the log: it begins a sentence.
        told: errors whose own words say why a run failed; all others are logged.
    """

    def __init__(
        self,
        key_of: Callable[[AnyRun], Hashable],
        what: str,
        told: tuple[type[Exception], ...] = (BackendError, ValueError),
    ) -> None:
        self._key_of = key_of
        self._what = what
        self._told = told
        self._lock = threading.Lock()
        self._runs: dict[Hashable, AnyRun] = {}  # the newest stands last

    def request(self, make: Callable[[list[AnyRun]], AnyRun], max_kept: int) -> AnyRun:
        """Add a run behind the others.

        Args:
            make: is given the runs that are not over. It returns a new one, or one of them, which
                is left where it is, or raises what its caller is to see.
            max_kept: how many are kept; the oldest that are over are forgotten.
        """
        with self._lock:
            open_ = [each for each in self._runs.values() if not each.is_over]
            run = make(open_)
            if any(run is each for each in open_):
                return run
            self._runs.pop(self._key_of(run), None)
            self._runs[self._key_of(run)] = run
            over = [key for key, each in self._runs.items() if each.is_over]
            for oldest in over[: max(0, len(self._runs) - max_kept)]:
                del self._runs[oldest]
            return run

    def get(self, key: Hashable) -> AnyRun | None:
        """Return the run of a key; None where there is none, or none any more."""
        with self._lock:
            return self._runs.get(key)

    def runs(self) -> list[AnyRun]:
        """Return all runs, the newest last."""
        with self._lock:
            return list(self._runs.values())

    def change(self, run: AnyRun, **values: Any) -> None:
        """Change fields of a run."""
        with self._lock:
            key = self._key_of(run)
            self._runs[key] = replace(self._runs[key], **values)

    def run_next(self, do: Callable[[AnyRun], Mapping[str, Any]]) -> bool:
        """Do the run that was asked for first; return whether there was one.

        Args:
            do: does it, and returns the fields that it has then; its state is "done" where they
                name none.
        """
        with self._lock:
            run = next((each for each in self._runs.values() if each.state == "queued"), None)
        if run is None:
            return False
        self.change(run, state="running")
        try:
            values = do(run)
        except self._told as error:
            self.change(run, state="failed", reason=str(error))
        except OperationalError as error:
            log.warning("%s has failed: %s", self._what, error_message(error))
            reason = advise(error, "start it again")
            self.change(run, state="failed", reason=reason)
        except Exception as error:
            log.exception("%s has failed", self._what)
            reason = f"Unexpected {type(error).__name__}: see the backend's log."
            self.change(run, state="failed", reason=reason)
        else:
            self.change(run, **{"state": "done", **values})
        return True
