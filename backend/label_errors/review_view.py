"""Show what is suspicious as a view of Label Studio's data manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backend.errors import BadRequest

if TYPE_CHECKING:
    from backend.label_errors.review_report import ReviewReport
    from backend.label_studio.client import LabelStudioClient

#: Title of the view.
VIEW_TITLE: Final = "Label errors"


def make_view(client: LabelStudioClient, project: int, report: ReviewReport) -> None:
    """Make a view of the tasks of suspicious annotations, in place of the last one.

    Raises:
        BadRequest: nothing is suspicious.
        StudioRefused: the token may not make views there.
        StudioUnreachable: Label Studio does not answer.
    """
    if not report.suspicions:
        raise BadRequest("Nothing is suspicious: there is nothing to make a view of.")
    annotations = {each.annotation for each in report.suspicions}
    client.views.show_annotations(project, VIEW_TITLE, annotations)
