"""Serve the acceptance gates of projects: what needs no look, and what people ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError
from backend.feedback.gate.acceptance_gate import AcceptanceGates
from backend.feedback.gate.gate_report import STATES, GateReport
from backend.feedback.gate.gate_runs import ACTIONS, GateAction, GateRuns
from backend.web.middleware.body import BodyReader
from backend.web.middleware.responses import json_response, see_other
from backend.web.pages.forms import FORM_TYPE, MAX_FORM_BYTES, parse_version
from backend.web.pages.html import answer_action, html_page, is_for_people, is_watching
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import PROJECT

Json = dict[str, Any]

_GATE: Final = f"{PROJECT}/gate"

#: Tasks of each list that the page shows.
_SHOWN: Final = 100


@dataclass(frozen=True, eq=False)
class GateRoutes:
    """Answer the routes of ``/projects/<id>/gate``.

    Args:
        gates: the gates.
        runs: what pages have asked for.
        projects: refuses projects that are not there.
        body: reads the bodies of requests.
    """

    gates: AcceptanceGates
    runs: GateRuns
    projects: ProjectCheck
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("gate", __name__)
        routes.add_url_rule(_GATE, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_GATE}.json", "figures", self.figures, methods=["GET"])
        actions = f"<any({', '.join((*ACTIONS, 'reopen'))}):action>"
        routes.add_url_rule(f"{_GATE}/{actions}", "act", self.act, methods=["POST"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its JSON."""
        if not is_for_people():
            return self.figures(project)
        run = self.runs.last(project)
        if is_watching() and run is not None and run.is_over:  # the page has said so, once
            version = request.args.get("version")
            return see_other(url_for("gate.page", project=project, version=version))
        return self._page(self._report(project))

    def figures(self, project: int) -> Response:
        """Answer with the gate, the tasks in its lists and what was asked for last, as JSON."""
        return json_response(self._describe(self._report(project)))

    def act(self, project: int, action: str) -> Response:
        """Do what a person asks for; what Label Studio is asked for is done afterwards."""
        version = parse_version(self.body.read(MAX_FORM_BYTES), request.mimetype == FORM_TYPE)
        return answer_action(
            lambda _: self._act(project, action, version),
            lambda report: see_other(url_for("gate.page", project=project, version=report.version)),
            lambda report: json_response(
                self._describe(report), 200 if action == "reopen" else 202
            ),
            lambda error: self._page(self.gates.report(project, version), error),
        )

    def _act(self, project: int, action: str, version: str | None) -> GateReport:
        if action == "reopen":
            return self.gates.reopen(project, version)
        self.projects.check(project)
        opens = self.gates.open_gate if action == "accept" else self.gates.report
        report = opens(project, version)
        self.runs.request(project, report.version, cast("GateAction", action))
        return report

    def _report(self, project: int) -> GateReport:
        return self.gates.report(project, request.args.get("version") or None)

    def _describe(self, report: GateReport) -> Json:
        run = self.runs.last(report.project)
        return self.gates.describe(report) | {"run": None if run is None else run.to_json()}

    def _page(self, report: GateReport, refusal: BackendError | None = None) -> Response:
        return html_page(
            "gate.html",
            report=report,
            meaning=STATES[report.state],
            shown=_SHOWN,
            tasks={
                which: self.gates.tasks(report, which, _SHOWN)
                for which in ("listed", "audit", "accepted")
            },
            run=self.runs.last(report.project),
            is_lost=is_watching() and self.runs.last(report.project) is None,
            refusal=refusal,
        )
