"""Reads annotations that have changed, and compares each with the prediction that it began with.

What is read is what Label Studio has now; how often and in which order it has told of changes does
not matter. An annotation that cannot be read is kept as broken, with a sentence, and never stops
those behind it.

What counts as what:

- **compared**: it began with a prediction of a model version such as this backend writes.
- **scratch**: no prediction, no copy, and no region of it says that it came from a prediction.
- **copy**: of another annotation, whose work it was.
- **converted**: the prediction itself, as Label Studio makes annotations of predictions by the
  thousand: no time was measured, and nothing is changed. What a script has left as it was looks the
  same. Nobody has looked at it, so nothing is learned from it, until somebody changes it.
- **foreign**: the prediction has another model's version.
- **lost**: its regions came from a prediction that is not there any more.
- **skipped**: the task was passed over.

How an annotation began stays known, with its figures, where the prediction is deleted later.

Each annotation counts by itself, also where a task has several. Drafts are no annotations yet.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from backend.errors import BadRequest, ImageRefused, LabelConfigError, ModelUnavailable
from backend.feedback.annotation_store import (
    AnnotationOrigin,
    Annotations,
    PendingAnnotation,
    ReadAnnotation,
)
from backend.feedback.comparison import AnnotationDiff, CorrectionListener, compare
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation, PredictionRegions
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter

log = logging.getLogger(__name__)

#: Annotations that are leased at once.
_BATCH_SIZE: Final = 10

#: What `backend.prediction.model_version.ModelVersions` makes, with whatever may come behind it.
_OUR_VERSION: Final = re.compile(r"\S.* \S+ [0-9a-f]{8}\b.*", re.DOTALL)


def _never() -> bool:
    return False


class AnnotationReader:
    """Reads marked annotations through Label Studio's API.

    Args:
        annotations: the marks, and where it keeps what it has read.
        client: Label Studio.
        learner: is told of each annotation too; without one, each is left to be read once more by
            who has one.
    """

    def __init__(
        self,
        annotations: Annotations,
        client: LabelStudioClient,
        learner: CorrectionListener | None = None,
    ) -> None:
        self._annotations = annotations
        self._client = client
        self._learner = learner

    def mark_project(self, project: int, watch: Callable[[int], None] = lambda _: None) -> int:
        """Mark all annotations that a project has, and those that it had when they were read.

        Args:
            project: its id.
            watch: called with how many it has found so far.

        Returns:
            How many the project has.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        self._annotations.mark_all(project)
        count = 0
        for task in self._client.ids(project, TaskFilter(labeled=True)):
            found = self._client.annotation_ids(task)
            self._annotations.mark(project, found)
            count += len(found)
            watch(count)
        return count

    def mark_gone(self, project: int, annotations: Iterable[int]) -> None:
        """Mark, of annotations that were read, those whose task is gone or has none any more.

        Label Studio does not tell of all that it deletes.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        tasks = self._annotations.tasks(annotations)
        there = set(self._client.ids(project, TaskFilter(labeled=True), among=tasks))
        self._annotations.mark_tasks(project, set(tasks) - there)

    @property
    def now(self) -> float:
        """The time on the clock by which annotations are due."""
        return self._annotations.now

    def read_some(
        self,
        project: int | None = None,
        pause: Callable[[], bool] = _never,
        since: float | None = None,
    ) -> int:
        """Read some of the annotations that are marked; how many, 0 where there is none.

        Args:
            project: of this one only.
            pause: asked before each; where it says so, what is left is given back.
            since: only what was due at that time; by default what is due now.

        Raises:
            StudioRefused: the token may not see one of them.
            StudioUnreachable: Label Studio does not answer; they wait for a later time.
        """
        if pause():
            return 0
        untaught = self._learner is not None
        marks = self._annotations.take(_BATCH_SIZE, project, untaught, since)
        configs: dict[int, LabelConfig | str] = {}
        for number, mark in enumerate(marks):
            if number and pause():
                self._annotations.put_back(marks[number:])
                return number
            try:
                self._read(mark, configs)
            except BaseException:
                self._annotations.put_back(marks[number:], failed=mark)
                raise
        return len(marks)

    def _read(self, mark: PendingAnnotation, configs: dict[int, LabelConfig | str]) -> None:
        """Read one, let it be learned from, and take its mark away."""
        annotation = self._client.annotation(mark.annotation)
        task = None
        if annotation is not None:
            task = self._client.task(annotation.project, annotation.task)
        if annotation is None or task is None:
            taught = self._teach(mark.annotation, None)
            done = self._annotations.drop(mark, taught)
        else:
            read, corrected = self._compare(annotation, task, configs, mark.before)
            taught = self._teach(mark.annotation, corrected)
            done = self._annotations.settle(mark, read, taught)
            if not taught and self._learner is not None:
                self._annotations.postpone(mark)
        if not done:  # another has read it meanwhile: who of us was the last is not known
            self._annotations.mark(mark.project, [mark.annotation])

    def _teach(self, annotation: int, corrected: AnnotationDiff | None) -> bool:
        """Let it be learned from, or forgotten; False where somebody has to do so later."""
        if self._learner is None:
            return False
        if corrected is None or not any(picture.final for picture in corrected.pictures):
            self._learner.forget(annotation)
            return True
        try:
            self._learner.learn(corrected)
        except (ImageRefused, ModelUnavailable) as error:
            log.warning("Annotation %d is learned from later: %s", annotation, error)
            return False
        except SQLAlchemyError:
            raise
        except Exception:  # whatever a picture does to its decoder, those behind it are read
            log.exception("Annotation %d is learned from later", annotation)
            return False
        return True

    def _compare(
        self,
        annotation: Annotation,
        task: Task,
        configs: dict[int, LabelConfig | str],
        before: ReadAnnotation | None,
    ) -> tuple[ReadAnnotation, AnnotationDiff | None]:
        if annotation.skipped:
            return _row(annotation, "skipped"), None
        config = self._config(annotation.project, configs)
        if isinstance(config, str):
            return _row(annotation, "broken", reason=config), None
        kind, prediction = self._beginning(annotation)
        predicted = prediction.result if prediction else None
        try:
            pictures = compare(predicted, annotation.result, config, task)
        except BadRequest as error:
            log.warning("Annotation %d cannot be read: %s", annotation.id, error)
            return _row(annotation, "broken", reason=str(error)), None
        made = AnnotationDiff(
            annotation.id, annotation.project, task, config, pictures, annotation.updated
        )
        read = _remembered(_row(annotation, kind, prediction, made), before)
        return read, None if read.kind == "converted" else made

    def _config(self, project: int, configs: dict[int, LabelConfig | str]) -> LabelConfig | str:
        """A project's label config, asked for once a round; or why there is nothing to compare."""
        if project not in configs:
            try:
                configs[project] = parse_label_config(self._client.label_config(project))
            except LabelConfigError as error:
                configs[project] = str(error)
        return configs[project]

    def _beginning(
        self, annotation: Annotation
    ) -> tuple[AnnotationOrigin, PredictionRegions | None]:
        """How an annotation began, with the prediction where it can be compared with one."""
        if annotation.prediction is not None:
            prediction = self._client.prediction(annotation.prediction)
            if prediction is None:
                return "lost", None
            if annotation.seconds is None and list(annotation.result) == list(prediction.result):
                return "converted", None
            if not _OUR_VERSION.fullmatch(prediction.version):
                return "foreign", None
            return "compared", prediction
        if annotation.parent is not None:
            return "copy", None
        origins = {region.get("origin") for region in annotation.result if isinstance(region, dict)}
        if origins & {"prediction", "prediction-changed"}:
            return "lost", None
        return "scratch", None


