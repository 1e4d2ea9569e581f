"""Have Label Studio store the annotations of predictions that people have called good.

It goes on where a process has ended: Label Studio stores no second annotation of one name.
"""

from http import HTTPStatus
from typing import Any

import sqlalchemy as sa

from backend.errors import StudioRefused, StudioUnreachable, TaskNotServed
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import TaskContents
from backend.review.verdicts import ReviewStore


def write_due(reviews: ReviewStore, client: LabelStudioClient) -> bool:
    """Have Label Studio store an annotation that is due; return whether there was one."""
    row = reviews.lease_due()
    if row is None:
        return False

    try:
        annotation, trouble = _write(client, row)
    except (StudioRefused, TaskNotServed) as error:
        reviews.note_trouble(row, str(error))
        return True
    except StudioUnreachable:  # perhaps at this one alone: the others go first now
        reviews.postpone(row)
        raise
    except BaseException:  # the database is away, or the process ends
        reviews.release(row)
        raise

    is_kept = reviews.note(row, annotation=annotation, trouble=trouble, open=0)
    if annotation is not None and not is_kept:  # taken back meanwhile
        client.delete_annotation(annotation)
    return True


def take_back(client: LabelStudioClient, annotation: int) -> bool:
    """Delete the annotation of a verdict; return whether it is gone.

    What somebody has changed in the editor since stays.
    """
    there = client.annotation(annotation)
    if there is None:
        return True
    if there.is_reviewed:
        client.delete_annotation(annotation)
    return there.is_reviewed


def _write(client: LabelStudioClient, row: sa.Row[Any]) -> tuple[int | None, str]:
    """Write the annotation of a verdict; return its id, or why there is none."""
    found = client.contents(row.task)
    if found is None:
        return None, "The task is not there any more."
    if (ours := _find(client, row, found)) is not None:
        return ours, ""
    if found.annotations:
        return None, "It has an annotation since."
    if found.drafts:
        return None, "Somebody has begun to annotate it."
    prediction = client.prediction(row.prediction)
    if prediction is None or row.prediction not in {each.id for each in found.predictions}:
        return None, "Its prediction was deleted."
    try:
        return client.write_review(row.task, prediction, row.seconds), ""
    except StudioRefused as error:
        again = client.contents(row.task) if error.status == HTTPStatus.CONFLICT else None
        if again is None or (ours := _find(client, row, again)) is None:
            raise
        return ours, ""


def _find(client: LabelStudioClient, row: sa.Row[Any], found: TaskContents) -> int | None:
    """Return the annotation of a verdict that was written though nobody has noted it."""
    for each in found.annotations:
        there = client.annotation(each.id) if each.prediction == row.prediction else None
        if there is not None and there.is_reviewed:
            return there.id
    return None
