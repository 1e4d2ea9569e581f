"""Which tasks of a project are asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskFilter:
    """Tasks of a project, by what Label Studio knows of them.

    Attributes:
        without_version: those without a prediction of this ``model_version``; None for all.
        with_version: those with one; None for all.
        unlabeled: those without an annotation only.
        labeled: those with one only.
        after_id: those with a greater id.
        ids: only these; None for all.
        min_predictions: those with at least so many predictions, of whatever version.
    """

    without_version: str | None = None
    with_version: str | None = None
    unlabeled: bool = False
    labeled: bool = False
    after_id: int = 0
    ids: tuple[int, ...] | None = None
    min_predictions: int = 0

    def query(self) -> str:
        """The data manager's own query, ordered by id.

        >>> TaskFilter(after_id=5).query()
        '{"ordering":["tasks:id"],"filters":{"conjunction":"and","items":\
[{"filter":"filter:tasks:id","operator":"greater","type":"Number","value":5}]}}'
        """
        items: list[dict[str, Any]] = []

        def keep(column: str, operator: str, kind: str, value: Any) -> None:
            name = f"filter:tasks:{column}"
            items.append({"filter": name, "operator": operator, "type": kind, "value": value})

        if self.after_id:
            keep("id", "greater", "Number", self.after_id)
        if self.without_version is not None:
            keep("predictions_model_versions", "not_contains", "List", [self.without_version])
        if self.with_version is not None:
            keep("predictions_model_versions", "contains", "List", [self.with_version])
        if self.unlabeled:
            keep("total_annotations", "equal", "Number", 0)
        if self.labeled:
            keep("total_annotations", "greater", "Number", 0)
        if self.min_predictions:
            keep("total_predictions", "greater_or_equal", "Number", self.min_predictions)
        query: dict[str, Any] = {"ordering": ["tasks:id"]}
        if items:
            query["filters"] = {"conjunction": "and", "items": items}
        if self.ids is not None:
            query["selectedItems"] = {"all": False, "included": list(self.ids)}
        return json.dumps(query, separators=(",", ":"))
