"""Make views of the data manager that list given tasks."""

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
        ids = {
            "filter": "filter:tasks:id",
            "operator": "in_list",
            "type": "Number",
            "value": sorted(tasks),
        }
        data: dict[str, Any] = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "ordering": ["tasks:id"],
            "filters": {"conjunction": "and", "items": [ids]},
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
