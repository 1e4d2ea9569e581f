"""Reads annotations that have changed, and compares each with the prediction that it began with.

The present state in Label Studio is read; the number and order of its messages do not matter. An
annotation that cannot be read, for whatever reason of its own, is kept as broken, with that reason,
and does not stop the next ones. Where Label Studio or the database is away, all wait.

The kinds of annotations:

- **compared**: it began with a prediction of a model version such as this backend writes.
- **unchecked**: such a one that was submitted without a change so soon that nobody can have looked.
- **scratch**: no prediction, no copy, and no region of it says that it came from a prediction.
- **copy**: it was made from another annotation.
- **converted**: the prediction itself, as Label Studio makes annotations of predictions in bulk: no
  time was measured, and nothing is changed. An annotation that a script made of a prediction looks
  alike. Nobody has checked it, so nothing is learned from it until somebody changes it.
- **reviewed**: a prediction that was accepted as it is on the review page; it counts apart, and
  nothing is learned from it until somebody changes it.
- **repaired**: a prediction whose labels or pieces were changed on the review page; the rest was
  accepted. It counts apart as well. What was changed is learned from as a correction, and the rest
  is what stands, as nobody has looked closer: see `backend.feedback.evidence`.
- **foreign**: the prediction has the version of another model.
- **lost**: its regions came from a prediction that is deleted by now.
- **skipped**: the annotator skipped the task.

The kind and the figures of an annotation stay where its prediction is deleted later.

Each annotation counts by itself, also where a task has several. Drafts do not count.
"""

import hashlib
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from sqlalchemy.exc import DataError, SQLAlchemyError

from backend.database.leases import MOST_DEATHS
from backend.errors import (
    BackendError,
    BadRequest,
    ImageRefused,
    ModelUnavailable,
    StudioRefused,
    StudioUnreachable,
    TaskDeadly,
    TaskNotServed,
)
from backend.feedback.annotation_store import AnnotationStore, PendingAnnotation
from backend.feedback.annotation_table import PRELABELLED, AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import AnnotationDiff, CorrectionListener, compare_annotation
from backend.label_studio.client import LabelStudioClient, TasksTogether
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import Annotation, PredictionRegions, WholeTask
from backend.label_studio.region_reader import count_regions
from backend.label_studio.requests import Task

log = logging.getLogger(__name__)

_Tasks = TasksTogether[WholeTask]
_AskConfig = Callable[[], LabelConfig]  # asks Label Studio once

_BATCH_SIZE: Final = 10  # annotations that are leased at once, their tasks asked for together

#: How old an answer may be, in seconds: a poll does not mark what changes while it is leased.
_FRESH_S: Final = 15.0

#: An annotation that is submitted sooner, in seconds, tells nothing of its masks.
_LOOKED_S: Final = 5.0

#: A version from `backend.prediction.predictor.ModelVersions`, with or without a suffix.
_OUR_VERSION: Final = re.compile(r"\S.* \S+ [0-9a-f]{8}\b.*", re.DOTALL)
#: The most letters of a version of ours: PostgreSQL cannot index much longer texts.
_LONGEST_VERSION: Final = 500


