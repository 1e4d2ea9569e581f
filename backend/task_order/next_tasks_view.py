"""Show the tasks that were chosen as a view of Label Studio's data manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backend.errors import BadRequest

if TYPE_CHECKING:
    from backend.label_studio.client import LabelStudioClient
    from backend.task_order.next_tasks import NextTasks

#: Title of the view.
VIEW_TITLE: Final = "Next tasks"


def make_view(client: LabelStudioClient, project: int, report: NextTasks) -> None:
    """Make a view of the tasks, in place of the last one.

    Raises:
        BadRequest: there is no task.
        StudioRefused: the token may not make views there.
        StudioUnreachable: Label Studio does not answer.
    """
    if not report.tasks:
        raise BadRequest("No task was found: there is nothing to make a view of.")
    client.views.show(project, VIEW_TITLE, {each.task for each in report.tasks})
