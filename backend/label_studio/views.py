"""Make views of the data manager that list given tasks, or the tasks of given annotations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from backend.label_studio.connection import Connection
from backend.label_studio.records import ViewRow

#: Conditions of a view. Label Studio on SQLite takes no more than 1000 at once, and its page shows
#: each of them as a filter.
MOST_CONDITIONS: Final = 500


class TaskViews:
    """Makes views of the data manager of one Label Studio."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def show(self, project: int, title: str, tasks: Collection[int]) -> int:
        """Make a view that lists some tasks, in place of the view of that title.

        Args:
            tasks: ids of the tasks. Ids that follow each other take one condition together; of a
                list with more than `MOST_CONDITIONS`, the first ids are shown.

        Returns:
            The id of the view.
        """
        # The API has the operator "in_list" for this, but the page of Label Studio 1.23.2 does not
        # know it: with one such view, no task list of the project opens any more.
        return self._show(project, title, _is_any_of(tasks))

    def show_annotations(self, project: int, title: str, annotations: Collection[int]) -> int:
        """Make a view that lists the tasks of some annotations, in place of the view of that title.

        Args:
            annotations: ids of the annotations.

        Returns:
            The id of the view.
        """
        ids = ",".join(map(str, sorted(annotations)))
        condition = _condition("annotations_ids", "contains", "String", ids)
        return self._show(project, title, [condition])

    def _show(self, project: int, title: str, conditions: list[dict[str, Any]]) -> int:
        """Make a view, or change the one of that title: its tasks meet one of the conditions.

        Other views that "in_list" filters are changed, too: see `show`.
        """
        data: dict[str, Any] = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "ordering": ["tasks:id"],
            "filters": {"conjunction": "or", "items": conditions},
        }

        def attempt() -> int:
            """List first, so that a view whose answer was lost is not made twice."""
            send, place = self._connection.send, "/api/dm/views/"
            found = send("GET", place, list[ViewRow], project=project)

            def update(view: int, data: dict[str, Any]) -> None:
                body = {"project": project, "data": data}
                send("PATCH", f"{place}{view}/", ViewRow, body)

            same = [each.id for each in found if (each.data or {}).get("title") == title]
            for each in found:
                if each.id not in same[:1] and (tasks := _listed(each.data or {})) is not None:
                    filters = {"conjunction": "or", "items": _is_any_of(tasks)}
                    update(each.id, {**(each.data or {}), "filters": filters})
            if same:
                update(same[0], data)
                return same[0]
            return send("POST", place, ViewRow, {"project": project, "data": data}).id

        return self._connection.repeat(attempt)


def _condition(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}",
        "operator": operator,
        "type": kind,
        "value": value,
    }


def _is_any_of(tasks: Collection[int]) -> list[dict[str, Any]]:
    """Return conditions of which each task meets one, and no other task any."""
    conditions = [
        _condition("id", "equal", "Number", first)
        if first == last
        else _condition("id", "in", "Number", {"min": first, "max": last})
        for first, last in _ranges(tasks)[:MOST_CONDITIONS]
    ]
    # No condition would list all tasks.
    return conditions or [_condition("id", "equal", "Number", 0)]


def _listed(data: Mapping[str, Any]) -> list[int] | None:
    """Return the tasks of a view that has "in_list" for its one filter; None for another view."""
    items = (data.get("filters") or {}).get("items") or []
    if len(items) != 1 or items[0].get("filter") != "filter:tasks:id":
        return None
    value = items[0].get("value")
    if items[0].get("operator") != "in_list" or not isinstance(value, list):
        return None
    return value if all(isinstance(each, int) for each in value) else None


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