class AnnotationReader:
    """Reads annotations that are marked as changed, through Label Studio's API.

    It has the learner learn from each. Without one, each is left to be read once more by a reader
    that has one.
    """

    def __init__(
        self,
        annotations: AnnotationStore,
        client: LabelStudioClient,
        learner: CorrectionListener | None = None,
    ) -> None:
        self._annotations = annotations
        self._client = client
        self._learner = learner

    def read_all(self, project: int, halt: threading.Event, watch: Callable[[int], None]) -> int:
        """Read all annotations of a project that are due; return how many."""
        count, since = 0, self._annotations.now  # an annotation that fails is not read again here
        while not halt.is_set():
            some = self.read_some(project, halt.is_set, since)
            if not some:
                break
            count += some
            watch(count)
        return count

    def read_some(
        self,
        project: int | None = None,
        pause: Callable[[], bool] = lambda: False,
        since: float | None = None,
    ) -> int:
        """Read a batch of the annotations that are due, see `AnnotationStore.lease`.

        Before each, `pause` is asked: where it returns True, the rest is given back. Return how
        many were read; 0 where nothing is due.
        """
        if pause():
            return 0
        unlearned = self._learner is not None
        batch = self._annotations.lease(_BATCH_SIZE, project, unlearned, since)
        ask_config = cache(lambda: self._client.config(batch[0].project))
        asked = -math.inf
        for number, pending in enumerate(batch):
            if number and pause():
                self._annotations.release(batch[number:])
                return number
            if time.monotonic() - asked > _FRESH_S:
                asked, ids = time.monotonic(), [each.task for each in batch[number:] if each.task]
                tasks = TasksTogether(self._client, pending.project, ids, WholeTask)
            try:
                self._read(pending, tasks, ask_config)
            except BaseException:
                self._annotations.release(batch[number:], failed=pending)
                raise
        return len(batch)

    def _read(self, pending: PendingAnnotation, tasks: _Tasks, ask_config: _AskConfig) -> None:
        may_pass = False
        if pending.is_deadly:
            self._annotations.complete(pending, _broken(pending, _deadly(pending)))
            return

        try:
            read, diff = self._look_up(pending, tasks, ask_config)
        except Exception as error:  # noqa: BLE001 -- `_reason` raises an outage again
            read, diff = _broken(pending, error), None
            may_pass = isinstance(error, TaskNotServed)
        learned = not may_pass and self._learn(pending.annotation, diff)
        retry = self._learner is not None and not learned
        try:
            self._annotations.complete(pending, read, learned, retry)
        except Exception as error:  # noqa: BLE001 -- the database has no place for it
            self._annotations.complete(pending, _broken(pending, error), learned, retry)

    def _look_up(
        self, pending: PendingAnnotation, tasks: _Tasks, ask_config: _AskConfig
    ) -> tuple[ReadAnnotation | None, AnnotationDiff | None]:
        """Return what Label Studio has of an annotation; None where it or its task is gone."""
        found = None if pending.task else self._client.annotation(pending.annotation)
        id_ = found.task if found else pending.task
        try:
            task = tasks.take(id_) if id_ else None
        except BadRequest:  # as by another annotation of it
            task = self._alone(pending, id_)
        if task is None:
            return None, None
        its = [each for each in task.annotations if each.id == pending.annotation]
        if not its:
            return None, None
        (annotation,) = its
        try:
            return _compare(annotation, task, ask_config, pending.before)
        except Exception as error:  # noqa: BLE001 -- `_reason` raises an outage again
            reason = _reason(pending.annotation, error)
            return _read_annotation(annotation, "broken", reason=reason), None

    def _alone(self, pending: PendingAnnotation, id_: int) -> WholeTask | None:
        """Return a task, that is not served as a whole, with this annotation alone."""
        annotation = self._client.annotation(pending.annotation)
        task = self._client.task(pending.project, id_)
        if annotation is None or task is None:
            return None
        began = annotation.prediction
        prediction = None if began is None else self._client.prediction(began)
        return WholeTask(id_, dict(task.data), [annotation], [prediction] if prediction else [])

    def _learn(self, annotation: int, diff: AnnotationDiff | None) -> bool:
        """Have an annotation learned from or forgotten; False where that is to be done later."""
        if self._learner is None:
            return False
        if diff is None or not any(image.has_regions for image in diff.images):
            self._learner.forget(annotation)
            return True
        try:
            self._learner.learn(diff)
        except (ImageRefused, ModelUnavailable) as error:
            log.warning("Annotation %d is learned from later: %s", annotation, error)
            return False
        except SQLAlchemyError:
            raise
        except Exception:  # a broken image must not stop the annotations behind it
            log.exception("Annotation %d is learned from later", annotation)
            return False
        return True


def _compare(
    annotation: Annotation, whole: WholeTask, ask_config: _AskConfig, before: ReadAnnotation | None
) -> tuple[ReadAnnotation, AnnotationDiff | None]:
    if annotation.skipped:
        return _read_annotation(annotation, "skipped"), None
    if annotation.is_reviewed and not _is_repaired(annotation, whole.predictions):
        return _read_annotation(annotation, "reviewed"), None

    config = ask_config()
    kind, prediction = _origin(annotation, whole.predictions)
    predicted = prediction.regions if prediction else None
    images = compare_annotation(predicted, annotation.result, config)
    task = Task(whole.id, annotation.project, whole.data)
    diff = AnnotationDiff(
        annotation=annotation.id,
        project=annotation.project,
        task=task,
        config=config,
        images=images,
        updated=annotation.updated,
        annotator=annotator_key(annotation.annotator),
    )
    read = _keep_origin(_read_annotation(annotation, kind, prediction, diff), before)

    if annotation.is_reviewed:
        return replace(read, kind="repaired"), diff
    if read.kind == "converted":
        return read, None
    if _is_unchecked(read):
        return replace(read, kind="unchecked"), diff
    return read, diff


def _is_unchecked(read: ReadAnnotation) -> bool:
    """Return whether a prediction was taken over as it is, and faster than anybody looks at it."""
    was_quick = (read.seconds or _LOOKED_S) < _LOOKED_S
    return read.kind == "compared" and was_quick and _is_unchanged(read)


