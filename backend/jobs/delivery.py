"""Deliver predictions that wait in the outbox to Label Studio, through its API."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from backend.errors import LabelConfigError, StudioRefused
from backend.jobs.job_store import JobStore
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.prediction_list import UNLISTED, list_to_change
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.failures import FailureStore
from backend.prediction.outbox import OutboxItem, PredictionOutbox
from backend.prediction.predictor import Predictor

log = logging.getLogger(__name__)

#: How long predictions that could not be written wait before the next attempt, in seconds.
_RETRY_AFTER_S: Final = 15.0

#: The most predictions of one request to Label Studio.
_BATCH_SIZE: Final = 50


class PredictionDelivery:
    """Writes predictions that were made after the deadline of their request.

    Args:
        outbox: the predictions that wait.
        store: gets a job for the tasks of a backend that has died.
        failures: gets the tasks whose prediction Label Studio refuses.
        predictor: knows the versions that a label config still asks for.
        client: Label Studio.
    """

    def __init__(
        self,
        outbox: PredictionOutbox,
        store: JobStore,
        failures: FailureStore,
        predictor: Predictor,
        client: LabelStudioClient,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._failures = failures
        self._predictor = predictor
        self._client = client

    def deliver(self) -> bool:
        """Write the predictions that are due, of one project; return whether there were any.

        Raises:
            BackendError: Label Studio does not answer; the predictions are due again later.
        """
        self._queue_orphans()
        items = self._outbox.lease_due(_BATCH_SIZE)
        if not items:
            return False
        keys = [item.key for item in items]
        try:
            self._write(items)
        except (StudioRefused, LabelConfigError) as error:
            log.warning("%d predictions are not written: %s", len(keys), error)
            if not _is_final(error):
                self._release(keys)
                return True  # predictions of other projects are written meanwhile
        except BaseException:
            self._release(keys)
            raise
        self._outbox.complete(keys)
        return True

    def _queue_orphans(self) -> None:
        """Queue jobs for tasks whose claims were held by a backend that has died."""
        for project, claims in self._outbox.orphans().items():
            log.info("Project %d: %d tasks of a backend that has died", project, len(claims))
            self._store.start_job(project, kind="new", only="all", tasks=claims.values())
            self._outbox.discard_orphans(claims)

    def _release(self, keys: Sequence[str]) -> None:
        self._outbox.release(keys, self._outbox.now + _RETRY_AFTER_S)

    def _write(self, items: Sequence[OutboxItem]) -> None:
        """Write predictions of one project and version, except where a task has a newer one."""
        project, version = items[0].project, items[0].version
        config = parse_label_config(self._client.label_config(project))
        if not self._predictor.versions.is_wanted(version, config, project):
            log.info("Project %d has another label config by now: %s is over", project, version)
            return
        predictions = {item.task: item.prediction for item in items}
        begun = {item.task: item.begun for item in items}
        wanted = TaskFilter(ids=tuple(predictions), min_predictions=1)
        refused: dict[int, str] = {}
        for task in self._client.tasks(project, wanted):
            task_id = int(task.id or 0)
            stored = list_to_change(self._client, task_id)
            if stored is None:
                refused[task_id] = UNLISTED
                del predictions[task_id]
                continue
            if any(other.created > begun[task_id] for other in stored):
                del predictions[task_id]
        refused |= self._client.write(project, version, predictions)
        for task_id, reason in refused.items():
            log.warning("Task %d has no prediction: %s", task_id, reason)
            self._failures.add([(task_id, reason)], project=project)


def _is_final(error: StudioRefused | LabelConfigError) -> bool:
    """Return whether predictions will never be taken.

    False where a wrong token or address may be the cause, which somebody may correct.
    """
    if isinstance(error, LabelConfigError):
        return True
    return error.status >= 400 and error.status not in (401, 403)
