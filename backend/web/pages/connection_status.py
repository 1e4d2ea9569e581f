"""Report whether this backend and Label Studio can tell each other what they have to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from backend.jobs.change_poller import ChangePoller, Poll
from backend.jobs.connection_watch import TokenWatch
from backend.label_studio.download import LabelStudioFiles

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ConnectionStatus:
    """Read what background threads have found out about Label Studio; ask it nothing.

    Args:
        token_watch: whether Label Studio accepts the token.
        change_poller: which projects are polled for changes.
        files: makes links to Label Studio.
    """

    token_watch: TokenWatch
    change_poller: ChangePoller
    files: LabelStudioFiles

    def read(self, scrub: Callable[[str], str]) -> Json:
        """Read the status of one moment.

        Args:
            scrub: cuts secrets out of a sentence.

        Returns:
            JSON: ``trouble``, a sentence; ``poll_interval_s``, None where nothing is polled; and
            the projects that are ``polled``. Times are in seconds since the epoch.
        """
        return {
            "trouble": scrub(self.token_watch.trouble),
            "poll_interval_s": self._interval_s,
            "polled": [self._poll(poll, scrub) for poll in self._polls()],
        }

    @property
    def _interval_s(self) -> float | None:
        poller = self.change_poller
        return None if poller.client is None else poller.settings.poll_interval_s

    def _polls(self) -> list[Poll]:
        try:
            return self.change_poller.polls.list_polls() if self.change_poller.client else []
        except SQLAlchemyError:  # the status of the database says so
            return []

    def _poll(self, poll: Poll, scrub: Callable[[str], str]) -> Json:
        at, trouble = poll.polled or None, scrub(poll.trouble)
        tasks = poll.tasks if poll.noted else None
        return {**self._link(poll.project), "at": at, "tasks": tasks, "trouble": trouble}

    def _link(self, project: int) -> Json:
        return {"project": project, "url": self.files.task_url(project)}
