"""Serve what projects learn: their state, and the decisions of people."""

from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError, BadRequest, LearningRefused
from backend.feedback.report.periods import read_periods
from backend.label_studio.client import required_client
from backend.label_studio.task_filter import TaskFilter
from backend.learning.learner import Learner
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations, LabelErrors, Suspicion
from backend.services import Services
from backend.views.learned import (
    Comparison,
    LearningView,
    Losing,
    VersionView,
    work_sentence,
)
from backend.views.learning import (
    LearningPlots,
    changes_sentence,
    learning_plots,
    missing_figures,
)
from backend.views.next_pictures import NextPicturesView
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import MAX_FORM_BYTES, PROJECT, ActionRequest, parse_fields
from backend.web.pages.html import answer_action, html_page, is_for_people
from clearclip_core import UnlabelledFit
from clearclip_core.quantities import quantity

_LEARNING: Final = f"{PROJECT}/learning"

#: What people decide, as the last part of a route.
ACTIONS = (
    "step",
    "unlabelled",
    "use",
    "unpin",
    "keep-words",
    "learn-label",
    "learn-without",
    "learn-with",
    "reset",
)

_USE: Final = "A project learns from what Label Studio has"

_MOST_CHECKED: Final = 3  # label errors that are named where labels lose
_VERSIONS_SHOWN: Final = 10  # of the list: the newest, until somebody asks for all


def ask_for_version(services: Services, project: int) -> None:
    """Have a version made of all corrections; where there is no example yet, all are read again.

    Raises:
        LearningRefused: the method cannot learn, the version in use was chosen by hand, or the
            project has no annotations.
    """
    versions = services.learner.versions
    services.learner.check()
    state = versions.state(project)
    if not (state.annotations or state.pinned):
        services.change_poller.read_again(project)
    are_read = services.annotations.count_open(project) > 0
    versions.request_step(project, may_have_none=are_read and not state.pinned)


def ask_to_learn_unlabelled(services: Services, project: int) -> None:
    """Have a version made of pictures that nobody has corrected.

    Raises:
        BadRequest: there is no token for Label Studio.
        LearningRefused: the method cannot learn, there are corrections, or too few pictures.
    """
    client, learner = required_client(services.page_client, _USE), services.learner
    learner.check()
    if learner.versions.state(project).annotations:
        raise LearningRefused("The project has corrections, which teach more: use Learn now.")
    if (count := client.count(project, TaskFilter())) < (fewest := UnlabelledFit.FEWEST):
        raise LearningRefused(
            f"Learning from unlabelled pictures takes {fewest} tasks or more, and the "
            f"project has {quantity(count, 'task')}."
        )
    learner.versions.request_step(project, unlabelled=True)


