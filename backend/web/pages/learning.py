"""The routes of what projects learn: where one stands, and what people may do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response, request, url_for

from backend.errors import BackendError, BadRequest, ModelUnavailable, PayloadTooLarge
from backend.feedback.learning.learner import Learner
from backend.feedback.learning.thresholds import ThresholdCounts, add_up, counts_from_json
from backend.feedback.learning.version_file import read_export
from backend.feedback.learning.versions import LearningState, due_after
from backend.label_studio.files import LabelStudioFiles
from backend.settings import Settings
from backend.web.middleware.responses import json_answer
from backend.web.pages.dashboard import FORM
from backend.web.pages.forms import ActionRequest, parse_action
from backend.web.pages.html import html_page, is_for_people

Json = dict[str, Any]

#: A project's number in a route, as far as a database counts.
_PROJECT = "/projects/<int(min=1, max=2147483647):project>/learning"

#: What people may do.
ACTIONS = ("step", "pin", "unpin", "rollback", "reset")

#: A turn says a number; a file holds some numbers for each label.
_MAX_TURN, _MAX_FILE = 1 << 16, 1 << 26

_NO_KEY = (
    "A project learns from what Label Studio has: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."
)


def make_tutor(
    settings: Settings, learner: Learner, files: LabelStudioFiles, read_body: Callable[[], bytes]
) -> Blueprint:
    """The routes as a blueprint; none of them waits for the model or for Label Studio.

    Args:
        settings: what is served.
        learner: who learns.
        files: knows the address of Label Studio, to link to its projects.
        read_body: how a request's body is read, within its limits.
    """
    tutor = Blueprint("tutor", __name__)
    registry = learner.registry

    @tutor.route(_PROJECT, methods=["GET"])
    def show(project: int) -> Response:
        return (
            _page(project) if is_for_people() else json_answer(describe(settings, learner, project))
        )

    def ask(project: int, _: ActionRequest) -> LearningState:
        if settings.label_studio_api_key is None:
            raise BadRequest(_NO_KEY)
        learner.check()
        return learner.steps.request(project)

    turns: dict[str, Callable[[int, ActionRequest], LearningState]] = {
        "step": ask,
        "pin": lambda project, _: registry.pin(project),
        "unpin": lambda project, _: registry.pin(project, pinned=False),
        "rollback": lambda project, asked: registry.roll_back(
            project, asked.number, settings.adapt
        ),
        "reset": lambda project, asked: registry.reset(project, asked.keep_evidence),
    }

    @tutor.route(f"{_PROJECT}/<any({', '.join(ACTIONS)}):turn>", methods=["POST"])
    def steer(project: int, turn: str) -> Response:
        is_form = request.mimetype == FORM
        try:
            turns[turn](project, parse_action(_short(read_body()), is_form))
        except BackendError as error:
            if not is_form:
                raise
            response = _page(project, str(error))
            response.status_code = error.http_status
            return response
        if is_form:
            address = url_for("tutor.show", project=project)
            return Response(status=303, headers={"Location": address})
        return json_answer(describe(settings, learner, project))

    @tutor.route(f"{_PROJECT}/version", methods=["GET"])
    def give(project: int) -> Response:
        version, data = learner.export(project)
        response = Response(data, mimetype="application/json")
        name = f"learned-{project}-{version.number}.json"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @tutor.route(f"{_PROJECT}/version", methods=["POST"])
    def take(project: int) -> Response:
        body = _short(read_body(), _MAX_FILE)
        version, adaptation = read_export(body, registry.model_key, learner.width)
        registry.import_version(project, version, adaptation)
        return json_answer(describe(settings, learner, project))

    def _page(project: int, refusal: str = "") -> Response:
        return html_page(
            "learning.html",
            learned=describe(settings, learner, project),
            url=files.task_url(project),
            refusal=refusal,
        )

    return tutor


def _short(body: bytes, most: int = _MAX_TURN) -> bytes:
    if len(body) > most:
        raise PayloadTooLarge(f"Expected at most {most} bytes, but got more.")
    return body


@lru_cache(maxsize=1)  # MB of text where there are many examples
def _added_up(counts: tuple[str, ...]) -> Mapping[str, ThresholdCounts]:
    """Add up the counts of examples; each view of a page asks for it, mostly of the same ones."""
    return add_up(map(counts_from_json, counts))


def describe(settings: Settings, learner: Learner, project: int) -> Json:
    """Where a project stands, its versions, and the thresholds that its corrections suggest."""
    known: Json = {
        "project": project,
        "adapt": settings.adapt,
        "every": settings.adapt_every,
        "can_learn": learner.can_learn,
        "has_key": settings.label_studio_api_key is not None,
        "versions": [],
        "labels": {},
    }
    try:
        state = learner.registry.state(project)
        versions = learner.registry.versions(project)
        counts = _added_up(tuple(learner.examples.threshold_counts(project)))
    except ModelUnavailable as error:
        return known | LearningState(project, trouble=str(error)).to_json()
    labels = {
        name: {
            "pictures": each.pictures,
            "threshold": each.best,
            "saved": each.saved(0.0),
            "saved_with_threshold": None if each.best is None else each.saved(each.best),
        }
        for name, each in counts.items()
    }
    shown = [version.to_json() | {"live": version.number == state.live} for version in versions]
    known["every"] = due_after(settings.adapt_every, state.annotations)
    return known | state.to_json() | {"versions": shown, "labels": labels}
