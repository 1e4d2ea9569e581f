"""Select tasks of a project."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"  # times in filters of the data manager, in UTC

#: Conditions of a view. Label Studio on SQLite takes no more than 1000 at once, and its page shows
#: each of them as a filter.
_MOST_CONDITIONS: Final = 500


#: One condition of a query.
_Item = dict[str, Any]


def _item(column: str, operator: str, kind: str, value: Any) -> _Item:
    name = f"filter:tasks:{column}"
    return {"filter": name, "operator": operator, "type": kind, "value": value}


@dataclass(frozen=True)
class TaskFilter:
    """Conditions on the tasks of a project: a task meets all of them. None and 0 ask nothing."""

    without_version: str | None = None  # has no prediction of this ``model_version``
    with_version: str | None = None  # has a prediction of this ``model_version``
    labeled: bool | None = None  # whether it has an annotation
    done: bool | None = None  # whether Label Studio takes it for finished: it has all that it needs
    skipped: bool | None = None
    drafted: bool | None = None  # whether it has a draft, of any annotator
    predicted: bool | None = None  # whether it has a prediction, of any version
    after_id: int = 0  # comes after the task of this id in the order of ids
    ids: tuple[int, ...] | None = None
    min_predictions: int = 0  # of any version
    min_annotations: int = 0  # skips do not count
    changed_after: float | None = None  # seconds, on Label Studio's clock
    annotation_ids: bool = False  # has an annotation; also has Label Studio name them
    order: str = ""  # a column of the data manager such as "-tasks:updated_at"; else by id
    descending: bool = False  # no condition; lists tasks by descending id

    def query(self) -> str:
        """Return the query of the data manager that lists the tasks, by ascending id by default.

        >>> TaskFilter(after_id=5).query()
        '{"ordering":["tasks:id"],"filters":{"conjunction":"and","items":\
[{"filter":"filter:tasks:id","operator":"greater","type":"Number","value":5}]}}'
        """
        items = [*self._by_number(), *self._by_version(), *self._by_state()]
        order = self.order or ("-tasks:id" if self.descending else "tasks:id")
        query: dict[str, Any] = {"ordering": [order]}
        if items:
            query["filters"] = {"conjunction": "and", "items": items}
        if self.ids is not None:
            query["selectedItems"] = {"all": False, "included": list(self.ids)}
        return json.dumps(query, separators=(",", ":"))

    def _by_number(self) -> Iterator[_Item]:
        if self.after_id:
            operator = "less" if self.descending else "greater"
            yield _item("id", operator, "Number", self.after_id)
        if self.min_predictions:
            yield _item("total_predictions", "greater_or_equal", "Number", self.min_predictions)
        if self.min_annotations:
            yield _item("total_annotations", "greater_or_equal", "Number", self.min_annotations)

    def _by_version(self) -> Iterator[_Item]:
        if self.without_version is not None:
            versions = [self.without_version]
            yield _item("predictions_model_versions", "not_contains", "List", versions)
        if self.with_version is not None:
            yield _item("predictions_model_versions", "contains", "List", [self.with_version])

    def _by_state(self) -> Iterator[_Item]:
        counts = {
            "total_annotations": self.labeled,
            "cancelled_annotations": self.skipped,
            "total_predictions": self.predicted,
        }
        for column, has_some in counts.items():
            if has_some is not None:
                yield _item(column, "greater" if has_some else "equal", "Number", 0)

        if self.done is not None:
            yield _item("completed_at", "empty", "Datetime", not self.done)
        if self.drafted is not None:
            yield _item("draft_exists", "equal", "Boolean", self.drafted)
        if self.annotation_ids:
            yield _item("annotations_ids", "empty", "List", False)
        if self.changed_after is not None:
            time = datetime.fromtimestamp(max(0.0, self.changed_after), timezone.utc)
            yield _item("updated_at", "greater", "Datetime", time.strftime(_TIME))


#: The tasks that are still to be annotated: none has an annotation, and nobody has skipped it.
OPEN: Final = TaskFilter(labeled=False, skipped=False)


def is_any_of(tasks: Collection[int]) -> list[dict[str, Any]]:
    """Return conditions of a view that shows some tasks alone: each of them meets one condition.

    The API has the operator "in_list" for this, but the page of Label Studio 1.23.2 does not know
    it: with one such view, no task list of the project opens any more.
    """
    column = {"filter": "filter:tasks:id", "type": "Number"}
    conditions = [
        column | {"operator": "equal", "value": first}
        if first == last
        else column | {"operator": "in", "value": {"min": first, "max": last}}
        for first, last in _ranges(tasks)[:_MOST_CONDITIONS]
    ]
    # No condition would list all tasks.
    return conditions or [column | {"operator": "equal", "value": 0}]


def _ranges(ids: Collection[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of ids that follow each other.

    >>> _ranges([9, 3, 4, 5])
    [(3, 5), (9, 9)]
    """
    found: list[tuple[int, int]] = []
    for number in sorted(set(ids)):
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found
