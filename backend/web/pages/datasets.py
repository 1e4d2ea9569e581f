"""Serve data sets: ask for one, list them, show one, download and delete it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request, send_file, url_for

from backend.dataset.archives.archive_maker import ArchiveFiles
from backend.dataset.archives.archive_request import ArchiveRequest
from backend.dataset.archives.archive_store import ArchiveStore
from backend.dataset.archives.dataset_archive import DatasetArchive
from backend.dataset.exporter import formats
from backend.errors import ArchiveNotFound, BackendError
from backend.jobs.project_titles import ProjectTitles
from backend.label_studio.download import LabelStudioFiles
from backend.settings import Settings
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import last_values, named_project, parse_dataset, parse_project
from backend.web.pages.html import answer_action, answer_form, html_page, is_for_people
from backend.web.pages.label_studio_token import require_token, token_sentence
from backend.web.pages.project_check import ProjectCheck

Json = dict[str, Any]

#: The start of the routes of one data set; its number is one that a database can hold.
_DATASET = "/datasets/<int(max=2147483647):dataset>"

_USE: Final = "A data set is made of what Label Studio has"


@dataclass(frozen=True, eq=False)
class DatasetRoutes:
    """Answer ``/datasets`` and the routes below it.

    Args:
        settings: what is served.
        store: the archives.
        archives: their files.
        files: makes links to Label Studio.
        body: reads the bodies of requests.
        titles: the projects that can be exported.
        projects: refuses projects that are not there.
    """

    settings: Settings
    store: ArchiveStore
    archives: ArchiveFiles
    files: LabelStudioFiles
    body: BodyReader
    titles: ProjectTitles
    projects: ProjectCheck

    def blueprint(self) -> Blueprint:
        """Make the blueprint of these routes."""
        routes = Blueprint("datasets", __name__)
        routes.add_url_rule("/datasets", "list", self.list_datasets, methods=["GET"])
        routes.add_url_rule("/datasets", "start", self.start, methods=["POST"])
        routes.add_url_rule(_DATASET, "show", self.show, methods=["GET"])
        routes.add_url_rule(_DATASET, "delete", self.delete, methods=["DELETE"])
        routes.add_url_rule(f"{_DATASET}/delete", "remove", self.delete, methods=["POST"])
        routes.add_url_rule(f"{_DATASET}/file", "file", self.file, methods=["GET"])
        return routes

    def list_datasets(self) -> Response:
        """Answer with the newest data sets, of one project or of all; people get a form as well."""
        project = parse_project(request.args)
        if is_for_people():
            return self._page(project)
        found = self.store.list_archives(project)
        return json_response({"datasets": [self._describe(each) for each in found]})

    def start(self) -> Response:
        """Ask for a data set; where an equal one is being made, answer with that.

        A form that is refused comes back with all that was typed into it.
        """
        return answer_form(
            self.body,
            lambda body, is_form: self.store.request(self._parse(body, is_form)),
            lambda archive: see_other(url_for("datasets.show", dataset=archive.id)),
            lambda archive: json_response(
                self._describe(archive), 201, url_for("datasets.show", dataset=archive.id)
            ),
            lambda error, typed: self._page(named_project(last_values(typed)), error, typed),
        )

    def show(self, dataset: int) -> Response:
        """Answer with a data set, and with the first of the tasks that were skipped."""
        shown = self._describe(self.store.get(dataset))
        return html_page("dataset.html", set=shown) if is_for_people() else json_response(shown)

    def file(self, dataset: int) -> Response:
        """Answer with the ZIP file of a data set.

        Raises:
            ArchiveNotFound: there is none, it is not done, or is on another machine.
        """
        archive = self.store.get(dataset)
        path = self.archives.path(archive)
        if archive.state != "done":
            raise ArchiveNotFound(f"The data set {dataset} is {archive.state}: it has no file.")
        if not path.is_file():
            raise ArchiveNotFound(
                f"The file of the data set {dataset} is not on this machine: another backend has "
                "made it, or it was removed. Export it again."
            )
        return send_file(
            path, "application/zip", as_attachment=True, download_name=archive.file_name
        )

    def delete(self, dataset: int) -> Response:
        """Delete a data set, done or not; send a browser back to the list that it came from."""
        listed = named_project(request.args)
        return answer_action(
            lambda _: self._delete(dataset),
            lambda _: see_other(url_for("datasets.list", project=listed)),
            lambda archive: json_response(self._describe(archive)),
            lambda error: self._page(listed, error),
        )

    def _delete(self, dataset: int) -> DatasetArchive:
        archive = self.store.delete(dataset)
        if archive.state != "running":  # who makes it removes the files as soon as it notices
            self.archives.remove(archive)
        return archive

    def _parse(self, body: bytes, is_form: bool) -> ArchiveRequest:
        asked = parse_dataset(body, is_form)
        require_token(self.settings, _USE)
        self.projects.check(asked.project)
        return asked

    def _describe(self, archive: DatasetArchive) -> Json:
        skipped = archive.report.get("skipped", ())
        project = archive.request.project
        return {
            "id": archive.id,
            **archive.request.to_json(),
            "state": archive.state,
            "over": archive.over,
            "done": archive.done,
            "total": archive.total,
            "reason": archive.reason,
            "report": {
                **archive.report,
                "skipped": [
                    {**each, "url": self.files.task_url(project, each["task"])} for each in skipped
                ],
            },
            "size_bytes": archive.size_bytes,
            "created": archive.created,
            "started": archive.started,
            "finished": archive.finished,
            "url": self.files.task_url(project),
        }

    def _page(
        self,
        project: int | None,
        refusal: BackendError | None = None,
        typed: Mapping[str, list[str]] | None = None,
    ) -> Response:
        """Render the form and the newest data sets.

        Args:
            project: whose data sets are listed, and what the form has chosen; None: all, and none.
            refusal: why what a form asked for was not done.
            typed: the values of each field of a form that was refused.
        """
        values = last_values(typed or {})
        return html_page(
            "datasets.html",
            sets=[self._describe(each) for each in self.store.list_archives(project)],
            project=project,
            projects=self.titles.choices(),
            formats=formats(),
            chosen_formats=typed.get("formats", []) if typed else formats()[:1],
            with_pictures="pictures" in values if typed else True,
            typed=values,
            can_export=self.settings.label_studio_api_key is not None,
            no_key=token_sentence(_USE),
            days=self.settings.dataset_days,
            limit_bytes=self.settings.dataset_mb << 20,
            refusal=refusal,
        )
