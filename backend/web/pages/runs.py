"""Serve runs over projects: ask for one, watch it, read its report, make a view of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import Blueprint, Response, request, send_file, url_for

from backend.dataset.formats.writers import WRITERS
from backend.errors import BackendError, BadRequest, ModelUnavailable, NotFound
from backend.label_studio.client import LabelStudioClient, required_client
from backend.runs.dataset import DAYS_KEPT, file_name, file_of
from backend.runs.label_errors import ConfirmedAnnotations, LabelErrors
from backend.runs.run_store import MOST_WORD_IMAGES, Run, RunKind, RunStore
from backend.runs.words import MAX_WORDINGS, AskedWords, WordsReport
from backend.services import Services
from backend.views.runs import OVERLAPS, RULES, VIEWS, Confirmed, RunsView
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import (
    MAX_FORM_BYTES,
    PROJECT,
    URL_NUMBER,
    Confirmation,
    Form,
    ProjectCheck,
    RowRequest,
    last_values,
    no_key,
    parse_fields,
)
from backend.web.pages.html import answer_action, answer_form, html_page, is_for_people

_Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class RunRoutes:
    """Answer the routes of one kind of run, below ``/projects/<id>/<kind>``.

    The page shows the report of the newest run that is done; while a run waits or is at work it
    shows the progress, and reloads itself.
    """

    kind: RunKind[Any, Any]
    services: Services
    projects: ProjectCheck
    body: BodyReader

    @property
    def store(self) -> RunStore:
        return self.services.runs

    def client(self) -> LabelStudioClient:
        """Return Label Studio, for requests of pages; raises `BadRequest` without a token."""
        return required_client(self.services.page_client, self.kind.use)

    # ---- what kinds do in their own way ----------------------------------------------------------

    def fields_of(self, form: Form) -> _Json:
        """Return what a form asks for as the fields of the kind's struct."""
        return {**last_values(form)}

    def shown(self, project: int, report: Any) -> Any:
        """Return a report as it is shown now."""
        return report

    def more(self, project: int) -> _Json:
        """Return the fields of the kind's view beside those of all."""
        return {}

    def page_values(self, project: int) -> _Json:
        """Return what the page's form shows."""
        return {}

    def add_routes(self, routes: Blueprint, start: str) -> None:
        """Add routes of the kind's own."""

    # ---- routes ----------------------------------------------------------------------------------

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes, which has the name of the kind."""
        start = f"{PROJECT}/{self.kind.name}"
        one = f"{start}/<{URL_NUMBER}:run>"
        routes = Blueprint(self.kind.name, __name__)
        routes.add_url_rule(start, "page", self.page, methods=["GET"])
        routes.add_url_rule(start, "start", self.start, methods=["POST"])
        routes.add_url_rule(one, "run", self.show_run, methods=["GET"])
        routes.add_url_rule(f"{one}/cancel", "cancel", self.cancel, methods=["POST"])
        if self.kind.tasks is not None:
            routes.add_url_rule(f"{start}/view", "view", self.make_view, methods=["POST"])
        self.add_routes(routes, start)
        return routes

    def page(self, project: int) -> Response:
        """Answer with the runs of a project and the newest report, as a page or JSON."""
        return self._page(project) if is_for_people() else json_response(self._view(project))

    def show_run(self, project: int, run: int) -> Response:
        """Answer with one run and its report, as a page or JSON."""
        found = self.store.get(self.kind, project, run)
        if is_for_people():
            return self._page(project, of=found)
        return json_response(self._view(project, found))

    def start(self, project: int) -> Response:
        """Ask for a run, or answer with an equal one; a form that is refused keeps its fields."""

        def show(_: Run) -> Response:
            return see_other(url_for(f"{self.kind.name}.page", project=project))

        return answer_form(
            self.body,
            lambda body, is_form: self._start(project, body, is_form),
            show,
            lambda run: json_response(run, 202, self._address(run)),
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

    def act(self, project: int, action: Callable[[bool], int | None]) -> Response:
        """Act, and answer with the page or with what it shows.

        Args:
            action: acts, and returns the id of the view that it has made, if it has; it is told
                whether the body is a form.
        """
        page, did = f"{self.kind.name}.page", str(request.endpoint).rpartition(".")[2]
        return answer_action(
            action,
            lambda view: see_other(
                url_for(page, project=project, view=view, did=None if view else did)
            ),
            lambda _: json_response(self._view(project)),
            lambda error: self._page(project, error),
        )

    def _start(self, project: int, body: bytes, is_form: bool) -> Run:
        asked: msgspec.Struct = parse_fields(body, is_form, self.kind.asked, self.fields_of)
        self.client()
        self.projects.check(project)
        return self.store.request(self.kind, project, asked)

    def _address(self, run: Run) -> str:
        return url_for(f"{self.kind.name}.run", project=run.project, run=run.id)

    def _make_view(self, project: int) -> int:
        client, made = self.client(), self._last(project)
        if made is None:
            raise BadRequest("There is no report yet to make a view of.")
        assert self.kind.tasks is not None
        tasks = self.kind.tasks(made[1])
        if not tasks:
            raise BadRequest("The report lists no task: there is nothing to make a view of.")
        return client.show_tasks(project, self.kind.title, tasks)

    def _last(self, project: int) -> tuple[Run, Any] | None:
        made = self.store.last(self.kind, project)
        return None if made is None else (made[0], self.shown(project, made[1]))

    def _view(self, project: int, of: Run | None = None) -> RunsView:
        """Return a run with its report, else the newest and the newest report; and all runs."""
        runs = self.store.runs(self.kind, project)
        made = self._last(project) if of is None else (of, self._report(of))
        run, report = (None, None) if made is None else made
        is_done = any(each.state == "done" for each in ([of] if of else runs))

        view = VIEWS.get(self.kind.name, RunsView)
        number, finished = (None, None) if run is None else (run.id, run.finished)
        return view(
            project=project,
            run=of or next(iter(runs), None),
            runs=runs,
            report=report,
            is_outdated=is_done and report is None,
            report_run=number,
            finished=finished,
            **self.more(project),
        )

    def _report(self, run: Run) -> Any | None:
        report = self.store.report(self.kind, run)
        return None if report is None else self.shown(run.project, report)

    def _page(
        self,
        project: int,
        refusal: BackendError | None = None,
        typed: Form | None = None,
        of: Run | None = None,
    ) -> Response:
        """Render the page; `of` is the run whose report is shown: None for the newest."""
        view = self._view(project, of)
        run, url = view.run, url_for(f"{self.kind.name}.page", project=project)
        is_open = run is not None and not run.is_over
        is_queued = run is not None and run.state == "queued"
        template = f"{self.kind.name.replace('-', '_')}.html"

        values = {
            "shown": view,
            "project": project,
            "report": view.report,
            "done": view.done(request.args.get("did", "")),
            "outdated": view.outdated("" if of is None else url),
            "kind": self.kind,
            "is_open": is_open,
            "at_work": self.store.at_work() if is_queued else None,
            "is_one": of is not None,
            "view": request.args.get("view", type=int),
            "no_key": no_key(self.services.page_client, self.kind.use),
            # What a refused form had in its fields: the last value of each, and all.
            "typed": last_values(typed or {}),
            "lists": typed or {},
        }
        return html_page(template, refusal, **self.page_values(project), **values)


class LabelErrorRoutes(RunRoutes):
    """Answer the routes of ``/projects/<id>/label-errors``."""

    @property
    def confirmed(self) -> ConfirmedAnnotations:
        """The annotations that people have confirmed as right."""
        return ConfirmedAnnotations(self.services.database)

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

    def more(self, project: int) -> _Json:
        """Tell the annotations of the last report that are confirmed as they were compared."""
        confirmed, made = self.confirmed.of(project), self.store.last(self.kind, project)
        tasks = {
            each.annotation: each.task
            for each in (made[1].suspicions if made else ())
            if confirmed.get(each.annotation) == each.updated
        }
        told = [Confirmed(annotation, task) for annotation, task in tasks.items()]
        return {"confirmed": told, "people": self._people(project)}

    def _people(self, project: int) -> list[str]:
        """Say of whom the newest version says something, as on the learning page."""
        try:
            versions = self.services.learner.versions.versions(project)
        except ModelUnavailable:
            return []
        newest = next(iter(versions), None)
        return [] if newest is None else [each.sentence for each in newest.people]

    def _confirm(self, project: int, is_form: bool) -> None:
        asked = parse_fields(self.body.read(MAX_FORM_BYTES), is_form, Confirmation)
        made = self.store.last(self.kind, project)
        found = made[1].suspicions if made else ()
        if (asked.annotation, asked.updated) not in {(e.annotation, e.updated) for e in found}:
            raise BadRequest(
                f"The last report does not have this version of annotation {asked.annotation}: "
                "load the page again."
            )
        self.confirmed.confirm(project, asked.annotation, asked.updated)

    def _take_back(self, project: int, is_form: bool) -> None:
        asked = parse_fields(self.body.read(MAX_FORM_BYTES), is_form, Confirmation)
        self.confirmed.take_back(project, asked.annotation)


class WordsRoutes(RunRoutes):
    """Answer the routes of ``/projects/<id>/words``."""

    def add_routes(self, routes: Blueprint, start: str) -> None:
        """Add the route that writes words into the labeling config."""
        use = f"{start}/<{URL_NUMBER}:run>/use"
        routes.add_url_rule(use, "use", self.use, methods=["POST"])

    def fields_of(self, form: Form) -> _Json:
        """Return the fields: a wording is a line."""
        fields: _Json = {**last_values(form)}
        lines = fields.get("wordings", "").splitlines()
        return fields | {"wordings": [each for each in lines if each]}

    def page_values(self, project: int) -> _Json:
        return {
            "label": request.args.get("label", "")[:200],
            "max_wordings": MAX_WORDINGS,
            "max_pictures": MOST_WORD_IMAGES,
        }

    def use(self, project: int, run: int) -> Response:
        """Write the words of a row into the project's labeling config."""
        return self.act(project, lambda is_form: self._use(project, run, is_form))

    def _use(self, project: int, run: int, is_form: bool) -> None:
        row = parse_fields(self.body.read(MAX_FORM_BYTES), is_form, RowRequest).row
        client, found = self.client(), self.store.get(self.kind, project, run)
        report: WordsReport | None = self.store.report(self.kind, found)
        if report is None:
            raise BadRequest(f"The run {run} has no words to use: check the words again.")
        conflict = (
            f"The labeling config of project {project} was changed since the words were measured: "
            "measure them again."
        )
        client.replace_label_config(project, report.config, report.config_with(row), conflict)
        self.store.request(self.kind, project, AskedWords())  # what was checked before is old now


