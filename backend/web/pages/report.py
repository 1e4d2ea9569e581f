"""Serve the report: as a page, as JSON and CSV, and its charts as files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

from flask import Blueprint, Response, request

from backend.errors import BadRequest, PlotNotFound
from backend.feedback.report.charts import PLOTS, plots
from backend.feedback.report.definitions import (
    FEW,
    MOST_SHOWN_VERSIONS,
    ORIGINS_IN_WORDS,
    REPORT_DEFINITIONS,
)
from backend.feedback.report.hours_left import estimate
from backend.feedback.report.statistics import PrelabelReport, make_report
from backend.feedback.report.tables import to_csv
from backend.feedback.sums import Step
from backend.services import Services
from backend.web.middleware.errors import attachment, json_response
from backend.web.pages.html import html_page, is_for_people
from backend.web.pages.projects import PROJECT, no_key

_REPORT: Final = f"{PROJECT}/report"

_PLOT_NAMES = ", ".join(f'"{name}"' for name in PLOTS)

_USE: Final = "What annotators change is read from Label Studio"

#: For a chart that is opened as a file of its own: no script runs and nothing is loaded.
_PLOT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


#: How old figures may be without their age beside them, in seconds.
_FRESH_FOR_S: Final = 90.0


def describe_reading(services: Services, project: int) -> dict[str, Any]:
    """Return when annotations were read last, if that is long ago, and how many still wait."""
    annotations = services.annotations
    polls = {each.project: each for each in services.change_poller.polls.list_polls()}
    at = polls[project].polled if project in polls else 0.0
    is_old = bool(at) and annotations.now - at > _FRESH_FOR_S
    return {
        "is_served": project in polls,
        "at": at if is_old else None,
        "open": annotations.count_open(project),
    }


@dataclass(frozen=True, eq=False)
class ReportRoutes:
    """Answer the routes of ``/projects/<id>/report``."""

    services: Services

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("report", __name__)
        routes.add_url_rule(_REPORT, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_REPORT}.json", "figures", self.figures, methods=["GET"])
        routes.add_url_rule(f"{_REPORT}.csv", "table", self.table, methods=["GET"])
        plot = f"{_REPORT}/<any({_PLOT_NAMES}):plot>.svg"
        routes.add_url_rule(plot, "plot", self.plot, methods=["GET"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the report's page, and a program with its JSON."""
        if not is_for_people():
            return self.figures(project)
        report = self._whole_report(project)
        return html_page(
            "report.html",
            report=report,
            plots=plots(report),
            definitions=REPORT_DEFINITIONS,
            kinds=ORIGINS_IN_WORDS,
            few=FEW,
            most_versions=MOST_SHOWN_VERSIONS,
            no_key=no_key(self.services.page_client, _USE),
            read=describe_reading(self.services, project),
        )

    def figures(self, project: int) -> Response:
        """Answer with the report and the hours left, as JSON."""
        return json_response(self._whole_report(project).figures())

    def table(self, project: int) -> Response:
        """Answer with the report as a CSV file."""
        return attachment(to_csv(self._report(project)), "text/csv", f"report-{project}.csv")

    def plot(self, project: int, plot: str) -> Response:
        """Answer with a chart as an SVG file.

        Raises:
            PlotNotFound: the report has no figures for this chart.
        """
        drawn = plots(self._report(project), standalone=True)
        if plot not in drawn:
            raise PlotNotFound(f"There is nothing yet in project {project} for the plot {plot}.")
        response = Response(drawn[plot], mimetype="image/svg+xml")
        response.headers["Content-Security-Policy"] = _PLOT_POLICY
        return response

    def _whole_report(self, project: int) -> PrelabelReport:
        hours_left = estimate(self.services.annotations, self.services.page_client, project)
        return replace(self._report(project), hours_left=hours_left)

    def _report(self, project: int) -> PrelabelReport:
        """Return the report that the query of the current request asks for."""
        step = request.args.get("step")
        if step not in (None, "day", "week"):
            raise BadRequest('Expected "step" to be day or week, but got something else.')
        label = request.args.get("label") or None
        waiting = self.services.annotations.count_open(project)
        sums = self.services.annotations.sums(project, cast("Step | None", step))
        return make_report(project, sums, waiting=waiting, label=label)
