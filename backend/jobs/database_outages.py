"""Wait until the database is back: for a time, however often it goes away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy.exc import OperationalError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
)

from backend.database.database import error_message

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: How long one outage is waited for, and the longest pause between two tries, in seconds.
_OUTAGE_S: Final = 3600.0
_PAUSE_S: Final = 20.0


class DatabaseOutages:
    """Repeats work that ends where the database is away, and that can go on from where it was.

    An outage lasts from a failure to the next word of the work that the database has answered. So
    a run of days outlives any number of them, and ends where one is too long.

    Args:
        stopping: once it is set, nothing is repeated.
        clock: the time in seconds.
    """

    def __init__(
        self, stopping: threading.Event, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stopping = stopping
        self._clock = clock
        self._since: float | None = None
        self._tries = 0

    def end(self) -> None:
        """End the outage, if there is one: the database has answered."""
        self._since, self._tries = None, 0

    def outlive(self, work: Callable[[], _T]) -> _T:
        """Call `work` until it returns, or fails for good."""
        tries = Retrying(
            retry=retry_if_exception_type(OperationalError),
            after=self._note,
            wait=self._pause_s,
            stop=self._is_to_end,
            sleep=sleep_using_event(self._stopping),
            before_sleep=_log_retry,
            reraise=True,
        )
        return tries(work)

    def _note(self, _: RetryCallState) -> None:
        if self._since is None:
            self._since = self._clock()
        self._tries += 1

    def _pause_s(self, _: RetryCallState) -> float:
        """Return the pause before the next try, in seconds: twice as long each time."""
        return float(min(_PAUSE_S, 2.0 ** (self._tries - 1)))

    def _is_to_end(self, _: RetryCallState) -> bool:
        is_too_long = self._since is not None and self._clock() - self._since >= _OUTAGE_S
        return is_too_long or self._stopping.is_set()


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    message = error_message(error) if error else ""
    log.warning("%s; the job goes on in %.0f s", message, state.upcoming_sleep)
