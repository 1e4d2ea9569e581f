"""Keep the titles of Label Studio's projects, for pages that people read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from backend.errors import StudioRefused
from backend.label_studio.client import LabelStudioClient

log = logging.getLogger(__name__)

#: How old titles may be before somebody who looks at them has them read again, in seconds.
_FRESH_FOR_S: Final = 10.0


class ProjectTitles:
    """Knows projects by title; one background thread reads them, and only while somebody looks.

    They are read once at the start, so that the first page has them.

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
        self._next_read = clock()
        self._titles: Mapping[int, str] = {}  # replaced as a whole

    def name(self, project: int | None) -> str:
        """Return a project's title and number; "Project 7" where the title is not known."""
        if project is None:
            return "No project"
        self._wanted.set()
        title = self._titles.get(project)
        return f"{title} ({project})" if title else f"Project {project}"

    def choices(self) -> list[tuple[int, str]]:
        """Return number and name of all known projects, sorted by title."""
        self._wanted.set()
        titles = self._titles
        ordered = sorted(titles, key=lambda project: (titles[project].casefold(), project))
        return [(project, self.name(project)) for project in ordered]

    def check(self) -> bool:
        """Read the titles where somebody looks and they are old; return False: it may wait.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        if self._client is None or not self._wanted.is_set() or self._clock() < self._next_read:
            return False
        self._wanted.clear()
        self._next_read = self._clock() + _FRESH_FOR_S
        try:
            self._titles = self._client.project_titles()
        except StudioRefused as error:
            log.warning("The titles of projects cannot be read: %s", error)
        return False
