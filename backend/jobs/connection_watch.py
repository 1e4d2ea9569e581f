"""Watch over Label Studio: whether it accepts the token, and how it calls its projects."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from backend.errors import BackendError, StudioRefused
from backend.label_studio.client import MOST_TITLES, LabelStudioClient

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

    def check(self) -> None:
        """Try the token where that is due."""
        if self._client is None or self._clock() < self._next_check:
            return
        before = self._trouble
        level, self._trouble = self._try(self._client)
        if self._trouble and self._trouble != before:
            log.log(level, "%s", self._trouble)
        if before and not self._trouble:
            log.info("Label Studio accepts the token of this backend again")
        self._next_check = self._clock() + (_RECHECK_EVERY_S if self._trouble else _CHECK_EVERY_S)

    def _try(self, client: LabelStudioClient) -> tuple[int, str]:
        """Return what is wrong, after its level; empty where Label Studio accepts the token."""
        try:
            client.user()
        except StudioRefused as error:
            if error.status not in (401, 403):
                return logging.ERROR, str(error)
            return logging.ERROR, _REFUSED.format(url=client.url, status=error.status)
        except BackendError as error:  # it may be starting, too
            return logging.WARNING, str(error)
        return logging.INFO, ""


#: How old titles may be before somebody who looks at them has them read again, in seconds.
_FRESH_FOR_S: Final = 10.0


class ProjectTitles:
    """Knows projects by title; one background thread reads them, and only while somebody looks.

    Args:
        client: Label Studio; None: no title is known, and pages name projects by number.
        clock: the time in seconds.

    >>> ProjectTitles(None).name(7), ProjectTitles(None).name(None)
    ('Project 7', 'No project')
    """

    def __init__(
        self, client: LabelStudioClient | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._wanted = threading.Event()
        self._wanted.set()
        self._titles: Mapping[int, str] = {}
        self._tried_at = -math.inf

    def name(self, project: int | None) -> str:
        """Return a project's title and number; "Project 7" where the title is not known."""
        if project is None:
            return "No project"
        self._wanted.set()
        title = self._titles.get(project)
        return f"{title} ({project})" if title else f"Project {project}"

    def is_gone(self, project: int) -> bool:
        """Tell whether a project is gone, or is no longer shown to this token.

        One that is new in Label Studio counts as gone until the titles are read again.
        """
        self._wanted.set()
        return 0 < len(self._titles) < MOST_TITLES and project not in self._titles

    def choices(self) -> list[tuple[int, str]]:
        """Return number and name of all known projects, sorted by title."""
        self._wanted.set()
        titles = self._titles
        ordered = sorted(titles, key=lambda project: (titles[project].casefold(), project))
        return [(project, self.name(project)) for project in ordered]

    def check(self) -> None:
        """Read the titles where somebody looks and they are old."""
        is_fresh = self._clock() < self._tried_at + _FRESH_FOR_S
        if self._client is None or not self._wanted.is_set() or is_fresh:
            return
        self._wanted.clear()
        self._tried_at = self._clock()
        try:
            self._titles = self._client.project_titles()
        except StudioRefused as error:
            log.warning("The titles of projects cannot be read: %s", error)
