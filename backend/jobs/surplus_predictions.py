"""Delete quick predictions that a task has several times, once it has a full one.

Label Studio's labelling stream asks for a task's prediction whenever it lacks one of the current
version, and stores each answer. While the words of a project are new, each answer is the same quick
prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backend.errors import StudioRefused
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.quick_version import is_quick
from backend.label_studio.records import StoredPrediction
from backend.label_studio.task_filter import TaskFilter

log = logging.getLogger(__name__)


def surplus(stored: Sequence[StoredPrediction]) -> list[StoredPrediction]:
    """Return the quick predictions of a task except the newest of each version.

    The newest stays, as somebody may have the task open with it.

    Args:
        stored: all predictions of the task, the oldest first.

    >>> rows = enumerate(["a quick", "a quick", "b quick", "a quick", "c", "c"])
    >>> [each.id for each in surplus([StoredPrediction(i, 7, v, i) for i, v in rows])]
    [0, 1]
    """
    newest = {each.version: each.id for each in stored}
    return [each for each in stored if is_quick(each.version) and each.id != newest[each.version]]


def remove_surplus(
    client: LabelStudioClient, project: int, stored: Sequence[StoredPrediction]
) -> None:
    """Delete the surplus quick predictions of a task that has neither annotation nor draft.

    A token that may not delete them is logged.

    Args:
        client: Label Studio.
        project: the project of the task.
        stored: all predictions of the task, the oldest first.

    Raises:
        StudioUnreachable: Label Studio does not answer.
    """
    unwanted = surplus(stored)
    try:
        if not unwanted or _is_worked_on(client, project, unwanted[0].task):
            return
        for each in unwanted:
            client.delete(each.id)
        log.info("Task %d had %d more quick predictions", unwanted[0].task, len(unwanted))
    except StudioRefused as error:
        log.warning("Task %d keeps its quick predictions: %s", unwanted[0].task, error)


def _is_worked_on(client: LabelStudioClient, project: int, task: int) -> bool:
    return any(client.count(project, each) for each in TaskFilter(ids=(task,)).worked_on())
