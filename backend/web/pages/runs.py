"""Serve runs over projects: ask for one, watch it, read its report, make a view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, url_for

from backend.errors import BackendError, BadRequest, LearningRefused, ModelUnavailable
from backend.feedback.learning.example_store import ExampleStore
from backend.label_studio.client import LabelStudioClient
from backend.runs.label_errors import ConfirmedAnnotations, LabelErrors
from backend.runs.run import Run, RunKind
from backend.runs.run_store import RunStore
from backend.web.middleware.errors import see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import (
    MAX_FORM_BYTES,
    last_values,
    parse_confirmation,
    read_form,
)
from backend.web.pages.html import answer_action, answer_form, html_page, is_for_people
from backend.web.pages.label_studio_token import no_key, required_client
from backend.web.pages.project_check import ProjectCheck
from backend.web.pages.project_routes import NUMBER, PROJECT

Json = dict[str, Any]
Form = Mapping[str, list[str]]

#: So many of the confirmed annotations are told.
_MOST_CONFIRMED: Final = 100


@dataclass(frozen=True, eq=False)
class RunRoutes:
    """Answer the routes of one kind of run, below ``/projects/<id>/<kind>``.

    The page shows the report of the newest run that is done; while a run waits or is at work it
    shows the progress, and reloads itself.

    Args:
        kind: the kind.
        store: the runs.
        client: Label Studio; None without a token.
        projects: refuses projects that are not there.
        body: reads the bodies of requests.
    """

    kind: RunKind[Any, Any]
    store: RunStore
    client: LabelStudioClient | None
    projects: ProjectCheck
    body: BodyReader

    # ---- what kinds do in their own way ----------------------------------------------------------

    def fields_of(self, form: Form) -> Json:
        """Return what a form asks for as the fields of the kind's struct."""
        return {**last_values(form)}

    def shown(self, project: int, report: Any) -> Any:
        """Return a report as it is shown now."""
        return report

    def more(self, project: int, report: Any | None) -> Json:
        """Return what an answer tells beside the runs and the report."""
        return {}

    def page_values(self, project: int, typed: Form) -> Json:
        """Return what the page's form shows; `typed` is what a refused one held."""
        return {}

    def add_routes(self, routes: Blueprint, start: str) -> None:
        """Add routes of the kind's own."""

    # ---- routes ----------------------------------------------------------------------------------

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes, which has the name of the kind."""
        start = f"{PROJECT}/{self.kind.name}"
        one = f"{start}/<{NUMBER}:run>"
        routes = Blueprint(self.kind.name, __name__)
        routes.add_url_rule(start, "page", self.page, methods=["GET"])
        routes.add_url_rule(start, "start", self.start, methods=["POST"])
        routes.add_url_rule(f"{start}.json", "json", self.answer, methods=["GET"])
        routes.add_url_rule(one, "run", self.show_run, methods=["GET"])
        routes.add_url_rule(f"{one}/cancel", "cancel", self.cancel, methods=["POST"])
        if self.kind.tasks is not None:
            routes.add_url_rule(f"{start}/view", "view", self.make_view, methods=["POST"])
        self.add_routes(routes, start)
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its JSON."""
        return self._page(project) if is_for_people() else self.answer(project)

    def answer(self, project: int) -> Response:
        """Answer with the runs of a project, and the report of the newest that is done."""
        return json_of(self._describe(project))

    def show_run(self, project: int, run: int) -> Response:
        """Answer with one run and its report."""
        found = self.store.get(self.kind, project, run)
        return self._page(project, of=found) if is_for_people() else json_of(self._told(found))

    def start(self, project: int) -> Response:
        """Ask for a run; where an equal one waits or is at work, answer with that.

        A form that is refused comes back with what was typed into it.
        """
        return answer_form(
            self.body,
            lambda body, is_form: self._start(project, body, is_form),
            lambda _: see_other(url_for(f"{self.kind.name}.page", project=project)),
            lambda run: json_of(run, 202, self._address(run)),
            lambda error, typed: self._page(project, error, typed),
        )

    def cancel(self, project: int, run: int) -> Response:
        """End a run that waits or is at work."""
        return self.act(
            project, lambda _: self.store.cancel(self.store.get(self.kind, project, run))
        )

    def make_view(self, project: int) -> Response:
        """Make a view in Label Studio that lists the tasks of the newest report."""
        return self.act(project, lambda _: self._make_view(project))

    def act(self, project: int, action: Callable[[bool], None]) -> Response:
        """Act, and answer with the page or with what it would show, without the report."""
        return answer_action(
            action,
            lambda _: see_other(url_for(f"{self.kind.name}.page", project=project)),
            lambda _: json_of(self._describe(project, with_report=False)),
            lambda error: self._page(project, error),
        )

    def _start(self, project: int, body: bytes, is_form: bool) -> Run:
        asked = self._read(body, is_form)
        required_client(self.client, self.kind.use)
        self.projects.check(project)
        return self.store.request(self.kind, project, asked)

    def _read(self, body: bytes, is_form: bool) -> msgspec.Struct:
        try:
            if is_form:
                fields = self.fields_of(read_form(body))
                asked: msgspec.Struct = msgspec.convert(fields, self.kind.asked, strict=False)
            else:
                asked = msgspec.json.decode(body or b"{}", type=self.kind.asked)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadRequest(f"{error}.") from None
        return asked

    def _address(self, run: Run) -> str:
        return url_for(f"{self.kind.name}.run", project=run.project, run=run.id)

    def _make_view(self, project: int) -> None:
        client, made = required_client(self.client, self.kind.use), self._last(project)
        if made is None:
            raise BadRequest("There is no report yet to make a view of.")
        assert self.kind.tasks is not None
        tasks = self.kind.tasks(made[1])
        if not tasks:
            raise BadRequest("The report lists no task: there is nothing to make a view of.")
        client.views.show(project, self.kind.title, tasks)

    def _last(self, project: int) -> tuple[Run, Any] | None:
        made = self.store.last(self.kind, project)
        return None if made is None else (made[0], self.shown(project, made[1]))

    def _told(self, run: Run) -> Json:
        report = self.store.report(self.kind, run)
        report = None if report is None else self.shown(run.project, report)
        told = {"project": run.project, "run": run, "finished": run.finished, "report": report}
        return told | self.more(run.project, report)

    def _describe(self, project: int, *, with_report: bool = True) -> Json:
        """Return the newest run, all runs, and the newest report with the end of its run."""
        runs, made = self.store.runs(self.kind, project), self._last(project)
        described: Json = {"project": project, "run": runs[0] if runs else None, "runs": runs}
        report = None if made is None else made[1]
        if with_report:
            finished = None if made is None else made[0].finished
            described |= {"finished": finished, "report": report}
        return described | self.more(project, report)

    def _page(
        self,
        project: int,
        refusal: BackendError | None = None,
        typed: Form | None = None,
        of: Run | None = None,
    ) -> Response:
        """Render the page.

        Args:
            project: id of the project.
            refusal: why what a form asked for was not done.
            typed: the values of each field of a form that was refused.
            of: the run whose report is shown; None: the newest that is done.
        """
        runs = self.store.runs(self.kind, project)
        run = of or (runs[0] if runs else None)
        is_open = run is not None and not run.is_over
        described = self._told(of) if of else self._describe(project, with_report=not is_open)
        given = {"report": None, "runs": runs, **described}
        return html_page(
            f"{self.kind.name.replace('-', '_')}.html",
            refusal,
            **self.page_values(project, typed or {}),
            **given | {"run": run},
            kind=self.kind,
            is_open=is_open,
            is_one=of is not None,
            no_key=no_key(self.client is not None, self.kind.use),
        )


