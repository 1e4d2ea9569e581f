"""Make views of the data manager that list given tasks, or the tasks of given annotations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backend.label_studio.connection import NO_RETRIES, Connection


class TaskViews:
    """Makes views of the data manager of one Label Studio.

    Args:
        connection: calls the API.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def show(self, project: int, title: str, tasks: Collection[int]) -> int:
        """Make a view that lists some tasks, in place of the view of that title.

        Args:
            project: id of the project.
            title: title of the view.
            tasks: ids of the tasks.

        Returns:
            The id of the view.

        Raises:
            StudioRefused: the token may not make views there.
            StudioUnreachable: Label Studio does not answer.
        """
        ids = sorted(tasks)
        return self._show(project, title, "filter:tasks:id", "in_list", "Number", ids)

    def show_annotations(self, project: int, title: str, annotations: Collection[int]) -> int:
        """Make a view that lists the tasks of some annotations, in place of the view of that title.

        Args:
            project: id of the project.
            title: title of the view.
            annotations: ids of the annotations.

        Returns:
            The id of the view.

        Raises:
            StudioRefused: the token may not make views there.
            StudioUnreachable: Label Studio does not answer.
        """
        ids = ",".join(map(str, sorted(annotations)))
        column = "filter:tasks:annotations_ids"
        return self._show(project, title, column, "contains", "String", ids)

    def _show(
        self, project: int, title: str, column: str, operator: str, kind: str, value: Any
    ) -> int:
        """Make a view, or change the one of that title, with a filter on one column."""
        shown = {"filter": column, "operator": operator, "type": kind, "value": value}
        data: dict[str, Any] = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "ordering": ["tasks:id"],
            "filters": {"conjunction": "and", "items": [shown]},
        }

        def attempt() -> int:
            """List first, so that a view whose answer was lost is not made twice."""
            views = self._connection.sdk.views
            found = views.list(project=project, request_options=NO_RETRIES)
            same = [each.id for each in found if (each.data or {}).get("title") == title]
            if same:
                given = {"project": project, "data": data, "request_options": NO_RETRIES}
                return int(views.update(str(same[0]), **given).id)
            return int(views.create(project=project, data=data, request_options=NO_RETRIES).id)

        return self._connection.repeat(attempt)
