"""Read which predictions a task has, as Label Studio lists them."""

from __future__ import annotations

from typing import Any

from backend.label_studio.connection import NO_RETRIES, Connection


def read_prediction_rows(connection: Connection, task: int) -> list[Any]:
    """Read the predictions of a task without their regions, the oldest first.

    There are none where the task is gone. Label Studio answers a list of predictions with HTTP 400,
    not 404, where no task has the id that chooses them: it is a choice that a filter does not know.

    Args:
        connection: calls the API.
        task: its id.

    Returns:
        The rows as the SDK has read them: ``id``, ``model_version``, ``created_at``.

    Raises:
        BadRequest: they have too many values to be read.
        StudioRefused: the token may not see them.
        StudioUnreachable: Label Studio does not answer.
    """
    found = connection.find(
        lambda sdk: sdk.predictions.list(task=task, request_options=NO_RETRIES), gone=(400, 404)
    )
    return sorted(found or (), key=lambda each: int(each.id))
