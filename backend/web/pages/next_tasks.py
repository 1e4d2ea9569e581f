"""Serve the tasks of projects that are to be corrected next, and a view of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, url_for

from backend.errors import BackendError, BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.task_order.next_tasks import DEFAULT_COUNT, MOST_TASKS, most_looked_at
from backend.task_order.next_tasks_runs import NextTasksRuns
from backend.task_order.next_tasks_store import NextTasksStore
from backend.task_order.next_tasks_view import VIEW_TITLE, make_view
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import last_values, parse_next_tasks
from backend.web.pages.html import (
    answer_action,
    answer_form,
    html_page,
    is_for_people,
    is_watching,
)
from backend.web.pages.label_studio_token import no_key, required_client
from backend.web.pages.last_report import describe_last
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import PROJECT

Json = dict[str, Any]

_NEXT: Final = f"{PROJECT}/next-tasks"

_USE: Final = "Tasks are read from Label Studio"


@dataclass(frozen=True, eq=False)
class NextTasksRoutes:
    """Answer the routes of ``/projects/<id>/next-tasks``; a page shows the last choice.

    Args:
        runs: the choices of this process.
        store: the last choices.
        client: Label Studio; None without a token.
        projects: refuses projects that are not there.
        body: reads the bodies of requests.
    """

    runs: NextTasksRuns
    store: NextTasksStore
    client: LabelStudioClient | None
    projects: ProjectCheck
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("next_tasks", __name__)
        routes.add_url_rule(_NEXT, "page", self.page, methods=["GET"])
        routes.add_url_rule(f"{_NEXT}.json", "figures", self.figures, methods=["GET"])
        routes.add_url_rule(_NEXT, "start", self.start, methods=["POST"])
        routes.add_url_rule(f"{_NEXT}/cancel", "cancel", self.cancel, methods=["POST"])
        routes.add_url_rule(f"{_NEXT}/view", "view", self.make_view, methods=["POST"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its JSON."""
        if not is_for_people():
            return self.figures(project)
        run = self.runs.get(project)
        if is_watching() and run is not None and run.is_over:  # the page has said so, once
            return see_other(url_for("next_tasks.page", project=project))
        return self._page(project)

    def figures(self, project: int) -> Response:
        """Answer with the last choice and the one that was asked for last, as JSON."""
        return json_response(self._describe(project))

    def start(self, project: int) -> Response:
        """Ask for tasks. A form that is refused comes back with what was typed into it."""
        return answer_form(
            self.body,
            lambda body, is_form: self._start(project, parse_next_tasks(body, is_form)),
            lambda _: see_other(url_for("next_tasks.page", project=project)),
            lambda _: json_response(self._describe(project, pictures=False), 202),
            lambda error, typed: self._page(project, error, typed),
        )

    def cancel(self, project: int) -> Response:
        """End the choice that waits or runs."""
        return self._act(project, lambda: self.runs.cancel(project))

    def make_view(self, project: int) -> Response:
        """Make a view in Label Studio that lists the tasks."""
        return self._act(project, lambda: self._make_view(project))

    def _act(self, project: int, action: Callable[[], None]) -> Response:
        """Act, and answer with the page or with what it would show."""
        return answer_action(
            lambda _: action(),
            lambda _: see_other(url_for("next_tasks.page", project=project)),
            lambda _: json_response(self._describe(project, pictures=False)),
            lambda error: self._page(project, error),
        )

    def _start(self, project: int, count: int) -> None:
        required_client(self.client, _USE)
        self.projects.check(project)
        self.runs.request(project, count)

    def _make_view(self, project: int) -> None:
        client, last = required_client(self.client, _USE), self.store.last(project)
        if last is None:
            raise BadRequest("No tasks were chosen yet.")
        make_view(client, project, last.report)

    def _describe(self, project: int, *, pictures: bool = True) -> Json:
        """Return what the page shows; while a choice waits or runs, without its pictures."""
        last, run = self.store.last(project), self.runs.get(project)
        return describe_last(project, last, run, pictures=pictures)

    def _page(
        self,
        project: int,
        refusal: BackendError | None = None,
        typed: Mapping[str, list[str]] | None = None,
    ) -> Response:
        values = last_values(typed or {})
        described = self._describe(project)
        before = described["report"]["asked"] if described["report"] else DEFAULT_COUNT
        return html_page(
            "next_tasks.html",
            next_tasks=described,
            count=values.get("count", str(before))[:20],
            most_tasks=MOST_TASKS,
            most_looked_at=most_looked_at,
            view_title=VIEW_TITLE,
            is_lost=is_watching() and self.runs.get(project) is None,
            no_key=no_key(self.client is not None, _USE),
            refusal=refusal,
        )
