"""Watch whether Label Studio tells of what happens in the projects that are connected.

Where it makes no webhook it says nothing, and predictions come all the same: only that annotations
and new tasks are never heard of shows it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from backend.errors import StudioRefused
from backend.jobs.connected_projects import MOST_PROJECTS, SETTLED_AFTER_S
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig, adapt_mode
from backend.label_studio.records import Webhook
from backend.label_studio.webhook_address import is_address_of
from backend.settings import Settings, prelabels

log = logging.getLogger(__name__)

#: How often webhooks are asked for, in seconds: where all is well, and where a project has none.
_CHECK_EVERY_S: Final = 300.0
_RECHECK_EVERY_S: Final = 60.0


class WebhookWatch:
    """Finds connected projects that need a webhook and have none; keeps them in memory.

    Requests note projects and read the findings; one background thread checks. Where all projects
    are well, a check is one request for the webhooks of all of them.

    Args:
        settings: say for which projects a webhook is needed.
        client: Label Studio; None: nothing is watched, since without a token no webhook is of use.
        clock: the time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._projects: set[int] = set()
        self._next_check = math.inf  # until a project is noted
        self._urls: dict[int, list[str]] = {}  # project -> backends, as last read
        self._without: tuple[int, ...] = ()  # replaced as a whole

    @property
    def without_webhook(self) -> tuple[int, ...]:
        """The connected projects that need a webhook and have none, in ascending order."""
        return self._without

    def note_setup(self, project: int | None, config: LabelConfig) -> None:
        """Note that Label Studio has asked for the setup of a project: it is connected.

        Args:
            project: its id; None: not known.
            config: its labeling config.
        """
        if self._client is None or project is None:
            return
        if not self._needs_webhook(project, config):
            self._forget(project)
            return
        with self._lock:
            if project not in self._projects and len(self._projects) < MOST_PROJECTS:
                self._projects.add(project)
                self._next_check = min(self._next_check, self._clock() + SETTLED_AFTER_S)

    def check(self) -> bool:
        """Check all projects where that is due; return False: the next round may wait.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        with self._lock:
            projects = sorted(self._projects)
            if self._client is None or self._clock() < self._next_check:
                return False
            self._next_check = self._clock() + _CHECK_EVERY_S
        self._without = self._find(self._client, projects) if projects else ()
        return False

    def _find(self, client: LabelStudioClient, projects: Sequence[int]) -> tuple[int, ...]:
        try:
            hooks = [hook for hook in client.webhooks() if hook.is_active]
        except StudioRefused as error:
            log.warning("Whether projects have a webhook cannot be seen: %s", error)
            return ()
        found = tuple(each for each in projects if self._lacks_webhook(client, each, hooks))
        if found:
            with self._lock:
                self._next_check = min(self._next_check, self._clock() + _RECHECK_EVERY_S)
        return found

    def _lacks_webhook(
        self, client: LabelStudioClient, project: int, hooks: Sequence[Webhook]
    ) -> bool:
        if _is_told(project, self._urls.get(project, ()), hooks):
            return False
        try:
            urls = [each.url for each in client.backends(project) if each.url]
        except StudioRefused:  # it is gone, or not for this token
            urls = []
        if not urls:
            self._forget(project)
            return False
        self._urls[project] = urls
        return not _is_told(project, urls, hooks)

    def _needs_webhook(self, project: int, config: LabelConfig) -> bool:
        is_prelabeled = config.prelabel or prelabels(self._settings, project)
        return is_prelabeled or adapt_mode(self._settings, config) != "off"

    def _forget(self, project: int) -> None:
        with self._lock:
            self._projects.discard(project)
            self._urls.pop(project, None)


def _is_told(project: int, urls: Sequence[str], hooks: Sequence[Webhook]) -> bool:
    """Return whether a webhook tells one of some backends of a project."""
    return any(
        hook.project in (None, project) and is_address_of(hook.url, url)
        for hook in hooks
        for url in urls
    )
