"""Repeat calls of Label Studio's API while it is down or busy."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import httpx
from label_studio_sdk.core.api_error import ApiError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential_jitter,
)

from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.answers import ForeignAnswerError

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE_S: Final = 30.0
_TRANSIENT_STATUSES: Final = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_SENTENCE: Final = 400  # letters


class Retrier:
    """Repeats failed calls with growing pauses, and turns the last failure into a `BackendError`.

    Args:
        url: address of Label Studio, for log lines and errors.
        retry_for_s: how long a call is repeated, in seconds.
        first_pause_s: pause before the second try, in seconds. Each later pause is about twice as
            long as the one before, and at most 30 s.
        stopping: once it is set, no call is repeated.
        clean: cuts known secrets out of a text; errors pass through it before they are shortened.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_for_s: float,
        first_pause_s: float,
        stopping: threading.Event,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._url = url
        self._clean = clean
        self._retry_for_s = retry_for_s
        self._first_pause_s = first_pause_s
        self._stopping = stopping

    def call(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it returns, fails for good, or the time for retries is over.

        Raises:
            StudioRefused: Label Studio refuses the call: repeated, it would fail again.
            StudioUnreachable: Label Studio does not answer, or not as an API does.
        """
        try:
            return self._tries()(attempt)
        except ApiError as error:
            if is_transient(error):
                raise self._unreachable(f"answers HTTP {error.status_code}") from None
            said = describe(self._url, error, self._clean)
            raise StudioRefused(said, error.status_code or 0) from None
        except ForeignAnswerError as error:
            raise self._unreachable(str(error)) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._unreachable(f"cannot be reached ({type(error).__name__})") from None
        except json.JSONDecodeError:
            raise self._unreachable("answers what is no JSON") from None

    def _tries(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_exponential_jitter(
                self._first_pause_s, max=_LONGEST_PAUSE_S, jitter=self._first_pause_s
            ),
            stop=stop_any(stop_after_delay(self._retry_for_s), stop_when_event_set(self._stopping)),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._log_failure,
            reraise=True,
        )

    def _unreachable(self, reason: str) -> StudioUnreachable:
        return StudioUnreachable(f"Label Studio at {self._url} {reason}.")

    def _log_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        name = type(error).__name__
        reason = f"HTTP {error.status_code}" if isinstance(error, ApiError) else name
        if isinstance(error, ForeignAnswerError):
            reason = str(error)
        pause_s = state.next_action.sleep if state.next_action else 0
        log.warning("Label Studio at %s: %s; next try in %.1f s", self._url, reason, pause_s)


def is_transient(error: BaseException) -> bool:
    """Return whether the call that failed with this error may succeed later.

    >>> is_transient(ApiError(status_code=503)), is_transient(ApiError(status_code=404))
    (True, False)
    """
    if isinstance(error, ApiError):
        return error.status_code in _TRANSIENT_STATUSES
    # A proxy may answer in HTML where the SDK renews a token and expects JSON.
    return isinstance(
        error,
        httpx.TransportError | httpx.DecodingError | json.JSONDecodeError | ForeignAnswerError,
    )


def describe(url: str, error: ApiError, clean: Callable[[str], str] = str) -> str:
    """Describe a refusal in one sentence of at most 400 letters, with Label Studio's own reason.

    A longer one is cut off between words, after known secrets are cut out: a password may have
    several words. What shows or logs it cuts out what looks like a secret, and would not know the
    half of one.

    Args:
        url: address of Label Studio.
        error: the refusal.
        clean: cuts known secrets out of a text.

    >>> describe("http://studio:8080", ApiError(status_code=401))
    'Label Studio at http://studio:8080 answers HTTP 401: check LABEL_STUDIO_API_KEY'
    """
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("validation_errors") or body.get("detail") or ""
    if error.status_code in (401, 403):
        detail = "check LABEL_STUDIO_API_KEY"
    elif error.status_code == 404:
        detail = "there is no such project, view or task for this token"
    elif error.status_code == 413:
        detail = "larger than it takes, or a proxy before it (nginx: client_max_body_size)"
    sentence = clean(f"Label Studio at {url} answers HTTP {error.status_code}: {detail}")
    if len(sentence) <= _LONGEST_SENTENCE:
        return sentence
    return f"{sentence[: _LONGEST_SENTENCE - 1].rpartition(' ')[0]} …"
