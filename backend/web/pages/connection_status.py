"""Report whether this backend and Label Studio can tell each other what they have to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from backend.jobs.change_poller import ChangePoller
from backend.jobs.poll_store import Poll
from backend.jobs.token_watch import TokenWatch
from backend.jobs.webhook_watch import WebhookWatch
from backend.label_studio.files import LabelStudioFiles

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ConnectionStatus:
    """Read what background threads have found out about Label Studio; ask it nothing.

    Args:
        token_watch: whether Label Studio accepts the token.
        webhook_watch: which connected projects have no webhook.
        change_poller: which projects are polled for changes.
        files: makes links to Label Studio.
    """

    token_watch: TokenWatch
    webhook_watch: WebhookWatch
    change_poller: ChangePoller
    files: LabelStudioFiles

    def read(self, scrub: Callable[[str], str]) -> Json:
        """Read the status of one moment.

        Args:
            scrub: cuts secrets out of a sentence.

        Returns:
            JSON: ``trouble``, a sentence; ``poll_interval_s``, None where nothing is polled; the
            projects that are ``polled``; and those ``without_webhook``. Times are in seconds since
            the epoch.
        """
        poller = self.change_poller
        return {
            "trouble": scrub(self.token_watch.trouble),
            "poll_interval_s": poller.settings.poll_interval_s if poller.is_on else None,
            "polled": [self._poll(poll, scrub) for poll in self._polls()],
            "without_webhook": [self._link(each) for each in self.webhook_watch.without_webhook],
        }

    def _polls(self) -> list[Poll]:
        try:
            return self.change_poller.polls.list_polls() if self.change_poller.is_on else []
        except SQLAlchemyError:  # the status of the database says so
            return []

    def _poll(self, poll: Poll, scrub: Callable[[str], str]) -> Json:
        at, trouble = poll.polled or None, scrub(poll.trouble)
        return {**self._link(poll.project), "at": at, "trouble": trouble}

    def _link(self, project: int) -> Json:
        return {"project": project, "url": self.files.task_url(project)}
