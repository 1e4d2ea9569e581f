"""Serve the dashboard, and what monitoring asks for: readiness, status and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, request

from backend.errors import BackendError
from backend.inference.engine import Engine
from backend.jobs.connection_watch import ProjectTitles
from backend.settings import Settings
from backend.web.health import describe_health
from backend.web.metrics import CONTENT_TYPE, Metrics
from backend.web.middleware.errors import json_response
from backend.web.pages.html import html_page, is_for_people
from backend.web.pages.jobs import USE
from backend.web.pages.projects import no_key
from backend.web.pages.status import StatusReport


@dataclass(frozen=True, eq=False)
class DashboardRoutes:
    """Answer ``/``, ``/ready``, ``/status`` and ``/metrics``; none of them waits for the model."""

    settings: Settings
    engine: Engine
    metrics: Metrics
    status: StatusReport
    titles: ProjectTitles

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("dashboard", __name__)
        routes.add_url_rule("/", "page", self.page, methods=["GET"])
        routes.add_url_rule("/ready", "ready", self.ready, methods=["GET"])
        routes.add_url_rule("/status", "status", self.read_status, methods=["GET"])
        routes.add_url_rule("/metrics", "metrics", self.scrape, methods=["GET"])
        return routes

    def page(self) -> Response:
        """Answer a browser with the dashboard, and a program as ``/health`` does."""
        if is_for_people():
            return self.render()
        return json_response(describe_health(self.settings.model, self.engine.status.state))

    def ready(self) -> Response:
        """Answer 200 once the model is loaded, and 503 otherwise."""
        status = self.engine.status
        answer = {"state": status.state, "reason": status.reason}
        return json_response(answer, 200 if status.state == "ready" else 503)

    def read_status(self) -> Response:
        """Answer with the whole status as JSON."""
        return json_response(self.status.read())

    def scrape(self) -> Response:
        """Answer with the metrics in Prometheus' text format."""
        return Response(self.metrics.render(), content_type=CONTENT_TYPE)

    def render(self, refusal: BackendError | None = None) -> Response:
        """Render the dashboard; `refusal` says why what a form asked for was not done."""
        now = self.status.read()
        served = {each["project"] for each in now["served"]}
        return html_page(
            # The page asks for this part of itself every few seconds.
            "part.html" if "part" in request.args else "page.html",
            now=now,
            others=[each for each in self.titles.choices() if each[0] not in served],
            no_key=no_key(self.settings.label_studio_api_key is not None, USE),
            refusal=refusal,
        )
