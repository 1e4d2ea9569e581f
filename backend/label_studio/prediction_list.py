"""List the predictions of a task for those that write or delete some of them."""

from __future__ import annotations

import logging
from typing import Final

from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import StoredPrediction

log = logging.getLogger(__name__)

#: What becomes of a task whose predictions cannot be listed.
UNLISTED: Final = "It has too many predictions to be listed, and is left as it is."


def list_to_change(client: LabelStudioClient, task: int) -> list[StoredPrediction] | None:
    """List the predictions of a task, some of which are to be deleted or to get a newer one.

    Label Studio sends them all together. Where they have too many values to be read, nothing tells
    which of them are whose: the task is to be left as it is, which the log says, with the reason.

    Args:
        client: Label Studio.
        task: id of the task.

    Returns:
        They, the oldest first; none where the task is gone. None where the task is to be left.

    Raises:
        StudioRefused: the token may not see them.
        StudioUnreachable: Label Studio does not answer.
    """
    try:
        return client.stored(task)
    except BadRequest as error:
        log.warning("Task %d: %s (%s)", task, UNLISTED, error)
        return None
