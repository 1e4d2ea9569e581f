"""Read which predictions a task has, as Label Studio lists them."""

from __future__ import annotations

from backend.label_studio.connection import Connection
from backend.label_studio.records import PredictionRow


def read_prediction_rows(connection: Connection, task: int) -> list[PredictionRow]:
    """Read the predictions of a task without their regions, the oldest first.

    There are none where the task is gone. Label Studio answers a list of predictions with HTTP 400,
    not 404, where no task has the id that chooses them: it is a choice that a filter does not know.

    Args:
        connection: calls the API.
        task: its id.

    Returns:
        The rows.

    Raises:
        BadRequest: they have too many values to be read.
        StudioRefused: the token may not see them.
        StudioUnreachable: Label Studio does not answer.
    """
    kind = list[PredictionRow]
    found = connection.find(
        "/api/predictions/", kind, gone=(400, 404), whose="predictions", task=task
    )
    return sorted(found or (), key=lambda each: each.id)