def json_of(value: Any, status: int = 200, location: str | None = None) -> Response:
    """Make a response of JSON of structs."""
    response = Response(msgspec.json.encode(value), status, mimetype="application/json")
    if location is not None:
        response.headers["Location"] = location
    return response


@dataclass(frozen=True, eq=False)
class LabelErrorRoutes(RunRoutes):
    """Answer the routes of ``/projects/<id>/label-errors``.

    Args:
        confirmed: what people have confirmed.
        examples: the training examples; learning trusts what is confirmed.
        tasks: annotations -> the task of each that is known.
    """

    confirmed: ConfirmedAnnotations
    examples: ExampleStore
    tasks: Callable[[Iterable[int]], Mapping[int, int]]

    def add_routes(self, routes: Blueprint, start: str) -> None:
        """Add the routes that confirm an annotation and take that back."""
        routes.add_url_rule(f"{start}/confirm", "confirm", self.confirm, methods=["POST"])
        routes.add_url_rule(f"{start}/take-back", "take_back", self.take_back, methods=["POST"])

    def confirm(self, project: int) -> Response:
        """Remember that an annotation is right as it was compared."""
        return self.act(project, lambda is_form: self._confirm(project, is_form))

    def take_back(self, project: int) -> Response:
        """Forget that an annotation was confirmed."""
        return self.act(project, lambda is_form: self._take_back(project, is_form))

    def shown(self, project: int, report: LabelErrors) -> LabelErrors:
        """Leave out what people have confirmed as it was compared."""
        return report.without(self.confirmed.of(project))

    def more(self, project: int, report: LabelErrors | None) -> Json:
        """Tell the confirmed annotations: those of the last report first, then the newest."""
        confirmed, made = self.confirmed.of(project), self.store.last(self.kind, project)
        listed = {each.annotation for each in made[1].suspicions} if made else set()
        newest = sorted(confirmed, key=lambda each: (each not in listed, -confirmed[each], -each))
        told = newest[:_MOST_CONFIRMED]
        tasks = self.tasks(told)
        return {
            "confirmed": [
                {"annotation": each, "updated": confirmed[each], "task": tasks.get(each)}
                for each in told
            ],
            "confirmed_count": len(confirmed),
        }

    def _confirm(self, project: int, is_form: bool) -> None:
        annotation, updated = parse_confirmation(self.body.read(MAX_FORM_BYTES), is_form)
        made = self.store.last(self.kind, project)
        found = made[1].suspicions if made else ()
        if updated not in {each.updated for each in found if each.annotation == annotation}:
            raise BadRequest(
                f"The last report does not have this version of annotation {annotation}: load the "
                "page again."
            )
        self.confirmed.confirm(project, annotation, updated)
        self._trust(project, annotation, trusted=True)

    def _take_back(self, project: int, is_form: bool) -> None:
        annotation, _ = parse_confirmation(self.body.read(MAX_FORM_BYTES), is_form)
        self.confirmed.take_back(project, annotation)
        self._trust(project, annotation, trusted=False)

    def _trust(self, project: int, annotation: int, trusted: bool) -> None:
        """Let learning never set the annotation aside, if the project learns from it."""
        with suppress(LearningRefused, ModelUnavailable):
            self.examples.trust(project, annotation, trusted)
