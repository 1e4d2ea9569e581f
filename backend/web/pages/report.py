"""The routes of the report: a page, its figures as JSON and CSV, and its plots as files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from flask import Blueprint, Response, request

from backend.errors import BadRequest, PlotNotFound
from backend.feedback.annotation_store import Annotations
from backend.feedback.report.charts import PLOTS, plots
from backend.feedback.report.statistics import (
    DEFINITIONS,
    FEW,
    KINDS,
    MOST_VERSIONS,
    PrelabelReport,
    Step,
    measure,
    to_csv,
)
from backend.label_studio.files import LabelStudioFiles
from backend.settings import Settings
from backend.web.middleware.responses import json_answer
from backend.web.pages.html import html_page, is_for_people

Json = dict[str, Any]

#: A project's number in a route, as far as a database counts.
_REPORT = "/projects/<int(min=1, max=2147483647):project>/report"

_NAMES = ", ".join(f'"{name}"' for name in PLOTS)

#: Reports that are kept in memory, a few MB each where there are a thousand model versions.
_KEPT = 8

_NO_KEY = (
    "What annotators change is read from Label Studio: set LABEL_STUDIO_URL and "
    "LABEL_STUDIO_API_KEY."
)

#: Of what a plot is a file: nothing that it would bring along runs or is asked for.
_PLOT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def make_report(
    settings: Settings,
    annotations: Annotations,
    files: LabelStudioFiles,
    learned: Callable[[int], Json] | None = None,
) -> Blueprint:
    """The routes as a blueprint; none of them asks Label Studio for anything.

    Args:
        settings: what is served.
        annotations: what was read of them.
        files: knows the address of Label Studio, to link to its projects.
        learned: what the model has learned in a project, shown beside.
    """
    report = Blueprint("report", __name__)
    measuring = threading.Lock()  # who comes meanwhile mostly asks for the same

    @lru_cache(maxsize=_KEPT)
    def measured(
        project: int, step: Step | None, label: str | None, revision: object
    ) -> PrelabelReport:
        return measure(project, annotations.stream(project), step=step, label=label)

    def found(project: int) -> PrelabelReport:
        step = request.args.get("step")
        if step not in (None, "day", "week"):
            raise BadRequest('Expected "step" to be day or week, but got something else.')
        label = request.args.get("label") or None
        waiting = annotations.count_open(project)
        with measuring:
            revision = annotations.revision(project)
            savings = measured(project, cast("Step | None", step), label, revision)
        return replace(savings, waiting=waiting)

    def as_json(savings: PrelabelReport) -> Response:
        more = {} if learned is None else {"learned": learned(savings.project)}
        return json_answer(savings.to_json() | more)

    @report.route(_REPORT, methods=["GET"])
    def page(project: int) -> Response:
        savings = found(project)
        if not is_for_people():
            return as_json(savings)
        return html_page(
            "report.html",
            savings=savings,
            plots=plots(savings),
            definitions=DEFINITIONS,
            kinds=KINDS,
            few=FEW,
            most_versions=MOST_VERSIONS,
            url=files.task_url(project),
            no_key="" if settings.label_studio_api_key else _NO_KEY,
            learned=None if learned is None else learned(project),
        )

    @report.route(f"{_REPORT}.json", methods=["GET"])
    def figures(project: int) -> Response:
        return as_json(found(project))

    @report.route(f"{_REPORT}.csv", methods=["GET"])
    def table(project: int) -> Response:
        response = Response(to_csv(found(project)), mimetype="text/csv")
        name = f"report-{project}.csv"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @report.route(f"{_REPORT}/<any({_NAMES}):plot>.svg", methods=["GET"])
    def drawing(project: int, plot: str) -> Response:
        drawn = plots(found(project), standalone=True)
        if plot not in drawn:
            raise PlotNotFound(f"There is nothing yet in project {project} for the plot {plot}.")
        response = Response(drawn[plot], mimetype="image/svg+xml")
        response.headers["Content-Security-Policy"] = _PLOT_POLICY
        return response

    return report
