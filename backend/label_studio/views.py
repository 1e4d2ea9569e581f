"""Make views of the data manager."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from backend.label_studio.connection import NO_RETRIES, Connection

#: The column that lists the ids of a task's annotations.
_ANNOTATION_IDS: Final = "filter:tasks:annotations_ids"


class ViewWriter:
    """Makes views of the data manager of one Label Studio.

    Args:
        connection: calls the API.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def show_annotations(self, project: int, title: str, annotations: Collection[int]) -> int:
        """Make a view that lists the tasks of some annotations, in place of one of that title.

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
        shown = {
            "filter": _ANNOTATION_IDS,
            "operator": "contains",
            "type": "String",
            "value": ids,
        }
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
                given = {"project": project, "data": data}
                return int(views.update(str(same[0]), **given, request_options=NO_RETRIES).id)
            return int(views.create(project=project, data=data, request_options=NO_RETRIES).id)

        return self._connection.repeat(attempt)
