"""Serve the page of a project: its five steps, which one comes next, and what needs a look."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal

import msgspec
from flask import Blueprint, Response, request, url_for

from backend.errors import (
    LabelConfigError,
    ModelUnavailable,
    NotFound,
    StudioRefused,
    StudioUnreachable,
)
from backend.feedback.annotation_table import PRELABELLED
from backend.feedback.report.hours_left import MOST_TIMED, Hours, at_pace, hours
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
from backend.settings import Adapt
from backend.web.middleware.errors import json_response
from backend.web.pages.dashboard import USE, describe_job
from backend.web.pages.forms import PROJECT, missing_project, no_key
from backend.web.pages.html import count_with_noun, html_page, is_for_people
from backend.web.pages.report import describe_reading
from backend.web.pages.status import StatusSerializer
from clearclip_core.quantities import grouped, inflected

_Json = dict[str, Any]

_JOBS_SHOWN: Final = 3

REMAKING: Final = (
    "The version that was in use is being made again, for the model of now. Until then the words "
    "alone would predict, so masks stay as they are, and new tasks wait for it."
)
_UNSERVED_SHOWN: Final = 5


#: A step; "look" for what needs a look before anybody can go on, "" where nothing is left to do.
Step = Literal["words", "prelabel", "correct", "learn", "export", "look", ""]


class TaskCounts(msgspec.Struct, frozen=True):
    """What Label Studio says of the tasks and labels of a project now."""

    tasks: int
    left: int  # tasks that Label Studio does not take for finished, without skipped ones
    waiting: int  # of these, without an annotation and a prediction of the model version in use
    older: int  # of those that wait, tasks with a prediction of another version
    skipped: int = 0  # tasks without an annotation that somebody has skipped
    failed: int = 0  # of those that wait, those that failed when they were last predicted
    failed_older: int = 0  # of those that failed, tasks with a prediction of another version
    adapt: Adapt = "auto"  # who decides what corrections teach
    tools: str = ""  # how to get tools that ask for masks; empty where there are some
    shown: bool = True  # whether Label Studio shows somebody's predictions
    unknown: dict[str, int] = {}  # label that the config lacks -> regions
    lost: dict[str, int] = {}  # control that the config lacks -> regions
    withheld: int = 0  # of those that wait, those that an experiment leaves out
    begun: int = 0  # of those left, tasks with an annotation: they need one of somebody else
    needed: int = 0  # annotations that the tasks left need

    @property
    def done(self) -> int:
        """The number of tasks that Label Studio takes for finished."""
        return self.tasks - self.left - self.skipped

    @property
    def annotated(self) -> int:
        """The number of tasks with an annotation."""
        return self.done + self.begun

    @property
    def unseen(self) -> int:
        """The number of tasks left that have no annotation: a job predicts these."""
        return self.left - self.begun

    @property
    def to_predict(self) -> int:
        """The number of tasks that a job would predict."""
        return self.waiting - self.failed - self.withheld


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides on the next step of a project."""

    counts: TaskCounts | None = None  # None where Label Studio never said
    words_checked: bool = False  # the words of now are, or are being, checked
    predicting: bool = False  # whether a job predicts its tasks, or will by itself
    version_waits: bool = False  # whether a learned version waits for somebody to decide
    made_again: bool = False  # whether the version is being made again, for another model
    corrected: int = 0  # tasks that were corrected since the last data set


def next_step(facts: Facts) -> Step:
    """Return the step to do next.

    It is one that a person can do now, and that changes something: learning goes on by itself, and
    pictures that cannot be read stop nobody from correcting the others.

    >>> next_step(Facts(counts=TaskCounts(tasks=15, left=15, waiting=3, older=0, failed=3)))
    'correct'
    """
    counts = facts.counts
    if facts.version_waits:
        return "learn"  # one press, and what is predicted from then on is better
    if counts is None:
        return ""
    if counts.to_predict and not facts.predicting:
        if counts.to_predict > counts.older and not facts.words_checked:
            return "words"
        if not facts.made_again:  # its masks would be worse than those that are there
            return "prelabel"
    if counts.left:
        return "look" if counts.failed == counts.left and not facts.predicting else "correct"
    return "export" if facts.corrected else ""


def describe_progress(counts: TaskCounts, left: Hours | None) -> str:
    """Say how far the tasks are, after the number of those that are done.

    >>> describe_progress(TaskCounts(tasks=9, left=4, waiting=0, older=0, begun=1), Hours(0.2))
    "of 9 tasks done, 4 left (1 needs somebody else, too): about 12 min at today's pace"
    """
    said = f"of {count_with_noun(counts.tasks, 'task')} done, {grouped(counts.left)} left"
    if counts.begun:
        need = "needs" if counts.begun == 1 else "need"
        said += f" ({grouped(counts.begun)} {need} somebody else, too)"
    if counts.skipped:
        said += f", {grouped(counts.skipped)} skipped"
    if left is not None:
        said += f": about {hours(left.hours)} at today's pace"
    return said


def describe_masks(counts: TaskCounts) -> str:
    """Say how many tasks have masks of the version in use, and why the others have none.

    Each of the others is counted once, after the number of those that have them.

    >>> describe_masks(TaskCounts(20, 20, waiting=3, older=3, failed=3, failed_older=3))
    'of 20 tasks left to correct have masks of the version in use; 3 could not be predicted and \
keep older ones'
    """
    has = "has" if counts.unseen - counts.waiting == 1 else "have"
    tasks = count_with_noun(counts.unseen, "task")
    said = f"of {tasks} left to correct {has} masks of the version in use"
    if older := counts.older - counts.failed_older:
        said += f"; {grouped(older)} {'has' if older == 1 else 'have'} older ones"
    if failed := counts.failed - counts.failed_older:
        said += f"; {grouped(failed)} could not be predicted"
    if kept := counts.failed_older:
        keep = "keeps" if kept == 1 else "keep"
        said += f"; {grouped(kept)} could not be predicted and {keep} older ones"
    return said


