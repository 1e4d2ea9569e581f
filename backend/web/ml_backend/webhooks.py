"""What follows from a webhook: jobs for new tasks, marks for changed annotations."""

from __future__ import annotations

from contextlib import suppress

from backend.errors import LabelConfigError
from backend.feedback.annotation_store import Annotations
from backend.jobs.job_store import Job, JobStore
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import AnnotationsChanged, TasksCreated, TasksDeleted
from backend.settings import Settings, prelabels


def auto_prelabel(store: JobStore, settings: Settings, created: TasksCreated) -> Job | None:
    """Queue new tasks, if their project has that switched on; at once, whatever else goes on."""
    if settings.label_studio_api_key is None:
        return None
    wanted = prelabels(settings, created.project_id)
    if not wanted and created.label_config:
        with suppress(LabelConfigError):  # there is nothing to draw for
            wanted = parse_label_config(created.label_config).prelabel
    if not wanted:
        return None
    return store.start_job(created.project_id, kind="new", tasks=created.task_ids)


def note_change(
    annotations: Annotations, settings: Settings, happened: AnnotationsChanged | TasksDeleted
) -> bool:
    """Mark what has changed, to be read later; False where nobody could, for want of a token."""
    if settings.label_studio_api_key is None:
        return False
    if isinstance(happened, TasksDeleted):
        annotations.mark_tasks(happened.project_id, happened.task_ids)
    else:
        annotations.mark(happened.project_id, happened.annotation_ids)
    return True
