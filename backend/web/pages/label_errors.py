"""Serve the reviews of projects: what is suspicious, what people confirm, and a view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from flask import Blueprint, Response, url_for

from backend.database.project_reports import StoredReport
from backend.errors import BackendError, BadRequest, LearningRefused, ModelUnavailable
from backend.feedback.learning.example_store import ExampleStore
from backend.label_errors.review_report import ReviewReport
from backend.label_errors.review_store import ReviewStore
from backend.label_errors.review_view import VIEW_TITLE, make_view
from backend.label_studio.client import LabelStudioClient
from backend.project_runs import ProjectRuns
from backend.web.middleware.body import BodyReader
from backend.web.middleware.responses import json_response, see_other
from backend.web.pages.forms import MAX_FORM_BYTES, parse_confirmation
from backend.web.pages.html import answer_action, html_page, is_for_people, is_watching
from backend.web.pages.label_studio_token import no_key, required_client
from backend.web.pages.last_report import describe_last
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import PROJECT

Json = dict[str, Any]

#: So many of the confirmed annotations are told.
_MOST_CONFIRMED: Final = 100

_ERRORS: Final = f"{PROJECT}/label-errors"

_USE: Final = "Annotations are read from Label Studio"


@dataclass(frozen=True, eq=False)
class LabelErrorRoutes:
    """Answer the routes of ``/projects/<id>/label-errors``; a page shows the last review.

    Args:
        runs: the reviews of this process.
        store: the last reviews, and what people have confirmed.
        examples: the training examples; learning trusts what is confirmed.
        tasks: annotations -> the task of each that is known.
        client: Label Studio; None without a token.
        projects: refuses projects that are not there.
        body: reads the bodies of requests.
    """

    runs: ProjectRuns[ReviewReport]
    store: ReviewStore
    examples: ExampleStore
    tasks: Callable[[Iterable[int]], Mapping[int, int]]
    client: LabelStudioClient | None
    projects: ProjectCheck
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("label_errors", __name__)
        routes.add_url_rule(_ERRORS, "show", self.show, methods=["GET"])
        routes.add_url_rule(_ERRORS, "start", self.start, methods=["POST"])
        routes.add_url_rule(f"{_ERRORS}/confirm", "confirm", self.confirm, methods=["POST"])
        routes.add_url_rule(f"{_ERRORS}/take-back", "take_back", self.take_back, methods=["POST"])
        routes.add_url_rule(f"{_ERRORS}/view", "view", self.make_view, methods=["POST"])
        return routes

    def show(self, project: int) -> Response:
        """Answer with what the last review has found and nobody has confirmed."""
        if not is_for_people():
            return json_response(self._describe(project))
        run = self.runs.get(project)
        if is_watching() and run is not None and run.is_over:
            return see_other(url_for("label_errors.show", project=project))
        return self._page(project)

    def start(self, project: int) -> Response:
        """Ask for a review."""
        return self._act(project, lambda _: self._start(project), 202)

    def confirm(self, project: int) -> Response:
        """Remember that an annotation is right as it was reviewed."""
        return self._act(project, lambda is_form: self._confirm(project, is_form))

    def take_back(self, project: int) -> Response:
        """Forget that an annotation was confirmed."""
        return self._act(project, lambda is_form: self._take_back(project, is_form))

    def make_view(self, project: int) -> Response:
        """Make a view in Label Studio that lists the tasks of what is suspicious."""
        return self._act(project, lambda _: self._make_view(project))

    def _act(self, project: int, action: Callable[[bool], None], status: int = 200) -> Response:
        """Act, and answer with the page or with what it would show."""
        return answer_action(
            action,
            lambda _: see_other(url_for("label_errors.show", project=project)),
            lambda _: json_response(self._describe(project, pictures=False), status),
            lambda error: self._page(project, error),
        )

    def _start(self, project: int) -> None:
        required_client(self.client, _USE)
        self.projects.check(project)
        self.runs.request(project)

    def _confirm(self, project: int, is_form: bool) -> None:
        annotation, updated = self._parse(is_form)
        review = self.store.last(project)
        found = () if review is None else review.report.suspicions
        versions = {each.updated for each in found if each.annotation == annotation}
        if updated not in versions:
            raise BadRequest(
                f"The last review has not looked at this version of annotation {annotation}: "
                "load the page again."
            )
        self.store.confirm(project, annotation, updated)
        self._trust(project, annotation, trusted=True)

    def _take_back(self, project: int, is_form: bool) -> None:
        annotation, _ = self._parse(is_form)
        self.store.take_back(project, annotation)
        self._trust(project, annotation, trusted=False)

    def _trust(self, project: int, annotation: int, trusted: bool) -> None:
        """Let learning never set the annotation aside, if the project learns from it."""
        with suppress(LearningRefused, ModelUnavailable):
            self.examples.trust(project, annotation, trusted)

    def _make_view(self, project: int) -> None:
        client, review = required_client(self.client, _USE), self.store.last(project)
        if review is None:
            raise BadRequest("The annotations were not reviewed yet.")
        make_view(client, project, review.report.without(self.store.confirmed(project)))

    def _parse(self, is_form: bool) -> tuple[int, float]:
        return parse_confirmation(self.body.read(MAX_FORM_BYTES), is_form)

    def _describe(self, project: int, *, pictures: bool = True) -> Json:
        """Return what the page shows; while a review waits or runs, without its pictures."""
        review, confirmed = self.store.last(project), self.store.confirmed(project)
        told = _told_first(confirmed, review)
        tasks = self.tasks(told)
        if review is not None:
            review = replace(review, report=review.report.without(confirmed))
        return describe_last(project, review, self.runs.get(project), pictures=pictures) | {
            "confirmed": [
                {"annotation": each, "updated": confirmed[each], "task": tasks.get(each)}
                for each in told
            ],
            "confirmed_count": len(confirmed),
        }

    def _page(self, project: int, refusal: BackendError | None = None) -> Response:
        return html_page(
            "label_errors.html",
            errors=self._describe(project),
            view_title=VIEW_TITLE,
            is_lost=is_watching() and self.runs.get(project) is None,
            no_key=no_key(self.client is not None, _USE),
            refusal=refusal,
        )


def _told_first(
    confirmed: Mapping[int, float], review: StoredReport[ReviewReport] | None
) -> list[int]:
    """Choose confirmed annotations: those of the last review first, then the newest versions."""
    listed = set() if review is None else {each.annotation for each in review.report.suspicions}
    newest = sorted(confirmed, key=lambda each: (each not in listed, -confirmed[each], -each))
    return newest[:_MOST_CONFIRMED]
