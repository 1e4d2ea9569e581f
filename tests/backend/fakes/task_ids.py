"""Which tasks a view of Label Studio's data manager lists."""

from __future__ import annotations

from typing import Any


def task_ids_of(view: dict[str, Any]) -> set[int]:
    """Return the ids that the conditions of a view list: single ones, and ranges with both ends."""
    listed: set[int] = set()
    for condition in view["filters"]["items"]:
        assert condition["filter"] == "filter:tasks:id"
        value = condition["value"]
        if condition["operator"] == "equal":
            listed.add(value)
        else:
            assert condition["operator"] == "in"
            listed.update(range(value["min"], value["max"] + 1))
    return listed
