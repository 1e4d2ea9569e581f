"""Serve what projects learn: their state, the actions of people, and versions as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, url_for

from backend.errors import BackendError, BadRequest
from backend.feedback.learning.learner import Learner
from backend.feedback.learning.version_file import read_export
from backend.settings import Settings
from backend.web.middleware.errors import attachment, json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import MAX_FORM_BYTES, ActionRequest, parse_action
from backend.web.pages.html import answer_action, html_page, is_for_people
from backend.web.pages.projects import PROJECT, require_token

Json = dict[str, Any]

_LEARNING: Final = f"{PROJECT}/learning"

#: The actions of people, as the last part of a route.
ACTIONS = ("step", "pin", "unpin", "rollback", "reset", "trust", "distrust")

#: Largest version file, in bytes: it holds some numbers for each label.
_MAX_FILE_BYTES = 1 << 26

_USE: Final = "A project learns from what Label Studio has"


@dataclass(frozen=True, eq=False)
class LearningRoutes:
    """Answer the routes below ``/projects/<id>/learning``.

    None of them waits for the model or for Label Studio.

    Args:
        settings: what is served.
        learner: the learner, with its training examples and versions.
        describe: describes what a project has learned, see
            `backend.web.pages.learning_status.describe_learning`.
        body: reads the bodies of requests.
    """

    settings: Settings
    learner: Learner
    describe: Callable[[int], Json]
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("learning", __name__)
        # The text of a route is the label of a metric, and so the name `turn` stays.
        actions = f"<any({', '.join(ACTIONS)}):turn>"
        routes.add_url_rule(_LEARNING, "show", self.show, methods=["GET"])
        routes.add_url_rule(f"{_LEARNING}/{actions}", "act", self.act, methods=["POST"])
        version = f"{_LEARNING}/version"
        routes.add_url_rule(version, "export", self.export_version, methods=["GET"])
        routes.add_url_rule(version, "import", self.import_version, methods=["POST"])
        return routes

    def show(self, project: int) -> Response:
        """Answer with the project's page, or with its description as JSON."""
        if is_for_people():
            return self._page(project)
        return json_response(self.describe(project))

    def act(self, project: int, turn: str) -> Response:
        """Do what a person asks for; `turn` is one of `ACTIONS`."""
        return answer_action(
            lambda is_form: self._act(
                project, turn, parse_action(self.body.read(MAX_FORM_BYTES), is_form)
            ),
            lambda _: see_other(url_for("learning.show", project=project)),
            lambda _: json_response(self.describe(project)),
            lambda error: self._page(project, error),
        )

    def export_version(self, project: int) -> Response:
        """Answer with the live version as a file."""
        version, data = self.learner.export(project)
        return attachment(data, "application/json", f"learned-{project}-{version.number}.json")

    def import_version(self, project: int) -> Response:
        """Keep a version that was exported, and make it live."""
        registry = self.learner.registry
        body = self.body.read(_MAX_FILE_BYTES)
        version, adaptation = read_export(body, registry.model_key, self.learner.width)
        registry.import_version(project, version, adaptation)
        return json_response(self.describe(project))

    def _act(self, project: int, action: str, asked: ActionRequest) -> None:
        registry = self.learner.registry
        match action:
            case "step":
                self._check_step()
                self.learner.steps.request(project)
            case "pin" | "unpin":
                registry.pin(project, pinned=action == "pin")
            case "rollback":
                registry.roll_back(project, asked.number, self.settings.adapt)
            case "reset":
                registry.reset(project, asked.keep_evidence)
            case "trust" | "distrust":
                self._trust(project, asked.annotation, trusted=action == "trust")

    def _trust(self, project: int, annotation: int | None, trusted: bool) -> None:
        if annotation is None:
            raise BadRequest('Expected "annotation" to be the number of one, but it is missing.')
        self.learner.examples.trust(project, annotation, trusted)

    def _check_step(self) -> None:
        require_token(self.settings, _USE)
        self.learner.check()

    def _page(self, project: int, refusal: BackendError | None = None) -> Response:
        return html_page(
            "learning.html",
            learned=self.describe(project),
            refusal=refusal,
        )
