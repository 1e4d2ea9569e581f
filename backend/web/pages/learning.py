"""Serve what projects learn: their state, and the decisions of people."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError, BadRequest, LearningRefused, ModelUnavailable
from backend.feedback.report.periods import read_periods
from backend.label_studio.client import required_client
from backend.label_studio.task_filter import TaskFilter
from backend.learning.compared_images import BeforeAfter
from backend.learning.learner import Learner
from backend.learning.versions import LearningState, Version
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations, LabelErrors, Suspicion
from backend.services import Services
from backend.views.learning import (
    LearningPlots,
    changes_sentence,
    learning_plots,
    missing_figures,
    told_ious,
    too_few,
)
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import MAX_FORM_BYTES, PROJECT, ActionRequest, parse_fields
from backend.web.pages.html import answer_action, html_page, is_for_people
from clearclip_core import UnlabelledFit
from clearclip_core.quantities import quantity

_Json = dict[str, Any]

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

#: IoU of a label's words, and where little was drawn share of that which they find, below which
#: other words may do more than corrections; the most labels that are named, the weakest first.
_WEAK_IOU: Final = 0.3
_MOST_WEAK: Final = 3

#: IoU that a label may lose before the page names the annotations to check; and how many it names.
_LOSS: Final = 0.01
_MOST_CHECKED: Final = 3


def describe_learning(learner: Learner, project: int) -> _Json:
    """Describe a project's learning state and its versions.

    Where the model is unavailable, the description has a ``trouble`` and no versions.
    """
    settings = learner.settings
    try:
        state = learner.versions.state(project)
        versions = learner.versions.versions(project)
        unread = len(learner.examples.of_other_models().get(project, ()))
    except ModelUnavailable as error:
        state, versions, unread = LearningState(project=project, trouble=str(error)), [], 0

    return {
        "every": state.due_after(settings.adapt_every),
        "can_learn": learner.can_learn,
        "unread": unread,
        "versions": [
            msgspec.to_builtins(each)
            | {
                "live": each.number == state.live,
                "growing": each.growing,
                "text_ious": told_ious(each.text_ious, each.shown),
                "adapted_ious": told_ious(each.adapted_ious, each.shown),
                "too_few": too_few(each.shown),
                "unlabelled_summary": each.unlabelled_summary,
            }
            for each in versions
        ],
        "weak_words": _weak_words(versions[0]) if versions else [],
        **msgspec.to_builtins(state),
        "adapt": state.adapt or settings.adapt,
    }


def ask_for_version(services: Services, project: int) -> None:
    """Have a version made of all corrections; where none has taught anything, all are read again.

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


def _weak_words(version: Version) -> list[str]:
    """Return the labels whose words find little, the weakest first."""
    known = version.found | version.text_ious
    weak = (label for label, share in known.items() if share < _WEAK_IOU)
    return sorted(weak, key=known.__getitem__)[:_MOST_WEAK]


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
        routes.add_url_rule(f"{_LEARNING}/{actions}", "act", self.act, methods=["POST"])
        return routes

    def show(self, project: int) -> Response:
        """Answer with the project's page, or with its description as JSON."""
        if is_for_people():
            return self._page(project)
        return json_response(describe_learning(self.learner, project))

    def act(self, project: int, action: str) -> Response:
        """Do what a person has decided; `action` is one of `ACTIONS`."""
        return answer_action(
            lambda is_form: self._act(
                project,
                action,
                parse_fields(self.body.read(MAX_FORM_BYTES), is_form, ActionRequest),
            ),
            lambda label: see_other(
                url_for("learning.show", project=project, did=action, label=label or None)
            ),
            lambda _: json_response(describe_learning(self.learner, project)),
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
        """Render the page, with the pictures of the version that the query names.

        Else they are those of the newest if it passed, of the live one, or of the newest.
        """
        learned = describe_learning(self.learner, project)
        versions, asked = learned["versions"], request.args.get("version", type=int)
        version_in_use = next((each for each in versions if each["live"]), None)
        shown = [each for each in versions if each["number"] == asked]
        shown += [each for each in versions[:1] if each["better"]]
        shown += [each for each in versions if each["live"]]
        version = next(iter(shown + versions[:1]), None)
        pictures, losing, missing, changes = BeforeAfter(), [], "", ""
        if version is not None:
            missing = missing_figures(version)
            pictures = self.learner.versions.before_after(project, version["number"])
            changes = changes_sentence(pictures.pictures, version["number"])
            losing = _losing(version)
        made = self.services.runs.last(LABEL_ERRORS, project) if losing else None
        return html_page(
            "learning.html",
            refusal,
            learned=learned,
            version_in_use=version_in_use,
            open=self.services.annotations.count_open(project),
            version=version,
            before_after=pictures,
            changes=changes,
            plots=self._plots(project, versions).drawn,
            losing=losing,
            missing_figures=missing,
            fewest=UnlabelledFit.FEWEST,
            errors_found=None if made is None else made[0].finished,
            errors=[] if made is None else self._errors(project, made[1], losing),
        )

    def _plots(self, project: int, described: list[_Json]) -> LearningPlots:
        annotations = self.services.annotations
        sums = annotations.sums(project)
        periods = read_periods(annotations, project, sums.step)
        return learning_plots(msgspec.convert(described, list[Version]), sums, periods)

    def _errors(
        self, project: int, report: LabelErrors, losing: list[str]
    ) -> list[tuple[int, Suspicion]]:
        """List label errors with their places on their page, those of labels that lose first."""
        left = report.without(ConfirmedAnnotations(self.services.database).of(project)).suspicions
        listed = list(enumerate(left, 1))
        listed.sort(key=lambda each: each[1].label not in losing and each[1].other not in losing)
        return listed[:_MOST_CHECKED]


def _losing(version: _Json) -> list[str]:
    """Return the labels that lose, the most first."""
    after = version["adapted_ious"]
    losses = {name: iou - after[name] for name, iou in version["text_ious"].items()}
    return sorted((each for each in losses if losses[each] > _LOSS), key=losses.__getitem__)[::-1]