@dataclass(frozen=True, eq=False)
class LearningRoutes:
    """Answer the routes below ``/projects/<id>/learning``; none waits for the model."""

    services: Services
    body: BodyReader

    @property
    def learner(self) -> Learner:
        return self.services.learner

    def blueprint(self) -> Blueprint:
        routes = Blueprint("learning", __name__)
        actions = f"<any({', '.join(map(repr, ACTIONS))}):action>"
        routes.add_url_rule(_LEARNING, "show", self.show, methods=["GET"])
        pictures = f"{PROJECT}/next-pictures"
        routes.add_url_rule(pictures, "next_pictures", self.next_pictures, methods=["GET"])
        routes.add_url_rule(f"{_LEARNING}/{actions}", "act", self.act, methods=["POST"])
        return routes

    def show(self, project: int) -> Response:
        """Answer with the project's page, or with its description as JSON."""
        if is_for_people():
            return self._page(project)
        return json_response(LearningView.read(self.learner, project))

    def next_pictures(self, project: int) -> Response:
        """Answer with the pictures to correct next: a part of a page, or JSON."""
        strip = NextPicturesView.read(self.services, project)
        if not is_for_people():
            return json_response(strip)
        part = html_page("next_pictures.html", project=project, strip=strip)
        part.add_etag()
        part.make_conditional(request)
        return part

    def act(self, project: int, action: str) -> Response:
        """Do what a person has decided; `action` is one of `ACTIONS`."""

        def act(is_form: bool) -> str:
            body = self.body.read(MAX_FORM_BYTES)
            return self._act(project, action, parse_fields(body, is_form, ActionRequest))

        return answer_action(
            act,
            lambda label: see_other(
                url_for("learning.show", project=project, did=action, label=label or None)
            ),
            lambda _: json_response(LearningView.read(self.learner, project)),
            lambda error: self._page(project, error),
        )

    def _act(self, project: int, action: str, asked: ActionRequest) -> str:
        """Do what a person has decided; return the label that it is about, if it is about one."""
        versions = self.learner.versions
        match action:
            case "step":
                required_client(self.services.page_client, _USE)
                ask_for_version(self.services, project)
            case "unlabelled":
                ask_to_learn_unlabelled(self.services, project)

            case "use":
                if asked.number is None:
                    raise BadRequest('Expected "number" to be that of a version; 0: the words.')
                self.learner.use(project, asked.number)
            case "unpin":
                versions.unpin(project)

            case "keep-words" | "learn-label":
                if not asked.label:
                    raise BadRequest('Expected "label" to be the name of a label.')
                versions.keep_words(project, asked.label, kept=action == "keep-words")
            case "learn-without" | "learn-with":
                versions.leave_out(project, asked.person, left_out=action == "learn-without")

            case "reset":
                versions.reset(project)
                self.services.change_poller.read_again(project)
        return asked.label

    def _page(self, project: int, refusal: BackendError | None = None) -> Response:
        """Render the page, with the pictures of the version that the query names."""
        view = LearningView.read(self.learner, project)
        version = view.chosen(request.args.get("version", type=int))
        most = None if "all" in request.args else _VERSIONS_SHOWN
        unread = self.services.annotations.count_open(project)
        label = request.args.get("label", "")
        done = view.done(request.args.get("did", ""), label, unread, url_for)
        return html_page(
            template="learning.html",
            refusal=refusal,
            learned=view,
            strip=NextPicturesView.read(self.services, project),
            versions=view.versions[:most],
            standing=view.standing(unread),
            done=() if refusal else done,
            plots=self._plots(project, view).drawn,
            version=version,
            compared=None if version is None else self._compare(project, version),
            work=work_sentence,
        )

    def _compare(self, project: int, version: VersionView) -> Comparison:
        """Return the pictures of a version, what they show, and which annotations to check."""
        shown = self.learner.versions.before_after(project, version.number)
        labels = version.losing
        made = self.services.runs.last(LABEL_ERRORS, project) if labels else None
        errors: list[tuple[int, Suspicion]] = []
        found = None
        if made is not None:
            run, report = made
            found, errors = run.finished, self._errors(project, report, labels)

        return Comparison(
            shown=shown,
            changes=changes_sentence(shown.pictures, version.number),
            missing=missing_figures(version),
            losing=Losing(labels, found, len(errors)) if labels else None,
            errors=errors,
        )

    def _plots(self, project: int, view: LearningView) -> LearningPlots:
        annotations = self.services.annotations
        sums = annotations.sums(project)
        periods = read_periods(annotations, project, sums.step)
        return learning_plots(view.versions, sums, periods)

    def _errors(
        self, project: int, report: LabelErrors, losing: list[str]
    ) -> list[tuple[int, Suspicion]]:
        """List label errors with their places on their page, those of labels that lose first."""
        left = report.without(ConfirmedAnnotations(self.services.database).of(project)).suspicions
        listed = list(enumerate(left, 1))
        listed.sort(key=lambda each: each[1].label not in losing and each[1].other not in losing)
        return listed[:_MOST_CHECKED]
