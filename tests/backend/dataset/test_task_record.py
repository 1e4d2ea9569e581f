"""Tasks of exported files."""

from __future__ import annotations

from backend.dataset.tasks import read_exported_task


def test_people_and_predictions_are_read_in_every_form() -> None:
    began = {"id": 8, "model_version": "clip 8", "result": []}
    read = read_exported_task(
        {
            "id": 3,
            "data": {"image": "a"},
            "annotations": [
                {"id": 1, "completed_by": {"id": 4, "email": "x"}, "prediction": began},
                {"id": 2, "completed_by": 5, "parent_prediction": 9, "ground_truth": True},
                {"id": 6, "was_cancelled": True, "updated_at": "2026-01-01T00:00:10.5Z"},
            ],
            "predictions": [7, {"id": 9, "model_version": "clip 9"}, {"result": [{}]}],
        }
    )
    first, second, third = read.annotations
    assert (first.annotator, read.version_of(first.prediction)) == (4, "clip 8")
    assert (second.annotator, read.version_of(second.prediction)) == (5, "clip 9")
    assert second.ground_truth
    assert third.skipped
    assert third.updated == 1767225610.5
    assert [each.id for each in read.predictions] == [0, 8, 9]
