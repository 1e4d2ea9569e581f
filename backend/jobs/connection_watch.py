"""Watch over Label Studio: whether it accepts the token, and how it calls its projects."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from cachetools import LRUCache

from backend.errors import BackendError, StudioRefused, StudioUnreachable
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

    def check(self) -> bool:
        """Try the token where that is due; return False: the next round may wait."""
        if self._client is None or self._clock() < self._next_check:
            return False
        before = self._trouble
        level, self._trouble = self._try(self._client)
        if self._trouble and self._trouble != before:
            log.log(level, "%s", self._trouble)
        if before and not self._trouble:
            log.info("Label Studio accepts the token of this backend again")
        self._next_check = self._clock() + (_RECHECK_EVERY_S if self._trouble else _CHECK_EVERY_S)
        return False

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

#: For how long after their answer none is read for a project that was not among them, in seconds.
_FRESH_FOR_NEW_S: Final = 1.0

#: How long no page waits for titles after they could not be read, in seconds.
_PATIENT_AFTER_S: Final = 60.0

#: Most projects without a title that are remembered, so that no page waits for one of them again.
_MOST_UNTITLED: Final = 1000

#: By how much the clocks of two machines may differ, in seconds.
CLOCKS_DIFFER_S: Final = 60.0


class _Titles(NamedTuple):
    """The titles of one answer, and the time before its request: newer projects may be missing."""

    by_project: Mapping[int, str]
    asked_at: float


class ProjectTitles:
    """Knows projects by title; one background thread reads them, and only while somebody asks.

    They are read once at the start. A page that names a project which was not among them reads
    them itself, so that it has its title. A project that is still not among them then, or was named
    before they were read, is gone: no page waits for it again.

    Args:
        client: Label Studio; None: no title is known, and pages name projects by number.
        clock: the time in seconds.
        page_client: Label Studio, for a page that waits; None: no page waits.

    >>> ProjectTitles(None).name(7), ProjectTitles(None).name(None)
    ('Project 7', 'No project')
    """

    def __init__(
        self,
        client: LabelStudioClient | None,
        clock: Callable[[], float] = time.monotonic,
        page_client: LabelStudioClient | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._page_client = page_client
        self._reading = threading.Lock()  # of the page that reads
        self._page_reads_from = -math.inf  # when a page may read again
        self._were_read = False  # the last time that they were asked for
        self._wanted = threading.Event()
        self._wanted.set()
        self._read_at = -math.inf  # when the background thread has last begun to
        self._lock = threading.Lock()  # of what follows
        self._kept = _Titles({}, -math.inf)
        self._untitled: LRUCache[int, float] = LRUCache(_MOST_UNTITLED)  # when each was first named

    def name(self, project: int | None) -> str:
        """Return a project's title and number; "Project 7" where the title is not known.

        Waits for Label Studio where the project is new here, see `ProjectTitles`.
        """
        if project is None:
            return "No project"
        self._wanted.set()
        if project not in self._kept.by_project and self._client is not None:
            now = self._clock()
            with self._lock:
                first_named = self._untitled.setdefault(project, now)
            self._read_for(first_named)
        title = self._kept.by_project.get(project)
        return f"{title} ({project})" if title else f"Project {project}"

    def is_gone(self, project: int, known_for_s: float) -> bool:
        """Tell whether a project is gone, or is no longer shown to this token.

        Args:
            known_for_s: for how long the project is known, in seconds, by any machine's clock:
                titles that were read before it was made say nothing of it.
        """
        self._wanted.set()
        kept = self._kept
        read_before_s = self._clock() - kept.asked_at + CLOCKS_DIFFER_S
        if read_before_s >= known_for_s or len(kept.by_project) >= MOST_TITLES:
            return False
        return project not in kept.by_project

    def knows(self, project: int) -> bool:
        """Tell whether the project was there when the titles were read last.

        They are read again in the background where they are old, and nothing waits for it.
        """
        self._wanted.set()
        return project in self._kept.by_project

    def is_missing(self, project: int) -> bool:
        """Tell whether Label Studio lists no such project for this token.

        The titles are read for it where that is due, see `ProjectTitles`. Where Label Studio did
        not answer the last time, or has more projects than titles are read of, none is missing.
        """
        self._wanted.set()
        self._read_for(self._clock())
        kept = self._kept
        is_new = self._clock() - kept.asked_at <= _FRESH_FOR_S
        is_whole = self._were_read and is_new and len(kept.by_project) < MOST_TITLES
        return is_whole and project not in kept.by_project

    def choices(self) -> list[tuple[int, str]]:
        """Return number and name of all known projects, sorted by title."""
        self._wanted.set()
        titles = self._kept.by_project
        ordered = sorted(titles, key=lambda project: (titles[project].casefold(), project))
        return [(project, self.name(project)) for project in ordered]

    def check(self) -> bool:
        """Read the titles where somebody looks and they are old; return False: it may wait."""
        with self._lock:
            newest = max(self._untitled.values(), default=-math.inf)
        is_sought = newest <= max(self._read_at, self._kept.asked_at)
        fresh_for_s = _FRESH_FOR_S if is_sought else _FRESH_FOR_NEW_S
        is_fresh = self._clock() < self._read_at + fresh_for_s
        if self._client is None or not self._wanted.is_set() or is_fresh:
            return False
        self._wanted.clear()
        self._read_at = self._clock()
        try:
            self._read(self._client)
        except StudioRefused as error:
            log.warning("The titles of projects cannot be read: %s", error)
        return False

    def _read(self, client: LabelStudioClient) -> None:
        asked_at = self._clock()
        try:
            titles = _Titles(client.project_titles(), asked_at)
        except (StudioRefused, StudioUnreachable):
            self._page_reads_from = self._clock() + _PATIENT_AFTER_S
            self._were_read = False
            raise
        self._were_read = True
        self._page_reads_from = self._clock() + _FRESH_FOR_NEW_S
        with self._lock:
            if titles.asked_at >= self._kept.asked_at:
                self._kept = titles

    def _read_for(self, first_named: float) -> None:
        """Read the titles for a page, unless they were read since it named a project first."""
        if self._page_client is None or first_named <= self._kept.asked_at:
            return
        with self._reading, suppress(StudioRefused, StudioUnreachable):
            is_sought = first_named <= self._kept.asked_at  # by the page before this one
            if not is_sought and self._clock() >= self._page_reads_from:
                self._read(self._page_client)
