"""Watch whether Label Studio accepts the token of this backend.

A token that was replaced in Label Studio fails silently: annotators see tasks without predictions,
and nothing is read or learned.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from backend.errors import BackendError, StudioRefused
from backend.label_studio.client import LabelStudioClient

log = logging.getLogger(__name__)

#: How often the token is tried, in seconds: where all is well, and where something is wrong.
_CHECK_EVERY_S: Final = 300.0
_RECHECK_EVERY_S: Final = 30.0

_REFUSED: Final = (
    "Label Studio at {url} refuses the token of this backend (HTTP {status}): no pictures are "
    "fetched, no predictions written and no annotations read with it. Set LABEL_STUDIO_API_KEY to "
    "a token that is valid, and start the backend again."
)


class TokenWatch:
    """Tries the token at the start and every few minutes, in one background thread.

    Args:
        client: Label Studio; None: there is no token.
        clock: the time in seconds.
    """

    def __init__(
        self, client: LabelStudioClient | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._next_check = -math.inf
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """What was wrong when the token was tried last, in sentences; empty where nothing was."""
        return self._trouble

    def check(self) -> bool:
        """Try the token where that is due; return False: the next round may wait."""
        if self._client is None or self._clock() < self._next_check:
            return False
        before, self._trouble = self._trouble, self._try(self._client)
        if self._trouble and self._trouble != before:
            log.error("%s", self._trouble)
        if before and not self._trouble:
            log.info("Label Studio accepts the token of this backend again")
        self._next_check = self._clock() + (_RECHECK_EVERY_S if self._trouble else _CHECK_EVERY_S)
        return False

    def _try(self, client: LabelStudioClient) -> str:
        """Return what is wrong; empty where Label Studio accepts the token."""
        try:
            client.user()
        except StudioRefused as error:
            if error.status not in (401, 403):
                return str(error)
            return _REFUSED.format(url=client.url, status=error.status)
        except BackendError as error:
            return str(error)
        return ""
