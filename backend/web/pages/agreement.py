"""Serve how far the annotators of projects agree, and where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, url_for

from backend.agreement.agreement_report import NOTHING_YET, AgreementReport
from backend.agreement.agreement_store import AgreementStore
from backend.agreement.agreement_view import VIEW_TITLE, make_view
from backend.errors import BackendError, BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.project_runs import ProjectRuns
from backend.web.middleware.errors import json_response, see_other
from backend.web.pages.html import answer_action, html_page, is_for_people, is_watching
from backend.web.pages.label_studio_token import no_key, required_client
from backend.web.pages.last_report import describe_last
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import PROJECT

Json = dict[str, Any]

_AGREEMENT: Final = f"{PROJECT}/agreement"

_USE: Final = "Annotations are read from Label Studio"


@dataclass(frozen=True, eq=False)
class AgreementRoutes:
    """Answer the routes of ``/projects/<id>/agreement``; a page shows the last report.

    Args:
        runs: the measurements of this process.
        store: the last reports.
        client: Label Studio; None without a token.
        projects: refuses projects that are not there.
    """

    runs: ProjectRuns[AgreementReport]
    store: AgreementStore
    client: LabelStudioClient | None
    projects: ProjectCheck

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("agreement", __name__)
        routes.add_url_rule(_AGREEMENT, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_AGREEMENT}.json", "figures", self.figures, methods=["GET"])
        routes.add_url_rule(_AGREEMENT, "start", self.start, methods=["POST"])
        routes.add_url_rule(f"{_AGREEMENT}/view", "view", self.make_view, methods=["POST"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its JSON."""
        if not is_for_people():
            return self.figures(project)
        run = self.runs.get(project)
        if is_watching() and run is not None and run.is_over:  # the page has said so, once
            return see_other(url_for("agreement.page", project=project))
        return self._page(project)

    def figures(self, project: int) -> Response:
        """Answer with the last report and the measurement that was asked for last, as JSON."""
        return json_response(self._describe(project))

    def start(self, project: int) -> Response:
        """Ask for a measurement."""
        return self._act(project, lambda: self._start(project), 202)

    def make_view(self, project: int) -> Response:
        """Make a view in Label Studio that lists the most disputed tasks."""
        return self._act(project, lambda: self._make_view(project))

    def _act(self, project: int, action: Callable[[], None], status: int = 200) -> Response:
        """Act, and answer with the page or with what it would show."""
        return answer_action(
            lambda _: action(),
            lambda _: see_other(url_for("agreement.page", project=project)),
            lambda _: json_response(self._describe(project, pictures=False), status),
            lambda error: self._page(project, error),
        )

    def _start(self, project: int) -> None:
        required_client(self.client, _USE)
        self.projects.check(project)
        self.runs.request(project)

    def _make_view(self, project: int) -> None:
        client, last = required_client(self.client, _USE), self.store.last(project)
        if last is None:
            raise BadRequest("Agreement was not measured yet.")
        if not last.report.pictures:
            raise BadRequest(NOTHING_YET)
        make_view(client, project, last.report)

    def _describe(self, project: int, *, pictures: bool = True) -> Json:
        """Return what the page shows; while a measurement waits or runs, without its pictures."""
        last, run = self.store.last(project), self.runs.get(project)
        return describe_last(project, last, run, pictures=pictures)

    def _page(self, project: int, refusal: BackendError | None = None) -> Response:
        return html_page(
            "agreement.html",
            agreement=self._describe(project),
            view_title=VIEW_TITLE,
            nothing_yet=NOTHING_YET,
            is_lost=is_watching() and self.runs.get(project) is None,
            no_key=no_key(self.client is not None, _USE),
            refusal=refusal,
        )
