"""Serve the page of a project: its five steps, and what needs a look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, request, url_for

from backend.errors import (
    LabelConfigError,
    ModelUnavailable,
    NotFound,
    StudioRefused,
    StudioUnreachable,
)
from backend.feedback.report.hours_left import RECENT, Hours, at_pace
from backend.jobs.job_store import Job
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.failures import FailureStore
from backend.prediction.predictor import ModelVersions
from backend.runs.agreement import AGREEMENT
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations
from backend.runs.words import WORDS
from backend.services import Services
from backend.settings import Settings
from backend.web.middleware.errors import json_response
from backend.web.pages.dashboard import USE, describe_job
from backend.web.pages.forms import PROJECT, no_key
from backend.web.pages.html import html_page, is_for_people
from backend.web.pages.report import describe_reading
from backend.web.pages.status import StatusSerializer
from clearclip_core.quantities import inflected

_Json = dict[str, Any]

_JOBS_SHOWN: Final = 3


class TaskCounts(msgspec.Struct, frozen=True):
    """What Label Studio says of the tasks and labels of a project now.

    Attributes:
        tasks: all tasks.
        left: tasks without an annotation.
        waiting: of these, tasks without a prediction of the model version in use.
        older: of these, tasks with a prediction of another version.
        unknown: labels that regions have and the label config has not -> number of regions.
    """

    tasks: int
    left: int
    waiting: int
    older: int
    unknown: dict[str, int] = {}


class Finding(msgspec.Struct, frozen=True):
    """What needs a look: how many, of what, where, and when it was found."""

    count: int
    what: str
    url: str | None
    at: float | None = None
    remedy: str = ""


def count_tasks(
    client: LabelStudioClient, versions: ModelVersions, settings: Settings, project: int
) -> TaskCounts:
    """Ask Label Studio for the counts of a project.

    Raises:
        LabelConfigError: the label config has nothing to draw.
        ModelUnavailable: the weights are not there.
        StudioRefused: there is no such project for this token.
        StudioUnreachable: Label Studio does not answer.
    """
    found = client.project(project)
    config = parse_label_config(found.label_config, settings)
    version = versions.current(config, project)
    left = client.count(project, TaskFilter(labeled=False))
    waiting = TaskFilter(labeled=False, without_version=version)
    older = TaskFilter(labeled=False, without_version=version, min_predictions=1)
    n_waiting = client.count(project, waiting) if left else 0
    n_older = client.count(project, older) if n_waiting else 0
    tasks, regions = max(left, found.task_number or 0), client.region_counts(project)
    return TaskCounts(tasks, left, n_waiting, n_older, config.unknown_labels(regions))


@dataclass(frozen=True, eq=False)
class ProjectRoutes:
    """Answer ``/projects/<id>``, from the database and Label Studio."""

    services: Services
    versions: ModelVersions
    serializer: StatusSerializer

    def blueprint(self) -> Blueprint:
        """Make the blueprint of this route."""
        routes = Blueprint("project", __name__)
        routes.add_url_rule(PROJECT, "page", self.page, methods=["GET"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its figures as JSON."""
        shown = self.describe(project)
        if not is_for_people():
            return json_response(shown)
        job = self._asked_job(project)
        return html_page(
            "project.html", **shown, job=job, no_key=no_key(self.services.page_client, USE)
        )

    def _asked_job(self, project: int) -> _Json | None:
        """Return the job of this project that the query names."""
        store, asked = self.services.store, request.args.get("job", "")
        with suppress(NotFound, ValueError):
            job = store.get_job(int(asked))
            if job.project == project:
                return describe_job(store, self.serializer, job)
        return None

    def describe(self, project: int) -> _Json:
        """Return what the page shows."""
        counts, trouble = self._count(project)
        jobs = self.services.store.list_jobs(project, _JOBS_SHOWN)
        words, data_set = self._words(project), self._data_set(project)
        learned = self._learned(project)
        return {
            "project": project,
            "counts": counts,
            "trouble": trouble,
            "next": _next_step(counts, jobs, words, learned, data_set),
            "jobs": [self.serializer.job(job) for job in jobs],
            "words": words,
            "hours": self._hours(project, counts),
            "learned": learned,
            "data_set": data_set,
            "read": describe_reading(self.services, project),
            "findings": list(self._findings(project, counts)),
        }

    # ---- the steps -------------------------------------------------------------------------------

    def _count(self, project: int) -> tuple[TaskCounts | None, str]:
        client = self.services.page_client
        if client is None:
            return None, ""
        try:
            return count_tasks(client, self.versions, self.services.settings, project), ""
        except (LabelConfigError, ModelUnavailable, StudioRefused, StudioUnreachable) as error:
            return None, self.serializer.scrub(str(error))

    def _words(self, project: int) -> _Json | None:
        """Return how many labels the last check of all words has found weak; None before it."""
        store = self.services.runs
        for run in store.runs(WORDS, project):
            report = store.report(WORDS, run) if run.state == "done" else None
            if report is not None and not report.label:
                weak = {each.label for each in report.advice}
                counts = {"labels": len(report.labels), "weak": len(weak)}
                return {"run": run.id, "at": run.finished, **counts}
        return None

    def _hours(self, project: int, counts: TaskCounts | None) -> Hours | None:
        if counts is None or not counts.left:
            return None
        times_s = self.services.annotations.newest_times(project, "compared", RECENT)
        return at_pace(counts.left, times_s)

    def _learned(self, project: int) -> _Json | None:
        """Return the version in use with its gain, and what waits; None where that is not known."""
        versions = self.services.learner.versions
        with suppress(ModelUnavailable):
            state = versions.state(project)
            live = [each for each in versions.versions(project) if each.number == state.live]
            return {
                "live": state.live,
                "gain": live[0].adapted_iou - live[0].text_iou if live else None,
                "waits": state.changed,
                "trouble": self.serializer.scrub(state.trouble),
                "adapt": self.services.settings.adapt,
            }
        return None

    def _data_set(self, project: int) -> _Json:
        """Return the newest data set, and how many tasks were corrected since it was asked for."""
        made = [run for run in self.services.runs.runs(DATASETS, project) if run.state == "done"]
        newest = made[0] if made else None
        since = 0.0 if newest is None else newest.created
        return {
            "run": None if newest is None else newest.id,
            "at": None if newest is None else newest.finished,
            "corrected_since": self.services.annotations.count_tasks(project, since),
        }

    # ---- what needs a look -----------------------------------------------------------------------

    def _findings(self, project: int, counts: TaskCounts | None) -> Iterator[Finding]:
        """Yield what needs a look, whatever there is of it."""
        services = self.services
        failing = FailureStore(services.database).count(project=project)
        if failing.tasks:
            errors = url_for("dashboard.page", _anchor="errors")
            what = f"{inflected(failing.tasks, 'task')} without a prediction"
            yield Finding(failing.tasks, what, errors, failing.since)
        suspected = services.runs.last(LABEL_ERRORS, project)
        if suspected is not None:
            run, report = suspected
            suspicions = report.without(
                ConfirmedAnnotations(services.database).of(project)
            ).suspicions
            page = url_for("label-errors.page", project=project)
            n_annotations = len({each.annotation for each in suspicions})
            what = f"suspicious {inflected(n_annotations, 'annotation')}"
            yield Finding(n_annotations, what, page, run.finished)
        compared = services.runs.last(AGREEMENT, project)
        if compared is not None:
            page = url_for("agreement.page", project=project)
            count = compared[1].dispute_count
            what = f"{inflected(count, 'picture')} on which annotators disagree"
            yield Finding(count, what, page, compared[0].finished)
        yield from self._label_findings(project, counts)

    def _label_findings(self, project: int, counts: TaskCounts | None) -> Iterator[Finding]:
        if counts is None:
            return
        for label, count in counts.unknown.items():
            yield Finding(
                count,
                f"{'region has' if count == 1 else 'regions have'} the label {label!r}, which the "
                "label config no longer has",
                url_for("datasets.page", project=project, renamed=label, _anchor="renamed"),
                remedy=f'If it was renamed, write the old name as alias: <Label value="NEW NAME" '
                f'alias="{label}"/>. Until then, data sets skip its pictures, unless you name '
                "its new label there.",
            )


def _next_step(
    counts: TaskCounts | None,
    jobs: list[Job],
    words: _Json | None,
    learned: _Json | None,
    data_set: _Json,
) -> str:
    """Return the step to do next; empty where there is none, or where that is not known."""
    if words is None:
        return "words"
    if counts is None:
        return ""
    is_prelabeled = any(job.kind != "withdrawal" and not job.over for job in jobs)
    if counts.waiting and not is_prelabeled:
        return "prelabel"
    if counts.left:
        return "correct"
    if learned is not None and learned["waits"] and learned["adapt"] != "off":
        return "learn"
    return "export" if data_set["corrected_since"] else ""
