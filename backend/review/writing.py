"""Have Label Studio store the annotations of predictions that people have called good.

Where such a verdict is taken back, its annotation is deleted again.

It goes on where a process has ended: Label Studio stores no second annotation of one name, and a
verdict is forgotten after its annotation is.
"""

from http import HTTPStatus
from typing import Any

import msgspec
import sqlalchemy as sa

from backend.errors import BackendError, BadRequest, LabelConfigError, StudioRefused
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.records import Annotation, PredictionRegions, TaskContents
from backend.review.repair import Step, repair_regions
from backend.review.verdicts import ReviewStore


def write_due(reviews: ReviewStore, client: LabelStudioClient) -> bool:
    """Do in Label Studio what is due for a verdict; return whether there was one.

    One that Label Studio fails at waits, longer each time, and the others go on. One that it
    refuses again and again is given up.

    Args:
        reviews: the verdicts.
        client: one that does not try for long: what waits here, waits for all projects.

    Raises:
        BackendError: Label Studio is away, or takes the token no more.
    """
    row = reviews.lease_due()
    if row is None:
        return False

    try:
        if row.undo:
            _take_back(client, row)
            reviews.forget(row)
        else:
            reviews.note(row, *_write(reviews, client, row))
    except BackendError as error:
        try:
            client.user()
        except BackendError:  # it fails at everything: no fault of this one
            reviews.postpone(row)
            raise
        reviews.note_trouble(row, str(error), is_refused=_is_refused(error))
    except BaseException:  # the database is away, or the process ends
        reviews.release(row)
        raise
    return True


def _is_refused(error: BackendError) -> bool:
    """Whether Label Studio finds fault with the request, rather than with itself."""
    return isinstance(error, StudioRefused) and 400 <= error.status < 500


def _take_back(client: LabelStudioClient, row: sa.Row[Any]) -> None:
    """Delete the annotation of a verdict, if there is one; what was changed since stays."""
    if row.annotation is not None:
        there = client.annotation(row.annotation)
    else:  # it may be there though nobody has noted it
        there = _find(client, row, client.contents(row.task))
    if there is not None and there.is_reviewed:
        client.delete_annotation(there.id)


def _write(
    reviews: ReviewStore, client: LabelStudioClient, row: sa.Row[Any]
) -> tuple[int | None, str]:
    """Write the annotation of a verdict; return its id, or why there is none."""
    found = client.contents(row.task)
    if found is None:
        return None, "The task is not there any more."

    ours = _find(client, row, found)
    if ours is not None:
        return ours.id, ""
    somebody = _who_was_faster(found)
    if somebody:
        return None, somebody

    prediction = _prediction(client, row, found)
    if prediction is None:
        return None, "Its prediction was deleted."

    try:
        result = _repaired(client, row, prediction)
    except (BadRequest, LabelConfigError) as error:
        return None, f"It cannot be repaired. {error} Correct it in the editor."
    if not reviews.begin(row):
        return None, ""  # and nothing is noted: the verdict is another one by now

    try:
        return client.write_review(row.task, prediction, row.seconds, result), ""
    except StudioRefused as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        ours = _find(client, row, client.contents(row.task))
        if ours is None:
            raise
        return ours.id, ""


def _who_was_faster(found: TaskContents) -> str:
    if found.annotations:
        return "It has an annotation since."
    return "Somebody has begun to annotate it." if found.drafts else ""


def _prediction(
    client: LabelStudioClient, row: sa.Row[Any], found: TaskContents
) -> PredictionRegions | None:
    """Return the prediction of a verdict; None where it is gone, or is not that task's."""
    prediction = client.prediction(row.prediction)
    return prediction if row.prediction in {each.id for each in found.predictions} else None


def _repaired(
    client: LabelStudioClient, row: sa.Row[Any], prediction: PredictionRegions
) -> list[dict[str, Any]] | None:
    """Return the regions of a prediction that was repaired; None where it is good as it is."""
    steps = msgspec.json.decode(row.repair, type=tuple[Step, ...])
    if not steps:
        return None
    return repair_regions(prediction.regions, steps, client.config(row.project))


def _find(
    client: LabelStudioClient, row: sa.Row[Any], found: TaskContents | None
) -> Annotation | None:
    """Return the annotation of a verdict that was written though nobody has noted it."""
    for each in found.annotations if found is not None else ():
        there = client.annotation(each.id) if each.prediction == row.prediction else None
        if there is not None and there.is_reviewed:
            return there
    return None