class DatasetRoutes(RunRoutes):
    """Answer the routes of ``/projects/<id>/datasets``."""

    def add_routes(self, routes: Blueprint, start: str) -> None:
        """Add the routes that answer with a file and delete a data set."""
        one = f"{start}/<{URL_NUMBER}:run>"
        routes.add_url_rule(f"{one}/file", "file", self.file, methods=["GET"])
        routes.add_url_rule(f"{one}/delete", "delete", self.delete, methods=["POST"])

    def fields_of(self, form: Form) -> _Json:
        """Return the fields: several formats may come, and an annotator has a field of its own."""
        fields: _Json = {"pictures": False, **last_values(form)}
        annotator = fields.pop("annotator", "").strip()
        if annotator:
            fields["annotations"] = annotator
        lines = filter(str.strip, fields.pop("renamed", "").splitlines())
        pairs = [line.partition("=") for line in lines]
        if not all(equals for _, equals, _ in pairs):
            raise BadRequest("Expected lines such as House=Building for renamed labels.")
        fields["renamed"] = {old.strip(): new.strip() for old, _, new in pairs}
        return fields | {"formats": form.get("formats", [])}

    def page_values(self, project: int) -> _Json:
        """Return what the form shows, and how long data sets are kept."""
        return {
            "annotation_rules": RULES,
            "overlap_rules": OVERLAPS,
            "formats": {each.name: each.title for each in WRITERS.all()},
            "days": DAYS_KEPT,
            "renamed": request.args.get("renamed", "")[:100],
        }

    def file(self, project: int, run: int) -> Response:
        """Answer with the ZIP file of a data set, or raise `NotFound`, which says why."""
        found = self.store.get(self.kind, project, run)
        path = file_of(self.services.settings, found)
        if found.state != "done":
            raise NotFound(f"The data set {run} is {found.state}: it has no file.")
        if not path.is_file():
            raise NotFound(
                f"The file of the data set {run} is not on this machine: another backend has made "
                "it, or it was removed. Export it again."
            )
        return send_file(
            path, "application/zip", as_attachment=True, download_name=file_name(found)
        )

    def delete(self, project: int, run: int) -> Response:
        """Delete a data set, done or not."""
        return self.act(project, lambda _: self._delete(self.store.get(self.kind, project, run)))

    def _delete(self, run: Run) -> None:
        self.store.delete(run)
        if run.state != "running":  # its backend removes the files as soon as it notices
            self.kind.forget(self.services.settings, run)
