"""Call Label Studio's API through its SDK."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import httpx
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.request_options import RequestOptions

from backend.errors import StudioRefused
from backend.label_studio.answers import ForeignAnswerError, check_answer, read_answer
from backend.label_studio.retrying import Retrier
from backend.label_studio.tokens import token_kind

T = TypeVar("T")

#: Turns the retries of the SDK off: `Connection` has its own.
NO_RETRIES: Final[RequestOptions] = {"max_retries": 0}


class Connection:
    """Calls the API of one Label Studio; repeats a call while Label Studio is down or busy.

    Any number of threads may share it.

    Args:
        url: address of Label Studio.
        api_key: a legacy or a personal token for it.
        retrier: says how long calls are repeated.
        timeout_s: longest wait to connect, and for each next part of an answer, in seconds.
    """

    def __init__(self, url: str, api_key: str, retrier: Retrier, timeout_s: float = 120.0) -> None:
        self.url = url
        self._api_key = api_key
        self._retrier = retrier
        self._timeout_s = timeout_s
        self._sdk: LabelStudio | None = None

    @property
    def sdk(self) -> LabelStudio:
        """The SDK's client, made where there is none yet or its token was refused."""
        sdk = self._sdk  # another thread may drop it meanwhile
        if sdk is None:
            sdk = self._sdk = connect(self.url, self._api_key, self._timeout_s)
        return sdk

    def call(self, ask: Callable[[LabelStudio], T]) -> T:
        """Return the answer to a call that may be sent more than once.

        Raises:
            StudioRefused: Label Studio refuses the call.
            StudioUnreachable: Label Studio does not answer.
        """
        return self.repeat(lambda: ask(self.sdk))

    def find(self, ask: Callable[[LabelStudio], T], gone: Collection[int] = (404,)) -> T | None:
        """Return the answer to a call; None where Label Studio does not have what is asked for.

        Args:
            ask: the call.
            gone: the HTTP statuses that say so.

        Raises:
            StudioRefused: Label Studio refuses the call for another reason.
            StudioUnreachable: Label Studio does not answer.
        """
        try:
            return self.call(ask)
        except StudioRefused as error:
            if error.status not in gone:
                raise
            return None

    def repeat(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt, which may consist of several calls, until it succeeds.

        Raises:
            StudioRefused: Label Studio refuses one of the calls.
            StudioUnreachable: Label Studio does not answer.
        """
        return self._retrier.call(lambda: self._renewing(attempt))

    def _renewing(self, attempt: Callable[[], T]) -> T:
        """Try once more with a new access token, where the last one may just have ended."""
        try:
            return attempt()
        except ApiError as error:
            if error.status_code != 401 or token_kind(self._api_key) != "personal":
                raise
            self._sdk = None
            return attempt()


def connect(url: str, api_key: str, timeout_s: float) -> LabelStudio:
    """Make a client of the SDK that checks each answer, also one to an exchange of tokens.

    It follows no redirect, which would take the token along. One to another path is that of a page
    in Label Studio's place, which goes away; one to another address of the same path stays.

    Args:
        url: address of Label Studio.
        api_key: a legacy or a personal token for it.
        timeout_s: longest wait to connect, and for each next part of an answer, in seconds.
    """

    def refuse_redirects(response: httpx.Response) -> None:
        if not response.has_redirect_location:
            return
        place = response.headers["Location"].partition("?")[0]
        asked = response.request.url.path.rstrip("/")
        if not place.rstrip("/").endswith(asked):
            raise ForeignAnswerError(
                f"redirects to {place[:200]}: it may be a login or maintenance page, or "
                "LABEL_STUDIO_URL may be the address of something else"
            )
        raise StudioRefused(
            f"Label Studio at {url} redirects to {place[:200]}: set LABEL_STUDIO_URL to the "
            "address at which it answers itself.",
            response.status_code,
        )

    hooks = {"response": [refuse_redirects]}
    client = _CheckedClient(timeout=timeout_s, follow_redirects=False, event_hooks=hooks)
    return LabelStudio(base_url=url, api_key=api_key, httpx_client=client)


class _CheckedClient(httpx.Client):
    """Reads each answer within its limit, and checks it."""

    def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request; the answer has been read and checked."""
        answer = super().send(request, stream=True, **options)
        try:
            read = read_answer(answer)
            check_answer(read)
            return read
        finally:
            answer.close()
