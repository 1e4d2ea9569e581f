"""Handle webhooks: queue jobs for new tasks, and mark annotations that have changed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backend.errors import LabelConfigError
from backend.feedback.annotation_store import AnnotationStore
from backend.jobs.job import Job
from backend.jobs.job_store import JobStore
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import AnnotationsChanged, TasksCreated, TasksDeleted
from backend.settings import Settings, prelabels

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class WebhookHandler:
    """Note what a webhook reports. Label Studio waits for the answer: the work is done later.

    Args:
        settings: what is served.
        store: the jobs.
        annotations: the annotations that are to be read.
    """

    settings: Settings
    store: JobStore
    annotations: AnnotationStore

    def handle(self, event: TasksCreated | AnnotationsChanged | TasksDeleted | None) -> Json:
        """Handle an event.

        Args:
            event: None for an event that this backend does not use.

        Returns:
            The answer: ``queued`` with the number of a job, ``noted``, or ``ignored``.
        """
        if isinstance(event, TasksCreated):
            job = auto_prelabel(self.store, self.settings, event)
            if job is not None:
                return {"status": "queued", "job": job.id}
        elif event is not None and mark_changed(self.annotations, self.settings, event):
            return {"status": "noted"}
        return {"status": "ignored"}


def auto_prelabel(store: JobStore, settings: Settings, created: TasksCreated) -> Job | None:
    """Queue a job for new tasks, if their project has prelabeling switched on.

    Returns:
        The job, or None: nothing is switched on, or there is no token to write predictions with.
    """
    if settings.label_studio_api_key is None:
        return None
    is_on = prelabels(settings, created.project_id)
    if not is_on and created.label_config:
        with suppress(LabelConfigError):  # a config without labels to draw switches nothing on
            is_on = parse_label_config(created.label_config).prelabel
    if not is_on:
        return None
    return store.start_job(created.project_id, kind="new", tasks=created.task_ids)


def mark_changed(
    annotations: AnnotationStore, settings: Settings, event: AnnotationsChanged | TasksDeleted
) -> bool:
    """Mark annotations that have changed, to be read later.

    Returns:
        False where nothing is marked, as there is no token to read annotations with.
    """
    if settings.label_studio_api_key is None:
        return False
    if isinstance(event, TasksDeleted):
        annotations.mark_tasks(event.project_id, event.task_ids)
    else:
        annotations.mark(event.project_id, event.annotation_ids)
    return True