@dataclass(frozen=True)
class Counted:
    """What Label Studio has said of a project, and when, in seconds since the epoch."""

    counts: TaskCounts
    config: LabelConfig
    at: float


class Finding(msgspec.Struct, frozen=True):
    """What needs a look: how many, of what, where, and when it was found."""

    count: int
    what: str
    url: str | None
    at: float | None = None
    remedy: str = ""


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
        shown = self.describe(project)
        if not is_for_people():
            return json_response(shown)
        job, key = self._asked_job(project), no_key(self.services.page_client, USE)
        own = own_address(self.services.settings)
        return html_page(
            "project.html", **shown, job=job, own_address=own, no_key=key, remaking=REMAKING
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
        """Return what the page shows; raises `NotFound` where there is no such project."""
        jobs = self.services.store.list_jobs(project, _JOBS_SHOWN)  # first: the counts of one that
        counted, error = self._count(project)  # is over are its last, as nothing renews the page
        trouble = self.serializer.scrub(str(error or ""))
        counts = None if counted is None else counted.counts
        words, learned = self._words(project, counted), self._learned(project, counts)
        data_set, done = self._data_set(project, counts), counts.annotated if counts else None
        hours_left = self._hours(project, counts)
        # a paused job waits for somebody
        busy = (job.kind != "withdrawal" and job.state in ("queued", "running") for job in jobs)
        facts = Facts(
            counts=counts,
            words_checked=words is not None and not words["is_old"],
            predicting=any(busy),
            version_waits=learned is not None and learned["waits"] is not None,
            made_again=learned is not None and learned["made_again"],
            corrected=data_set["corrected_since"],
        )
        return {
            "project": project,
            "counts": counts,
            "counted": counted.at if counted is not None and trouble else None,
            "trouble": trouble,
            "is_away": isinstance(error, StudioUnreachable),
            "next": next_step(facts),
            "jobs": [self.serializer.job(job) for job in jobs],
            "words": words,
            "hours": hours_left,
            "masks": "" if counts is None else describe_masks(counts),
            "progress": "" if counts is None else describe_progress(counts, hours_left),
            "learned": learned,
            "data_set": data_set,
            "read": describe_reading(self.services, project, done),
            "checks": self._checks(project),
            "findings": list(self._findings(project, counts)),
        }

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

        counts = TaskCounts(
            **msgspec.structs.asdict(tasks),
            tasks=found.task_number or 0,
            adapt=config.adapt,
            tools=tools_advice(found.label_config, keeps_controls),
            shown=bool(found.model_version),
            unknown=config.unknown_labels(regions.created_labels or {}),
            lost=config.lost_controls(regions.created_annotations or {}),
        )
        return Counted(counts, config, time.time())

    def _words(self, project: int, counted: Counted | None) -> _Json | None:
        """Return how many labels the last check of all words has found weak; None before it."""
        store = self.services.runs
        for run in store.runs(WORDS, project):
            if (run.asked or {}).get("label"):  # one of another version may have asked for nothing
                continue
            if not run.is_over:
                return {"run": run.id, "at": None, "labels": 0, "weak": 0, "is_old": False}
            report = store.report(WORDS, run)
            if report is not None:
                weak = {each.label for each in report.advice}
                is_old = counted is not None and self._has_other_words(counted, report)
                counts = {"labels": len(report.labels), "weak": len(weak), "is_old": is_old}
                return {"run": run.id, "at": run.finished, **counts}
        return None

    def _checks(self, project: int) -> _Json | None:
        """Return the results of the newest checks; None before them.

        While they are made, these are what came before them.
        """
        store = self.services.runs
        for run in store.runs(CHECKS, project):
            report = store.report(CHECKS, run)
            if report is not None or not run.is_over:
                before = msgspec.convert(run.asked, AskedChecks)
                results = before.results() if report is None else report.results
                return {"run": run.id, "at": run.finished, "results": results}
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

    def _learned(self, project: int, counts: TaskCounts | None) -> _Json | None:
        """Return the versions in use and that wait, with their gains; None: that is not known."""
        versions, settings = self.services.learner.versions, self.services.settings
        with suppress(ModelUnavailable):
            state = versions.state(project)
            adapt = counts.adapt if counts else state.adapt or settings.adapt
            gains = {each.number: each.gain for each in versions.versions(project)}
            return {
                "live": state.live,
                "gain": gains.get(state.live or 0),
                "pinned": state.pinned,
                "waits": state.waits if state.waits in gains and adapt != "off" else None,
                "waits_gain": gains.get(state.waits or 0),
                "changed": state.changed,
                "asked": state.asked,
                "every": state.due_after(settings.adapt_every),
                "trouble": self.serializer.scrub(state.trouble),
                "adapt": adapt,
                "made_again": project in self.services.learner.made_again(),
            }
        return None

    def _data_set(self, project: int, counts: TaskCounts | None) -> _Json:
        """Return the newest data set, and how many tasks were corrected since it was asked for."""
        made = self.services.runs.last(DATASETS, project)
        since = 0.0 if made is None else made[0].created
        corrected = self.services.annotations.count_tasks(project, since)
        if made is None:  # Label Studio knows before all of them are read
            done = corrected if counts is None else counts.annotated
            return {"run": None, "at": None, "corrected_since": done}
        run, file = made
        in_file = {"pictures": file.pictures, "left_out": file.left_out_count}
        return {"run": run.id, "at": run.finished, "corrected_since": corrected, **in_file}

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