def _is_unchanged(read: ReadAnnotation) -> bool:
    """Return whether an annotation is the prediction that it began with, to the pixel."""
    return bool(read.changes) and all(
        change.iou in (1, None) and not change.redrawn_px for change in read.changes
    )


def _is_repaired(annotation: Annotation, predictions: Sequence[PredictionRegions]) -> bool:
    """Whether a review has repaired its prediction; one that lost all regions has no mark."""
    its = (each for each in predictions if each.id == annotation.prediction)
    return annotation.is_repaired or (not annotation.result and any(each.regions for each in its))


def _origin(
    annotation: Annotation, predictions: Sequence[PredictionRegions]
) -> tuple[AnnotationOrigin, PredictionRegions | None]:
    if annotation.prediction is not None:
        return _origin_in(annotation, predictions)
    if annotation.parent is not None:
        return "copy", None
    origins = {region.get("origin") for region in annotation.result if isinstance(region, dict)}
    if origins & {"prediction", "prediction-changed"}:
        return "lost", None
    return "scratch", None


def _origin_in(
    annotation: Annotation, predictions: Sequence[PredictionRegions]
) -> tuple[AnnotationOrigin, PredictionRegions | None]:
    """Return the origin of an annotation that says which prediction it began with."""
    prediction = next((one for one in predictions if one.id == annotation.prediction), None)
    if prediction is None:
        return "lost", None
    if annotation.seconds is None and list(annotation.result) == list(prediction.regions):
        return "converted", None
    if not is_ours(prediction.version):
        return "foreign", None
    return "compared", prediction


def is_ours(version: str) -> bool:
    """Return whether a ``model_version`` is such as this backend writes."""
    return len(version) <= _LONGEST_VERSION and _OUR_VERSION.fullmatch(version) is not None


def _read_annotation(
    annotation: Annotation,
    kind: AnnotationOrigin,
    prediction: PredictionRegions | None = None,
    diff: AnnotationDiff | None = None,
    reason: str = "",
) -> ReadAnnotation:
    return ReadAnnotation(
        annotation=annotation.id,
        project=annotation.project,
        task=annotation.task,
        kind=kind,
        version=prediction.version if prediction else "",
        predicted=prediction.created if prediction else 0.0,
        annotator=annotation.annotator,
        seconds=annotation.seconds,
        created=annotation.created,
        updated=annotation.updated,
        changes=diff.changes if diff else (),
        reason=reason,
        regions={} if annotation.skipped else count_regions(annotation.result),
    )


def annotator_key(user: int | None) -> str:
    """Return the key by which an annotator's work is told apart; it names nobody."""
    return "" if user is None else hashlib.sha256(f"annotator {user}".encode()).hexdigest()[:12]


def _broken(pending: PendingAnnotation, error: Exception) -> ReadAnnotation:
    """Return what is known of an annotation where an error hides all that it says itself."""
    return ReadAnnotation(
        annotation=pending.annotation,
        project=pending.project,
        task=pending.task,
        kind="broken",
        reason=_reason(pending.annotation, error),
    )


def _deadly(pending: PendingAnnotation) -> TaskDeadly:
    return TaskDeadly(
        f"The backend has ended {MOST_DEATHS} times while it read annotation {pending.annotation} "
        f"of task {pending.task}: its picture may need more memory than there is. Change the "
        "annotation to have it read once more."
    )


def _reason(annotation: int, error: Exception) -> str:
    """Say and log why an annotation cannot be read; raise an outage again."""
    is_outage = isinstance(error, StudioRefused | StudioUnreachable | SQLAlchemyError)
    if is_outage and not isinstance(error, DataError):
        raise error
    if isinstance(error, BackendError):
        log.warning("Annotation %d cannot be read: %s", annotation, error)
        return str(error)
    log.error("Annotation %d cannot be read", annotation, exc_info=error)
    return f"Unexpected {type(error).__name__}: see the backend's log."


def _keep_origin(read: ReadAnnotation, before: ReadAnnotation | None) -> ReadAnnotation:
    """Return what was read, with the earlier kind and changes where the prediction is gone."""
    if before is None or read.kind not in ("lost", "scratch"):
        return read
    untouched = before.kind == "converted" and before.updated == read.updated
    if before.kind in PRELABELLED or untouched:
        names = "kind", "version", "predicted", "changes"
        return replace(read, **{name: getattr(before, name) for name in names})
    if before.kind in ("converted", "foreign", "lost"):
        kind: AnnotationOrigin = "foreign" if before.kind == "foreign" else "lost"
        return replace(read, kind=kind, changes=())
    return read
