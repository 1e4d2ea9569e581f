"""Show the most disputed tasks as a view of Label Studio's data manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from backend.errors import BadRequest

if TYPE_CHECKING:
    from backend.agreement.agreement_report import AgreementReport
    from backend.label_studio.client import LabelStudioClient

#: Title of the view.
VIEW_TITLE: Final = "Disputed"


def make_view(client: LabelStudioClient, project: int, report: AgreementReport) -> None:
    """Make a view of the listed tasks, in place of the last one.

    Raises:
        BadRequest: no task is in dispute.
        StudioRefused: the token may not make views there.
        StudioUnreachable: Label Studio does not answer.
    """
    if not report.disputes:
        raise BadRequest("Nothing is in dispute: there is nothing to make a view of.")
    client.views.show(project, VIEW_TITLE, {each.task for each in report.disputes})
