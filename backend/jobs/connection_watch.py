"""Watch over Label Studio: whether it accepts the token, and how it calls its projects."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from backend.errors import BackendError, StudioRefused
from backend.label_studio.client import MOST_TITLES, LabelStudioClient

log = logging.getLogger(__name__)


#: How often the token is tried, in seconds: where all is well, and where something is wrong.
_CHECK_EVERY_S: Final = 300.0
_RECHECK_EVERY_S: Final = 30.0

#: How old titles may be before somebody who looks at them has them read again, in seconds.
_FRESH_FOR_S: Final = 10.0

_REFUSED: Final = (
    "Label Studio at {url} refuses the token of this backend (HTTP {status}): no pictures are "
    "fetched, no predictions written and no annotations read with it. Set LABEL_STUDIO_API_KEY to "
    "a token that is valid, and start the backend again."
)


class ConnectionWatch:
    """Tries the token every few minutes, and reads the projects' titles only while somebody looks.

    One background thread does both, from the start on. Nobody waits for it, but for who names a
    project that is new since the titles were read: then they are read at once. Without a token
    there is no client, and pages name projects by number.

    >>> ConnectionWatch(None).project_name(7), ConnectionWatch(None).project_name(None)
    ('Project 7', 'No project')
    """

    def __init__(
        self, client: LabelStudioClient | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._next_try = -math.inf
        self._trouble = ""
        self._wanted = threading.Event()
        self._wanted.set()
        self._titles: Mapping[int, str] = {}
        self._next_read = -math.inf
        self._next_new = -math.inf  # when they may be read for a project that is new

    @property
    def trouble(self) -> str:
        """What was wrong when the token was tried last, in sentences; empty where nothing was."""
        return self._trouble

    def project_name(self, project: int | None) -> str:
        """Return a project's title and number; "Project 7" where the title is not known."""
        if project is None:
            return "No project"
        self._wanted.set()
        if project not in self._titles:
            self._read_new()
        title = self._titles.get(project)
        return f"{title} ({project})" if title else f"Project {project}"

    def is_gone(self, project: int) -> bool:
        """Tell whether a project is gone, or is no longer shown to this token.

        One that is new in Label Studio counts as gone until the titles are read again.
        """
        self._wanted.set()
        return 0 < len(self._titles) < MOST_TITLES and project not in self._titles

    def project_choices(self) -> list[tuple[int, str]]:
        """Return number and name of all known projects, sorted by title."""
        self._wanted.set()
        titles = self._titles
        ordered = sorted(titles, key=lambda project: (titles[project].casefold(), project))
        return [(project, self.project_name(project)) for project in ordered]

    def check(self) -> None:
        """Try the token where that is due; read the titles where somebody looks and they are old.

        Raises:
            StudioUnreachable: the titles cannot be read, as Label Studio is away.
        """
        if self._client is None:
            return
        if self._clock() >= self._next_try:
            self._try_token(self._client)
        if self._wanted.is_set() and self._clock() >= self._next_read:
            self._read_titles(self._client)

    def _read_new(self) -> None:
        """Read the titles now, unless that was done just before, or they were never read."""
        if self._client is None or self._next_read == -math.inf or self._clock() < self._next_new:
            return
        self._next_new = self._clock() + _FRESH_FOR_S
        with suppress(BackendError):  # the page says what is wrong
            self._titles = self._client.project_titles()

    def _try_token(self, client: LabelStudioClient) -> None:
        before, trouble, level = self._trouble, "", logging.ERROR
        try:
            client.user()
        except StudioRefused as error:
            trouble = str(error)
            if error.status in (401, 403):
                trouble = _REFUSED.format(url=client.url, status=error.status)
        except BackendError as error:  # it may be starting, too
            trouble, level = str(error), logging.WARNING
        if trouble and trouble != before:
            log.log(level, "%s", trouble)
        if before and not trouble:
            log.info("Label Studio accepts the token of this backend again")
        self._trouble = trouble
        self._next_try = self._clock() + (_RECHECK_EVERY_S if trouble else _CHECK_EVERY_S)

    def _read_titles(self, client: LabelStudioClient) -> None:
        self._wanted.clear()
        self._next_read = self._clock() + _FRESH_FOR_S
        try:
            self._titles = client.project_titles()
        except StudioRefused as error:
            log.warning("The titles of projects cannot be read: %s", error)
