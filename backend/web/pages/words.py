"""Serve the words of projects: try wordings, check the vocabulary, and use what is best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError, BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.settings import Settings
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import MAX_FORM_BYTES, last_values, parse_row, parse_wording
from backend.web.pages.html import answer_action, answer_form, html_page, is_for_people
from backend.web.pages.label_studio_token import no_key, required_client
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import NUMBER, PROJECT
from backend.wording.wording_request import MAX_PICTURES, MAX_TRIALS
from backend.wording.wording_runs import WordingRun, WordingRuns
from clearclip_core import METHODS

Json = dict[str, Any]

_WORDS: Final = f"{PROJECT}/words"
_RUN: Final = f"{_WORDS}/<{NUMBER}:run>"

_USE: Final = "Words are tried on the pictures of Label Studio"


@dataclass(frozen=True, eq=False)
class WordingRoutes:
    """Answer the routes of ``/projects/<id>/words``.

    No page waits for Label Studio: the form asks for the labels when it is shown already.

    Args:
        settings: what is served.
        runs: the trials of this process.
        client: Label Studio; None without a token.
        single_try_client: Label Studio, asked once each time, with the time that a job has for an
            answer; None without a token.
        projects: refuses projects that are not there.
        body: reads the bodies of requests.
    """

    settings: Settings
    runs: WordingRuns
    client: LabelStudioClient | None
    single_try_client: LabelStudioClient | None
    projects: ProjectCheck
    body: BodyReader

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("words", __name__)
        routes.add_url_rule(_WORDS, "list", self.list_runs, methods=["GET"])
        routes.add_url_rule(_WORDS, "start", self.start, methods=["POST"])
        routes.add_url_rule(f"{_WORDS}/labels", "labels", self.list_labels, methods=["GET"])
        routes.add_url_rule(_RUN, "show", self.show, methods=["GET"])
        routes.add_url_rule(f"{_RUN}/use", "use", self.use, methods=["POST"])
        return routes

    def list_runs(self, project: int) -> Response:
        """Answer with the newest trials of a project; people get a form as well."""
        if is_for_people():
            return self._page(project)
        found = self.runs.list_runs(project)
        return json_response({"runs": [_describe(each, short=True) for each in found]})

    def list_labels(self, project: int) -> Response:
        """Answer with the labels whose words can be tried, as the label config has them now."""
        client = required_client(self.single_try_client, _USE)
        config = parse_label_config(client.label_config(project))
        labels = config.labels_of(config.images[0].name)
        return json_response({"labels": [label.name for label in labels]})

    def start(self, project: int) -> Response:
        """Ask for a trial of words, or a check of the vocabulary.

        A form that is refused comes back with all that was typed into it.
        """
        return answer_form(
            self.body,
            lambda body, is_form: self._start(project, body, is_form),
            lambda run: see_other(url_for("words.show", project=project, run=run.id)),
            lambda run: json_response(
                _describe(run), 202, url_for("words.show", project=project, run=run.id)
            ),
            lambda error, typed: self._page(project, error, typed),
        )

    def show(self, project: int, run: int) -> Response:
        """Answer with a trial: its progress, and its figures once it is done."""
        found = self.runs.get(project, run)
        return self._run_page(found) if is_for_people() else json_response(_describe(found))

    def use(self, project: int, run: int) -> Response:
        """Write the words of a trial into the project's label config."""
        found = self.runs.get(project, run)
        return answer_action(
            lambda is_form: self._use(found, is_form),
            lambda used: self._run_page(used, is_written=True),
            lambda used: json_response({"line": used.used}),
            lambda error: self._run_page(self.runs.get(project, run), error),
        )

    def _start(self, project: int, body: bytes, is_form: bool) -> WordingRun:
        asked = parse_wording(project, body, is_form)
        required_client(self.client, _USE)
        self.projects.check(project)
        return self.runs.request(asked)

    def _use(self, run: WordingRun, is_form: bool) -> WordingRun:
        """Write the words of a row into the label config; return the run with what it has now."""
        row = parse_row(self.body.read(MAX_FORM_BYTES), is_form)
        client = required_client(self.client, _USE)
        if run.report is None:
            raise BadRequest(f"The trial {run.id} is {run.state}: it has no words to use.")
        config = run.report.config_with(row)
        client.replace_label_config(run.asked.project, run.report.config, config)
        return self.runs.mark_used(run, run.report.trials[row].line)

    def _page(
        self,
        project: int,
        refusal: BackendError | None = None,
        typed: Mapping[str, list[str]] | None = None,
    ) -> Response:
        """Render the forms and the newest trials.

        Args:
            project: number of the project.
            refusal: why what a form asked for was not done.
            typed: the values of each field of a form that was refused.
        """
        values = last_values(typed or {})
        found = self.runs.list_runs(project)
        reports = [each.report for each in found if each.report is not None]
        return html_page(
            "words.html",
            project=project,
            label=values.get("label", request.args.get("label", ""))[:200],
            typed=values,
            chosen_methods=typed.get("methods", []) if typed else [],
            is_check="on" not in values,  # which only the form for one label has
            labels=reports[0].labels if reports else (),
            methods=list(METHODS),
            method=self.settings.method,
            runs=[_describe(each, short=True) for each in found],
            max_trials=MAX_TRIALS,
            max_pictures=MAX_PICTURES,
            no_key=no_key(self.client is not None, _USE),
            refusal=refusal,
        )

    def _run_page(
        self, run: WordingRun, refusal: BackendError | None = None, *, is_written: bool = False
    ) -> Response:
        report = run.report
        return html_page(
            "wording.html",
            run=_describe(run),
            trials=[report.trials[row["row"]] for row in report.rows] if report else [],
            method=self.settings.method,
            refusal=refusal,
            used=run.used,
            is_written=is_written,
        )


def _describe(run: WordingRun, *, short: bool = False) -> Json:
    """Return a run as JSON, on request without its figures."""
    described: Json = {
        "id": run.id,
        "project": run.asked.project,
        "asked": run.asked.to_json(),
        "state": run.state,
        "over": run.is_over,
        "done": run.done,
        "total": run.total,
        "reason": run.reason,
        "created": run.created,
    }
    if not short:
        described["report"] = None if run.report is None else run.report.to_json()
    return described
