"""What a run says of a data set."""

from __future__ import annotations

from backend.dataset.dataset_report import DatasetReport


def test_parts_without_a_picture_are_told() -> None:
    report = DatasetReport({"train": 7, "val": 0, "test": 0}, 21, 7, 3, [])
    assert "No picture is in val and test" in str(report)
    assert "No picture is in" not in str(DatasetReport({"train": 7, "val": 2}, 21, 9, 3, []))
    assert "No picture is in" not in str(DatasetReport({"train": 0, "val": 0}, 0, 9, 3, []))
