"""Serve the page of a project: its five steps, which one comes next, and what needs a look."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

import msgspec
from flask import Blueprint, Response, request, url_for
from msgspec.structs import asdict, replace

from backend.errors import (
    LabelConfigError,
    ModelUnavailable,
    NotFound,
    StudioRefused,
    StudioUnreachable,
)
from backend.feedback.annotation_table import PRELABELLED
from backend.feedback.report.hours_left import MOST_TIMED, Hours, at_pace
from backend.jobs.job_store import Job
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.set_up import is_annotated, own_address, tools_advice
from backend.prediction.predictor import ModelVersions
from backend.projects.failures import FailureStore
from backend.runs.agreement import AGREEMENT
from backend.runs.checks import ADD_CONTROL, CHECKS, AskedChecks
from backend.runs.dataset import DATASETS
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations
from backend.runs.words import WORDS, WordsReport
from backend.services import Services
from backend.views.glance import GlancedTask, LearnedChanges, glance
from backend.views.jobs import JobDetail, JobNotes
from backend.views.next_pictures import NextPicturesView
from backend.views.next_step import TaskCounts
from backend.views.project import (
    Finding,
    Learned,
    NewestChecks,
    NewestDataset,
    ProjectState,
    ProjectView,
    WordsCheck,
)
from backend.web.middleware.errors import json_response
from backend.web.pages.dashboard import USE, describe_job
from backend.web.pages.forms import PROJECT, missing_project, no_key
from backend.web.pages.html import html_page, is_for_people
from backend.web.pages.report import read_state
from backend.web.pages.status import StatusSerializer
from clearclip_core.quantities import inflected

_JOBS_SHOWN: Final = 3
_UNSERVED_SHOWN: Final = 5


@dataclass(frozen=True)
class Counted:
    """What Label Studio has said of a project, and when, in seconds since the epoch."""

    counts: TaskCounts
    config: LabelConfig
    version: str  # of the model in use
    at: float


@dataclass(frozen=True, eq=False)
class ProjectRoutes:
    """Answer ``/projects/<id>``, from the database and Label Studio."""

    services: Services
    versions: ModelVersions
    serializer: StatusSerializer
    #: project -> what Label Studio has said of it last, for while it is away
    _counted: dict[int, Counted] = field(default_factory=dict)

    def blueprint(self) -> Blueprint:
        routes = Blueprint("project", __name__)
        routes.add_url_rule(PROJECT, "page", self.page, methods=["GET"])
        return routes

    def page(self, project: int) -> Response:
        """Answer a browser with the page, and a program with its figures as JSON."""
        view = self.view(project)
        if not is_for_people():
            return json_response(view)
        job, task_url = self._asked_job(project), partial(self.services.files.task_url, project)
        notes = None if job is None else JobNotes.of(job, task_url)
        strip = NextPicturesView.read(self.services, project)
        changes = LearnedChanges.read(self.services.learner.versions, project)
        return html_page(
            "project.html",
            view=view,
            job=job,
            notes=notes,
            strip=strip,
            changes=changes,
            own_address=own_address(self.services.settings),
            no_key=no_key(self.services.page_client, USE),
        )

    def _asked_job(self, project: int) -> JobDetail | None:
        """Return the job of this project that the query names."""
        store, asked = self.services.store, request.args.get("job", "")
        with suppress(NotFound, ValueError):
            job = store.get_job(int(asked))
            if job.project == project:
                return describe_job(store, self.serializer, job)
        return None

    def view(self, project: int) -> ProjectView:
        """Return what the page shows; raises `NotFound` where there is no such project."""
        # Jobs first: the counts of one that is over are its last, as nothing renews the page.
        rows = self.services.store.list_jobs(project, _JOBS_SHOWN)
        counted, error = self._count(project)
        trouble = self.serializer.scrub(str(error or ""))
        counts = None if counted is None else counted.counts
        words, learned = self._words(project, counted), self._learned(project, counts)
        data_set, hours_left = self._data_set(project, counts), self._hours(project, counts)
        jobs = tuple(self.serializer.job(job) for job in rows)
        state = ProjectState(
            project=project,
            counts=counts,
            jobs=jobs,
            words=words,
            learned=learned,
            data_set=data_set,
            hours=hours_left,
            has_key=self.services.page_client is not None,
        )

        told = counted.at if counted is not None and trouble else None
        is_away = isinstance(error, StudioUnreachable)
        view = ProjectView(
            project=project,
            counts=counts,
            counted=told,
            trouble=trouble,
            is_away=is_away,
            jobs=jobs,
            words=words,
            hours=hours_left,
            learned=learned,
            data_set=data_set,
        )
        view = replace(
            view,
            read=read_state(self.services, project, counts.annotated if counts else None),
            checks=self._checks(project),
            findings=list(self._findings(project, counts)),
        )
        view = replace(view, glance=self._glance(project, counted, jobs))
        return view.with_steps(state, url_for, self.services.files.task_url(project) or "")

    def _glance(
        self, project: int, counted: Counted | None, jobs: Sequence[Job]
    ) -> tuple[GlancedTask, ...]:
        """Choose the pictures that are shown with their masks.

        They are not asked for while a job is at work: the page renews itself meanwhile.
        """
        if counted is None or any(not job.over for job in jobs):
            return ()
        by_confidence = counted.config.score == "confidence"
        return glance(self.services.scores, project, counted.version, by_confidence=by_confidence)

    # ---- the steps -------------------------------------------------------------------------------

    def _count(self, project: int) -> tuple[Counted | None, Exception | None]:
        """Return what Label Studio says now, else said last, and why it says nothing now."""
        if (client := self.services.page_client) is None:
            return None, None
        try:
            counted = self._count_tasks(client, project)
        except (LabelConfigError, ModelUnavailable, StudioRefused, StudioUnreachable) as error:
            if isinstance(error, StudioRefused) and error.status == 404:
                self._counted.pop(project, None)
                raise missing_project(project) from None
            return self._counted.get(project), error
        self._counted[project] = counted
        return counted, None

    def _count_tasks(self, client: LabelStudioClient, project: int) -> Counted:
        """Ask Label Studio for the counts of a project, and for its labeling config."""
        found, services = client.project(project), self.services
        config = parse_label_config(found.label_config, services.settings)
        version = self.versions.current(config, project)
        tasks = services.task_scope.count_open(client, found, version)
        regions = client.region_counts(project).joined(services.annotations.region_counts(project))
        keeps_controls = not config.asks and is_annotated(client, project)
        tools = tools_advice(found.label_config, keeps_controls)
        unknown = config.unknown_labels(regions.created_labels or {})
        lost = config.lost_controls(regions.created_annotations or {})

        counts = TaskCounts(
            **asdict(tasks),
            tasks=found.task_number or 0,
            adapt=config.adapt,
            tools=tools,
            shown=bool(found.model_version),
            unknown=unknown,
            lost=lost,
        )
        return Counted(counts, config, version, time.time())

    def _words(self, project: int, counted: Counted | None) -> WordsCheck | None:
        """Return how many labels the last check of all words has found weak; None before it."""
        store = self.services.runs
        for run in store.runs(WORDS, project):
            if (run.asked or {}).get("label"):  # one of another version may have asked for nothing
                continue
            if not run.is_over:
                return WordsCheck(run.id)
            report = store.report(WORDS, run)
            if report is not None:
                weak = {each.label for each in report.advice}
                is_old = counted is not None and self._has_other_words(counted, report)
                labels = len(report.labels)
                return WordsCheck(run.id, run.finished, labels, len(weak), is_old)
        return None

    def _checks(self, project: int) -> NewestChecks | None:
        """Return the results of the newest checks; None before them.

        While they are made, these are what came before them.
        """
        store = self.services.runs
        for run in store.runs(CHECKS, project):
            report = store.report(CHECKS, run)
            if report is not None or not run.is_over:
                before = msgspec.convert(run.asked, AskedChecks)
                results = before.results() if report is None else report.results
                return NewestChecks(run.id, run.finished, results)
        return None

    def _has_other_words(self, counted: Counted, report: WordsReport) -> bool:
        """Return whether the labeling config has other words than when they were checked."""
        with suppress(LabelConfigError):
            checked = parse_label_config(report.config, self.services.settings)
            labels = checked.labels, counted.config.labels
            before, now = ({each.name: each.prompts for each in some} for some in labels)
            return before != now
        return True

    def _hours(self, project: int, counts: TaskCounts | None) -> Hours | None:
        if counts is None or not counts.left:
            return None
        times = self.services.annotations.newest_times(project, PRELABELLED, MOST_TIMED)
        return at_pace(counts.needed, times)

    def _learned(self, project: int, counts: TaskCounts | None) -> Learned | None:
        """Return the versions in use and that wait, with their gains; None: that is not known."""
        learner, settings = self.services.learner, self.services.settings
        try:
            state = learner.versions.state(project)
            versions = learner.versions.versions(project)
        except ModelUnavailable:
            return None

        adapt = counts.adapt if counts else state.adapt or settings.adapt
        gains = {each.number: each.gain for each in versions}
        is_waiting = state.waits in gains and adapt != "off"
        return Learned(
            live=state.live,
            gain=gains.get(state.live or 0),
            pinned=state.pinned,
            waits=state.waits if is_waiting else None,
            waits_gain=gains.get(state.waits or 0),
            changed=state.changed,
            asked=state.asked,
            every=state.due_after(settings.adapt_every),
            trouble=self.serializer.scrub(state.trouble),
            adapt=adapt,
            made_again=project in learner.made_again(),
        )

    def _data_set(self, project: int, counts: TaskCounts | None) -> NewestDataset:
        """Return the newest data set, and how many tasks were corrected since it was asked for."""
        made = self.services.runs.last(DATASETS, project)
        since = 0.0 if made is None else made[0].created
        corrected = self.services.annotations.count_tasks(project, since)
        if made is None:  # Label Studio knows before all of them are read
            done = corrected if counts is None else counts.annotated
            return NewestDataset(corrected_since=done)
        run, file = made
        return NewestDataset(run.id, run.finished, corrected, file.pictures, file.left_out_count)

    # ---- what needs a look -----------------------------------------------------------------------

    def _findings(self, project: int, counts: TaskCounts | None) -> Iterator[Finding]:
        """Yield what needs a look, whatever there is of it."""
        services = self.services

        yield from self._unserved_findings(project)
        failing = FailureStore(services.database).count(project=project)
        if failing.tasks:
            errors = url_for("dashboard.page", _anchor="errors")
            what = f"{inflected(failing.tasks, 'task')} without a prediction"
            yield Finding(failing.tasks, what, errors, failing.since)

        if counts is not None and counts.skipped:
            what = f"{inflected(counts.skipped, 'task')} that somebody has skipped"
            yield Finding(counts.skipped, what, services.files.task_url(project))

        suspected = services.runs.last(LABEL_ERRORS, project)
        if suspected is not None:
            run, report = suspected
            unseen = report.without(ConfirmedAnnotations(services.database).of(project))
            page = url_for("label-errors.page", project=project)
            n_annotations = len({each.annotation for each in unseen.suspicions})
            what = f"suspicious {inflected(n_annotations, 'annotation')}"
            yield Finding(n_annotations, what, page, run.finished)

        compared = services.runs.last(AGREEMENT, project)
        if compared is not None:
            page = url_for("agreement.page", project=project)
            count = compared[1].dispute_count
            what = f"{inflected(count, 'picture')} on which annotators disagree"
            yield Finding(count, what, page, compared[0].finished)

        yield from self._label_findings(project, counts)
        checked = services.runs.last(CHECKS, project)
        if checked is not None:
            run, checks = checked
            what = f"failed {inflected(checks.n_failed, 'check')} of the set-up"
            page = url_for("checks.page", project=project)
            yield Finding(checks.n_failed, what, page, run.finished)

    def _unserved_findings(self, project: int) -> Iterator[Finding]:
        """Yield the first tasks that Label Studio cannot serve, and how many more there are."""
        polls = self.services.change_poller.polls.list_polls()
        unserved = next((each.unserved for each in polls if each.project == project), {})
        for task, found in islice(unserved.items(), _UNSERVED_SHOWN):
            yield Finding(
                1,
                f"task that Label Studio cannot serve: {task}",
                self.services.files.task_url(project, task),
                remedy="Delete the annotation that breaks it: clearclip-backend doctor --project "
                f"{project} names it. Until then no data set has the task. "
                f"{self.serializer.scrub(found.reason)}",
            )
        if (more := len(unserved) - _UNSERVED_SHOWN) > 0:
            yield Finding(more, f"more such {inflected(more, 'task')}", None)

    def _label_findings(self, project: int, counts: TaskCounts | None) -> Iterator[Finding]:
        if counts is None:
            return
        for control, count in counts.lost.items():
            what = f"{inflected(count, 'region')} made with the control {control!r}, which the "
            what += "labeling config lacks, counted in all annotations"
            yield Finding(count, what, None, remedy=ADD_CONTROL.format(control))
        for label, count in counts.unknown.items():
            yield Finding(
                count,
                f"{'region has' if count == 1 else 'regions have'} the label {label!r}, which the "
                "labeling config no longer has, counted in all annotations",
                url_for("datasets.page", project=project, renamed=label, _anchor="renamed"),
                remedy=f'If it was renamed, write the old name as alias: <Label value="NEW NAME" '
                f'alias="{label}"/>. Until then, data sets skip its pictures, unless you name '
                "its new label there.",
            )
