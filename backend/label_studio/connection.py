"""Call Label Studio's API: each answer within bounds of size and time, checked, and tried again."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import requests
from msgspec.json import Decoder
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential_jitter,
)

from backend.errors import AnswerTooLarge, StudioBusy, StudioRefused, StudioUnreachable
from backend.label_studio.records import decode_time
from backend.label_studio.requests import decode_json
from backend.label_studio.tokens import (
    CANNOT_REACH,
    EXCHANGE_PATH,
    Access,
    AccessToken,
    TokenRefusedError,
)
from backend.network.http import TimeLimit, open_session, read_body, send

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Longest wait of a page for Label Studio, all its calls together, in seconds.
PAGE_WAIT_S: Final = 10.0

#: Longest wait for an answer, in seconds, while others wait in a queue: it takes many masks.
QUEUE_WAIT_S: Final = 60.0

#: Largest answer: a page of 100 tasks, or all annotations or predictions of a task.
_MOST_BYTES: Final = 256 << 20

_LONGEST_PAUSE_S: Final = 30.0
_TRANSIENT_STATUSES: Final = (408, 425, 429, 500, 502, 503, 504)

#: Of these, those that a server sends which is there and has too much to do.
_BUSY_STATUSES: Final = (408, 425, 429, 503, 504)

_LONGEST_SENTENCE: Final = 400  # letters

#: Refusals that a proxy may send as a page for people. What they mean does not depend on the body.
_UNCHECKED_REFUSALS: Final = (401, 403, 408, 413, 425, 429)

_IS_A_PAGE: Final = (
    "it may be a login or maintenance page, or LABEL_STUDIO_URL is not the address at which Label "
    "Studio answers itself"
)
_NO_JSON: Final = f"without JSON: {_IS_A_PAGE}"


class NoAnswerError(Exception):
    """Label Studio's API does not answer; the message goes on after "Label Studio at URL"."""

    def __init__(self, message: str, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_busy = is_busy  # whether it is there, and takes too long


class RefusalError(Exception):
    """Label Studio refuses a call."""

    def __init__(self, status: int, body: Any = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body: dict[str, Any] = body if isinstance(body, dict) else {}  # of the answer


@dataclass
class _PageWait:
    """The time that a page may wait for Label Studio, until `end` on the monotonic clock."""

    end: float
    is_over: bool = False
    has_connected: bool = False  # whether one of its calls has reached Label Studio

    @property
    def notice(self) -> str:
        """What people read on a page that has waited in vain; empty on another."""
        if not self.is_over:
            return ""
        why = "it is busy" if self.has_connected else "it cannot be reached"
        return (
            f"Label Studio has not answered within {PAGE_WAIT_S:g} s: {why}. What this page says "
            "of it may be missing or old. The page asks again by itself."
        )


_page_wait: ContextVar[_PageWait | None] = ContextVar("page_wait", default=None)


def begin_page() -> None:
    """Let all calls of this thread, until the page ends, take `PAGE_WAIT_S` together."""
    _page_wait.set(_PageWait(time.monotonic() + PAGE_WAIT_S))


def end_page(_error: BaseException | None = None) -> None:
    """Let later calls of this thread take their own time again."""
    _page_wait.set(None)


def page_notice() -> str:
    """Return what is to be read on the page of this thread; empty unless it has waited in vain."""
    wait = _page_wait.get()
    return "" if wait is None else wait.notice


class Connection:
    """Calls the API of one Label Studio; repeats a call while Label Studio is down or busy.

    Each pause is about twice as long as the one before, up to 30 s. Threads may share it.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        retry_for_s: float,
        timeout_s: float,
        first_pause_s: float = 0.5,
        stopping: threading.Event | None = None,
    ) -> None:
        self.url = url
        self._access = Access(url, api_key)
        self._session = open_session(rules=None)
        self._timeout_s = timeout_s
        stopping = stopping or threading.Event()
        self._stop = stop_any(stop_after_delay(retry_for_s), stop_when_event_set(stopping))
        self._tries = Retrying(
            retry=retry_if_exception(_is_transient),
            wait=wait_exponential_jitter(first_pause_s, max=_LONGEST_PAUSE_S, jitter=first_pause_s),
            stop=self._stop,
            sleep=sleep_using_event(stopping),
            before_sleep=self._log_failure,
            reraise=True,
        )

    def call(self, method: str, path: str, kind: type[_T], body: Any = None, **query: Any) -> _T:
        """Return the answer to a call that may be sent more than once; see `send`."""
        return self.repeat(partial(self.send, method, path, kind, body, **query))

    def get(self, path: str, kind: type[_T], **query: Any) -> _T:
        """Read from the API; see `call`."""
        return self.call("GET", path, kind, **query)

    def find(
        self,
        path: str,
        kind: type[_T],
        gone: Collection[int] = (404,),
        method: str = "GET",
        most_tries: int | None = None,
        **query: Any,
    ) -> _T | None:
        """Return the answer to a call; None where Label Studio does not have what is asked for."""
        try:
            return self.repeat(partial(self.send, method, path, kind, **query), most_tries)
        except StudioRefused as error:
            if error.status not in gone:
                raise
            return None

    def repeat(self, attempt: Callable[[], _T], most_tries: int | None = None) -> _T:
        """Repeat an attempt, which may consist of several `send`, until it succeeds.

        Raises:
            AnswerTooLarge: an answer is too large to be read.
            StudioRefused: Label Studio refuses one of the calls: repeated, it would fail again.
            StudioBusy: it is there, but does not answer in time, or not in `most_tries`.
            StudioUnreachable: it is not there, or something else answers in its place.
        """
        stop = self._stop
        if most_tries is not None:
            stop = stop_any(stop, stop_after_attempt(most_tries))
        try:
            return self._tries.copy(stop=stop)(attempt)  # an attempt may repeat others
        except RefusalError as error:
            if not _is_transient(error):
                raise StudioRefused(_describe_refusal(self.url, error), error.status) from None
            reason, is_busy = f"answers HTTP {error.status}", error.status in _BUSY_STATUSES
        except NoAnswerError as error:
            reason, is_busy = str(error), error.is_busy
        kind = StudioBusy if is_busy else StudioUnreachable
        raise kind(f"Label Studio at {self.url} {reason}.")

    def send(self, method: str, path: str, kind: type[_T], body: Any = None, **query: Any) -> _T:
        """Send one call, and return its answer of that kind, without what the kind does not name.

        It follows no redirect, which would take the token along.
        """
        wait = _page_wait.get()
        seconds = self._timeout_s
        if wait is not None:
            seconds = min(seconds, wait.end - time.monotonic())
        limit = TimeLimit(max(0.0, seconds))

        content_of: dict[str, Any] = {}
        if body is not None:
            content_of["data"] = msgspec.json.encode(body)
            content_of["headers"] = {"Content-Type": "application/json"}
        address = f"{self.url.rstrip('/')}{path}"
        ask = partial(
            send, self._session, method, address, limit, stream=True, params=query, **content_of
        )

        try:
            answer, content = self._read(ask, limit, path)
        except TokenRefusedError as error:
            self._check(error.answer, error.body, EXCHANGE_PATH, AccessToken)
            raise NoAnswerError(f"exchanges a token with {error}") from None
        except CANNOT_REACH as error:
            if not limit.is_over:
                raise NoAnswerError(f"cannot be reached ({type(error).__name__})") from None
            is_busy = limit.has_connected or isinstance(error, TimeoutError)  # see `Access`
            raise self._gave_up(wait, seconds, is_busy) from None
        finally:
            if wait is not None:
                wait.has_connected |= limit.has_connected
        return self._check(answer, content, path, kind)

    def _read(
        self, ask: Callable[..., requests.Response], limit: TimeLimit, path: str
    ) -> tuple[requests.Response, bytes]:
        """Return an answer and its whole body."""
        with limit, closing(self._access.send(ask, limit)) as answer:
            content = read_body(answer, _MOST_BYTES)
        if content is None:
            more = f"sends more than {_MOST_BYTES >> 20} MB for {path}"
            raise AnswerTooLarge(f"Label Studio at {self.url} {more}.")
        if limit.is_over:
            raise OSError  # a body without a length seems whole where it was cut
        return answer, content

    def _gave_up(self, wait: _PageWait | None, seconds: float, is_busy: bool) -> NoAnswerError:
        """Return the error of a call whose time is over, and end the wait of its page."""
        if wait is not None:
            wait.is_over = True
            wait.has_connected |= is_busy
            seconds, is_busy = PAGE_WAIT_S, wait.has_connected
        if is_busy:
            return NoAnswerError(
                f"is busy: it gave no whole answer within {seconds:g} s", is_busy=True
            )
        return NoAnswerError(f"cannot be reached within {seconds:g} s")

    def _check(self, answer: requests.Response, content: bytes, path: str, kind: type[_T]) -> _T:
        """Return what an answer holds; a page, or a proxy, may answer in Label Studio's place."""
        status = answer.status_code

        if answer.is_redirect:
            raise NoAnswerError(
                f"redirects to {answer.headers['Location'].partition('?')[0][:200]}: {_IS_A_PAGE}"
            )

        if status >= 400:
            try:
                body = decode_json(content, Decoder(Any))
            except (msgspec.DecodeError, RecursionError):
                if status < 500 and status not in _UNCHECKED_REFUSALS:
                    raise NoAnswerError(f"answers HTTP {status} {_NO_JSON}") from None
                body = None
            raise RefusalError(status, body)

        if answer.request.method == "DELETE":
            if status != 204:  # of what is deleted, only HTTP 204 tells
                raise NoAnswerError(f"answers HTTP {status} where it should delete")
            return None  # type: ignore[return-value]

        try:
            return decode_json(content, Decoder(kind, dec_hook=decode_time))
        except msgspec.ValidationError as error:
            what = f"JSON that its API does not send: {str(error)[:100]}"
            raise NoAnswerError(f"answers HTTP {status} for {path} with {what}") from None
        except (msgspec.DecodeError, RecursionError):
            raise NoAnswerError(f"answers HTTP {status} {_NO_JSON}") from None

    def _log_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause_s = state.next_action.sleep if state.next_action else 0
        log.warning("Label Studio at %s: %s; next try in %.1f s", self.url, error, pause_s)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, RefusalError):
        return error.status in _TRANSIENT_STATUSES
    return isinstance(error, NoAnswerError)


def _describe_refusal(url: str, error: RefusalError) -> str:
    detail = error.body.get("validation_errors") or error.body.get("detail") or ""
    if error.status in (401, 403):
        detail = "check LABEL_STUDIO_API_KEY"
    elif error.status == 404:
        detail = "there is no such project, view or task for this token"
    elif error.status == 413:
        detail = "larger than it takes, or a proxy before it (nginx: client_max_body_size)"
    sentence = f"Label Studio at {url} answers HTTP {error.status}: {detail}"
    return sentence if len(sentence) <= _LONGEST_SENTENCE else f"{sentence[:_LONGEST_SENTENCE]} …"
