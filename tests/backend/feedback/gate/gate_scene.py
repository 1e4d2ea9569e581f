"""A project of which some tasks are corrected, and others are to pass the gate."""

from __future__ import annotations

from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.comparison import LabelDiff
from backend.feedback.gate.audit import is_audited
from backend.feedback.read_annotation import ReadAnnotation
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import FakeStudio
from tests.backend.feedback.test_annotation_reader import region

VERSION = "demo clearclip 12ab34cd"

#: Tasks that nobody has annotated, and from which number on their red is not sure enough.
FIRST, UNSURE, LAST = 1001, 1081, 1100

AUDIT_SHARE = 0.2
PASSING = set(range(FIRST, UNSURE))
AUDITED = {task for task in PASSING if is_audited(task, AUDIT_SHARE)}


def unannotated_studio() -> FakeStudio:
    """The tasks from `FIRST` on, each with a red region."""
    studio = FakeStudio(brush_config("red", "blue"), {})
    for task in range(FIRST, LAST + 1):
        studio.tasks[task] = {"image": "a.png"}
        score = 0.9 if task < UNSURE else 0.2
        studio.add(task, VERSION, result=[region("a", "red", 4, score=score)])
    return studio


def correct(
    annotations: AnnotationStore,
    task: int,
    score: float | None,
    kept: bool,
    created: float = 1.0,
    version: str = VERSION,
) -> None:
    """Let an annotation be read whose red region was kept or deleted."""
    _read(annotations, {task: (_change(score, kept), created)}, version)


def correct_many(annotations: AnnotationStore) -> None:
    """Let 400 tasks be corrected: red above 0.8 is right, and below 0.4 wrong."""
    changes = {
        task: (_change(0.8 + task / 4000, True) if task % 2 == 0 else _change(0.3, False), 1.0)
        for task in range(1, 401)
    }
    _read(annotations, changes)


def _change(score: float | None, kept: bool) -> LabelDiff:
    if kept:
        return LabelDiff("red", accepted=1, predicted_px=9, true_px=9, shared_px=9, score=score)
    return LabelDiff("red", deleted=1, predicted_px=9, score=score)


def _read(
    annotations: AnnotationStore,
    changes: dict[int, tuple[LabelDiff, float]],
    version: str = VERSION,
) -> None:
    """Let the annotations of tasks be read: their change, and when they were made."""
    first = 1_000_000  # beyond those that the stand-in counts
    annotations.mark(7, [first + task for task in changes])
    for pending in annotations.lease(len(changes)):
        task = pending.annotation - first
        change, created = changes[task]
        read = ReadAnnotation(
            pending.annotation, 7, task, "compared", version, created=created, changes=(change,)
        )
        assert annotations.complete(pending, read)
