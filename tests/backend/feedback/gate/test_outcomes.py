"""What counts as a change, by region, label and task."""

from __future__ import annotations

import pytest

from backend.feedback.comparison import LabelDiff
from backend.feedback.gate.outcomes import needed_change, task_outcomes
from backend.feedback.read_annotation import ReadAnnotation

KEPT = LabelDiff("car", accepted=1, predicted_px=9, true_px=9, shared_px=9, score=0.8)


def read(annotation: int, task: int, *changes: LabelDiff) -> ReadAnnotation:
    return ReadAnnotation(annotation, 7, task, "compared", "v", changes=changes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (KEPT, False),
        (LabelDiff("car", corrected=1, predicted_px=100, true_px=100, shared_px=95), False),
        (LabelDiff("car", corrected=1, predicted_px=100, true_px=100, shared_px=94), True),
        (LabelDiff("car", deleted=1, predicted_px=9), True),
        (LabelDiff("car", relabelled={"van": 1}, predicted_px=9), True),
        (LabelDiff("car", received=1, true_px=9), True),
        (LabelDiff("car", added=1, true_px=9), True),
        (LabelDiff("car", accepted=1, added=1, predicted_px=99, true_px=100, shared_px=99), True),
        (LabelDiff("car", corrected=1, predicted_px=9), True),
    ],
)
def test_a_label_needs_a_change(change: LabelDiff, expected: bool) -> None:
    """95 of 105 px are an IoU of 0.905, and 94 of 106 px one of 0.887."""
    assert needed_change(change) is expected


def test_a_thing_that_the_prediction_missed_is_a_change_of_its_task() -> None:
    missed = LabelDiff("dog", added=1, true_px=4)
    (found,), unscored = task_outcomes([read(1, 3, KEPT, missed)])
    assert found.scores == {"car": 0.8}
    assert found.changed == {"dog"}
    assert unscored == 0


def test_of_several_annotations_one_change_counts_and_the_task_counts_once() -> None:
    changed = LabelDiff("car", deleted=1, predicted_px=9, score=0.8)
    (found,), _ = task_outcomes([read(1, 3, KEPT), read(2, 3, changed), read(4, 3, KEPT)])
    assert found.annotations == (1, 2, 4)
    assert found.changed == {"car"}


def test_of_several_pictures_the_lowest_score_counts() -> None:
    second = LabelDiff(
        "car", accepted=1, predicted_px=4, true_px=4, shared_px=4, image=1, score=0.3
    )
    (found,), _ = task_outcomes([read(1, 3, KEPT, second)])
    assert found.scores == {"car": 0.3}


def test_a_task_that_was_read_before_scores_were_kept_is_left_out_and_counted() -> None:
    old = LabelDiff("car", accepted=1, predicted_px=9, true_px=9, shared_px=9)
    found, unscored = task_outcomes([read(1, 3, old), read(2, 4, KEPT)])
    assert [each.task for each in found] == [4]
    assert unscored == 1
