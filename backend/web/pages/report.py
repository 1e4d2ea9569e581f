"""Serve the report: as a page, as JSON and as CSV."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Response, request, url_for

from backend.errors import BadRequest, StudioRefused, StudioUnreachable
from backend.feedback.report.hours_left import estimate
from backend.feedback.report.periods import read_periods
from backend.feedback.report.statistics import (
    REPORT_DEFINITIONS,
    PrelabelReport,
    by_remedy,
)
from backend.feedback.report.tables import to_csv
from backend.jobs.change_poller import Poll
from backend.label_studio.client import required_client
from backend.services import Services
from backend.views.project import Reading
from backend.views.report import Measurement, read_again, report_view
from backend.web.middleware.errors import json_response, see_other
from backend.web.pages.forms import PROJECT, no_key
from backend.web.pages.html import html_page, is_for_people

_REPORT: Final = f"{PROJECT}/report"

_USE: Final = "What annotators change is read from Label Studio"

_FRESH_FOR_S: Final = 90.0  # how old figures may be without their age beside them, in seconds


def read_state(services: Services, project: int, done: int | None = None) -> Reading:
    """Return when annotations were read last, if that is long ago, and how many still wait.

    Until all are found that the project had when it was connected, `tasks` of `of_tasks` are read.

    Args:
        done: tasks with an annotation, where Label Studio has told it.
    """
    annotations = services.annotations
    polls = {each.project: each for each in services.change_poller.polls.list_polls()}
    poll = polls.get(project, Poll(project))
    is_old = bool(poll.polled) and annotations.now - poll.polled > _FRESH_FOR_S
    is_first = project in polls and not poll.since and not poll.trouble
    return Reading(
        is_served=project in polls,
        at=poll.polled if is_old else None,
        open=annotations.count_open(project),
        tasks=annotations.count_tasks(project, 0.0) if is_first and done is not None else None,
        of_tasks=done if is_first else None,
    )


@dataclass(frozen=True, eq=False)
class ReportRoutes:
    """Answer the routes of ``/projects/<id>/report``."""

    services: Services

    def blueprint(self) -> Blueprint:
        routes = Blueprint("report", __name__)
        routes.add_url_rule(_REPORT, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_REPORT}.json", "figures", self.figures, methods=["GET"])
        routes.add_url_rule(f"{_REPORT}.csv", "table", self.table, methods=["GET"])
        routes.add_url_rule(f"{_REPORT}/read-again", "again", self.again, methods=["POST"])
        routes.add_url_rule(f"{_REPORT}/measure", "measure", self.measure, methods=["POST"])
        routes.add_url_rule(f"{_REPORT}/stop", "stop", self.stop, methods=["POST"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the report's page, and a program with its JSON."""
        if not is_for_people():
            return self.figures(project)
        report = self._report(project)
        periods = read_periods(self.services.annotations, project, report.sums.step)
        read = read_state(self.services, project)
        did = read_again(read.open) if request.args.get("did") == "again" else ""
        measured = Measurement(report.experiment, self._count_unseen(project))

        return html_page(
            "report.html",
            report=report,
            view=report_view(report, periods),
            definitions=REPORT_DEFINITIONS,
            by_remedy=by_remedy,
            no_key=no_key(self.services.page_client, _USE),
            read=read,
            did=did,
            measured=measured,
        )

    def figures(self, project: int) -> Response:
        """Answer with the report and the hours left, as JSON."""
        return json_response(self._report(project).figures())

    def table(self, project: int) -> Response:
        made = PrelabelReport(project, self.services.annotations.sums(project))
        saved = {"Content-Disposition": f'attachment; filename="report-{project}.csv"'}
        return Response(to_csv(made), mimetype="text/csv", headers=saved)

    def again(self, project: int) -> Response:
        """Have all annotations of the project read once more, by the labeling config of today."""
        required_client(self.services.page_client, _USE)
        self.services.change_poller.read_again(project)
        return see_other(url_for("report.page", project=project, did="again"))

    def measure(self, project: int) -> Response:
        """Begin to measure what predictions save, once no job predicts the tasks."""
        required_client(self.services.page_client, _USE)
        jobs = self.services.store.list_jobs(project)
        busy = next((job for job in jobs if not job.over and job.kind == "project"), None)
        if busy is not None:
            raise BadRequest(f"Job {busy.id} predicts the tasks: wait for it, or cancel it first.")
        self.services.experiments.begin(project)
        return see_other(url_for("report.page", project=project, _anchor="measure"))

    def stop(self, project: int) -> Response:
        """Stop measuring: all tasks get predictions again."""
        self.services.experiments.stop(project)
        return see_other(url_for("report.page", project=project, _anchor="measure"))

    def _count_unseen(self, project: int) -> int | None:
        """Count the tasks that an experiment may draw from; None where nobody says."""
        client, scope = self.services.page_client, self.services.task_scope
        with suppress(StudioRefused, StudioUnreachable):
            return None if client is None else scope.count_unseen(client, project)
        return None

    def _report(self, project: int) -> PrelabelReport:
        annotations = self.services.annotations
        hours_left = estimate(annotations, self.services.page_client, project)
        waiting = annotations.count_open(project)
        experiment = self.services.experiments.find(project)
        return PrelabelReport(project, annotations.sums(project), waiting, hours_left, experiment)
