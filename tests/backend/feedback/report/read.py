"""A report of what was read."""

from datetime import datetime, timezone
from typing import Any

from backend.feedback.annotation_table import AnnotationOrigin, ReadAnnotation
from backend.feedback.comparison import LabelDiff

MONDAY = datetime(2026, 11, 23, 12, tzinfo=timezone.utc).timestamp()

DAY = 86400.0


def read(
    annotation: int,
    *changes: LabelDiff,
    kind: AnnotationOrigin = "compared",
    day: float = 0,
    **more: Any,
) -> ReadAnnotation:
    created = MONDAY + DAY * day
    return ReadAnnotation(annotation, 7, annotation, kind, created=created, changes=changes, **more)


#: 10 px: 6 were hit, 2 beside, so IoU 6/12, and 6 px of work instead of 10.
CAR = LabelDiff("car", corrected=1, predicted_px=8, true_px=10, shared_px=6)

SAME = LabelDiff("car", accepted=1, predicted_px=20, true_px=20, shared_px=20)

FALSE = LabelDiff("dog", deleted=1, predicted_px=30)

OTHER = LabelDiff("dog", relabelled={"cat": 1}, predicted_px=5)

CAT = LabelDiff("cat", received=1, true_px=5)
