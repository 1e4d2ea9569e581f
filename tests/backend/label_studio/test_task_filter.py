"""Queries as the data manager of Label Studio 1.23 takes them."""

from __future__ import annotations

import json

from backend.label_studio.task_filter import TaskFilter


def test_every_condition_is_in_the_query() -> None:
    counts = {"min_predictions": 2, "min_annotations": 3, "scored": True}
    wanted = TaskFilter("v2", "v1", True, True, True, True, after_id=5, ids=(7, 8), **counts)  # type: ignore[arg-type]
    query = json.loads(wanted.query())
    assert query["selectedItems"] == {"all": False, "included": [7, 8]}
    assert query["filters"]["conjunction"] == "and"
    assert [tuple(item.values()) for item in query["filters"]["items"]] == [
        ("filter:tasks:id", "greater", "Number", 5),
        ("filter:tasks:predictions_model_versions", "not_contains", "List", ["v2"]),
        ("filter:tasks:predictions_model_versions", "contains", "List", ["v1"]),
        ("filter:tasks:total_annotations", "equal", "Number", 0),
        ("filter:tasks:total_annotations", "greater", "Number", 0),
        ("filter:tasks:draft_exists", "equal", "Boolean", True),
        ("filter:tasks:draft_exists", "equal", "Boolean", False),
        ("filter:tasks:total_predictions", "greater_or_equal", "Number", 2),
        ("filter:tasks:total_annotations", "greater_or_equal", "Number", 3),
        ("filter:tasks:predictions_score", "greater_or_equal", "Number", 0),
    ]


def test_an_empty_list_of_ids_stays_one() -> None:
    assert json.loads(TaskFilter(ids=()).query())["selectedItems"]["included"] == []