def _row(
    annotation: Annotation,
    kind: AnnotationOrigin,
    prediction: PredictionRegions | None = None,
    corrected: AnnotationDiff | None = None,
    reason: str = "",
) -> ReadAnnotation:
    return ReadAnnotation(
        annotation=annotation.id,
        project=annotation.project,
        task=annotation.task,
        kind=kind,
        version=prediction.version if prediction else "",
        annotator=annotation.annotator,
        seconds=annotation.seconds,
        created=annotation.created,
        updated=annotation.updated,
        changes=corrected.changes if corrected else (),
        reason=reason,
    )


def _remembered(read: ReadAnnotation, before: ReadAnnotation | None) -> ReadAnnotation:
    """What was read; of one whose prediction is gone, what it was when that was there."""
    if before is None or read.kind not in ("lost", "scratch"):
        return read
    untouched = before.kind == "converted" and before.updated == read.updated
    if before.kind == "compared" or untouched:
        return replace(read, kind=before.kind, version=before.version, changes=before.changes)
    if before.kind in ("converted", "foreign", "lost"):
        kind: AnnotationOrigin = "foreign" if before.kind == "foreign" else "lost"
        return replace(read, kind=kind, changes=())
    return read


def read_all(
    reader: AnnotationReader, project: int, stopping: threading.Event, watch: Callable[[int], None]
) -> int:
    """Read all marked annotations of a project that no other reads; how many.

    Raises:
        StudioRefused: the token may not see one of them.
        StudioUnreachable: Label Studio does not answer.
    """
    count, since = 0, reader.now  # what fails meanwhile is for a later time
    while not stopping.is_set():
        some = reader.read_some(project, stopping.is_set, since)
        if not some:
            break
        count += some
        watch(count)
    return count
