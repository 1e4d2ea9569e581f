"""Serve the review page: a person judges many predictions at a glance."""

import base64
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from cachetools import LRUCache, TTLCache, cachedmethod
from flask import Blueprint, Response, request, url_for

from backend.annotations.annotated_image import AnnotatedImage, find_images
from backend.errors import (
    BackendError,
    BadRequest,
    LabelConfigError,
    ModelUnavailable,
    NotFound,
    StudioRefused,
    StudioUnreachable,
)
from backend.label_studio.client import LabelStudioClient, required_client
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import PredictionRegions
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.prediction.predictor import Predictor
from backend.review.queue import PICTURES, AskedPage, OpenPages, Queue, as_version
from backend.review.repair import MOST_STEPS, Step
from backend.review.repair_clicks import RepairClick, Repairer
from backend.review.verdicts import TOO_FAST_S, Reviewed, TakingBack
from backend.runs.crops import around
from backend.runs.label_errors import painted
from backend.services import Services
from backend.views.review import ReviewPage, ReviewTally
from backend.web.middleware.errors import json_response, see_other
from backend.web.middleware.guards import BodyReader
from backend.web.pages.forms import PROJECT, URL_NUMBER, no_key, parse_fields
from backend.web.pages.html import answer_action, html_page
from clearclip_core import BoolMask, RGBArray
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.opening import to_jpeg

#: Long sides of a picture in the list and of one alone, in px: twice what they take on the page.
_SIDES_PX: Final = {"tiny": 144, "small": 480, "large": 1600}

_KEPT_BYTES: Final = 64 << 20  # memory for pictures that were drawn, in bytes: of some fifty pages

_MOST_BYTES: Final = 4 << 20  # largest body of verdicts, with the pieces of their repairs

_NAME_LETTERS: Final = 80  # the longest name of a reviewer
_NAMED_S: Final = 365 * 86_400  # how long a browser keeps its reviewer's name, in seconds

_TOLD_S: Final = 3600.0  # how long it is told what became of verdicts, in seconds

#: How many of the worst tasks that need work the page links to.
_WORST: Final = 8

_USE: Final = "Predictions are read from Label Studio, and accepted there"
_TITLE: Final = "Review: needs work"


class Verdicts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verdicts of a page."""

    seat: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    since: float  # when the page was made
    verdicts: Annotated[list[Reviewed], msgspec.Meta(max_length=PICTURES)]
    #: the tasks that the page shows next; None: it stays, and keeps those that it has
    next: Annotated[list[int], msgspec.Meta(max_length=PICTURES)] | None = None


class AskedRepair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The repair of a prediction so far, and the click that goes on with it."""

    seat: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    steps: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MOST_STEPS)] = ()
    click: RepairClick | None = None


@dataclass(frozen=True, eq=False)
class ReviewRoutes:
    """Answer the routes of ``/projects/<id>/review``."""

    services: Services
    predictor: Predictor
    body: BodyReader
    _pages: OpenPages = field(default_factory=OpenPages)
    #: Label Studio's answers on projects and users, for half a minute
    _answers: TTLCache[Any, Any] = field(default_factory=lambda: TTLCache(100, 30))
    _drawn: LRUCache[Any, bytes] = field(
        default_factory=lambda: LRUCache(_KEPT_BYTES, getsizeof=len)
    )
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def blueprint(self) -> Blueprint:
        start = f"{PROJECT}/review"
        picture = f"{start}/<{URL_NUMBER}:task>/<int(max=9223372036854775807):prediction>"
        routes = Blueprint("review", __name__)
        routes.add_url_rule(start, "page", self.page, methods=["GET"])
        routes.add_url_rule(start, "save", self.save, methods=["POST"])
        routes.add_url_rule(f"{start}/undo", "undo", self.undo, methods=["POST"])
        routes.add_url_rule(f"{start}/view", "view", self.make_view, methods=["POST"])
        routes.add_url_rule(picture, "picture", self.picture, methods=["GET"])
        routes.add_url_rule(picture, "repair", self.repair, methods=["POST"])
        return routes

    @property
    def _client(self) -> LabelStudioClient:
        return required_client(self.services.page_client, _USE)

    @cachedmethod(attrgetter("_answers"), lock=attrgetter("_lock"))
    def _ask(self, what: Callable[..., Any], *of: int) -> Any:
        return what(self._client, *of)

    def _config(self, project: int) -> LabelConfig:
        config: LabelConfig = self._ask(LabelStudioClient.config, project)
        return config

    # ---- the page --------------------------------------------------------------------------------

    def page(self, project: int) -> Response:
        """Answer with the page, or ``?part``: the pictures after those, or what was said so far."""
        return self._page(project)

    def _page(self, project: int, refusal: BackendError | None = None) -> Response:
        part = request.args.get("part", "")
        template = {"ahead": "review_part.html", "tally": "review_tally.html"}.get(part)
        trouble = no_key(self.services.page_client, _USE)
        tally: ReviewTally | None = None
        shown: ReviewPage | None = None
        if not trouble:
            try:
                tally = self._tally(project)
                if part != "tally":
                    shown = self._cards(project, tally)
            except (LabelConfigError, ModelUnavailable, StudioRefused, StudioUnreachable) as error:
                trouble = str(error)

        if template is None or trouble:
            template = "review.html"
        person = _person()
        answer = html_page(
            template,
            refusal,
            project=project,
            trouble=trouble,
            tally=tally,
            shown=shown,
            person=person,
            too_fast_s=TOO_FAST_S,
        )
        if tally is not None:  # who leaves the page and comes back has the same pictures
            answer.set_cookie("seat", tally.seat, httponly=True, samesite="Lax")
            answer.set_cookie("person", person, max_age=_NAMED_S, httponly=True, samesite="Lax")
        return answer

    def _tally(self, project: int) -> ReviewTally:
        reviews = self.services.reviews
        known = request.args.get("seat") or request.cookies.get("seat")
        seat = (known or secrets.token_hex(4))[:16]
        self._pages.renew(project, seat)
        last_page = reviews.last_page(project, seat)
        return ReviewTally.of(
            project=project,
            seat=seat,
            asked=self._asked(),
            tallies=reviews.tallies(project),
            last_page=(len(last_page), last_page[0].at if last_page else None),
            to_correct=len(reviews.to_correct(project)),
            taking_back=self._taking_back(project, seat),
        )

    def _cards(self, project: int, tally: ReviewTally) -> ReviewPage:
        services, config = self.services, self._config(project)
        made_at = services.database.clock()
        walk = services.scores.walk(project)
        services.scores.ask(project)
        made = request.args.get("made", type=int)
        queue = Queue(
            scope=services.task_scope,
            reviews=services.reviews,
            scores=services.scores,
            client=self._client,
            project=project,
            config=config,
            current=self.predictor.versions.current(config, project),
            asked=tally.asked,
            pages=self._pages,
        )

        task_url = services.files.task_url(project)
        return ReviewPage.of(
            cards=queue.cards(tally.seat, ahead="part" in request.args),
            config=config,
            tally=tally,
            url_of=url_for,
            person=_person(),
            since=made_at,
            is_measuring=services.experiments.is_running(project),
            is_sorting=walk.is_open,
            token_user=self._ask(LabelStudioClient.me).name,
            not_done=services.reviews.not_done(project, made_at - _TOLD_S),
            made_view=f"{task_url or ''}?tab={made}" if made else "",
            worst=self._to_correct(project)[:_WORST] if made else (),
        )

    def _taking_back(self, project: int, seat: str) -> TakingBack | None:
        """Return how far a page's verdicts are taken back, or that those it asks about are."""
        now = self.services.reviews.taking_back(project, seat)
        if now.left:
            return now
        undone = request.args.get("undone", 0, type=int)
        return TakingBack(undone) if undone > 0 else None

    def _asked(self) -> AskedPage:
        given = {name: text for name, text in request.args.items() if text}
        try:
            return msgspec.convert(given, AskedPage, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(f"Expected another address: {error}.") from None

    # ---- verdicts --------------------------------------------------------------------------------

    def save(self, project: int) -> Response:
        """Keep the verdicts of a page; their annotations are written in the background."""
        asked = parse_fields(self.body.read(_MOST_BYTES), False, Verdicts)
        foreign = self._foreign(project, [each.task for each in asked.verdicts])
        said = [each for each in asked.verdicts if each.task not in foreign]
        me = self._ask(LabelStudioClient.me).id

        others = self.services.reviews.save(
            project, me, asked.seat, said, asked.since, person=_person()
        )
        fast = [e for e in said if e.verdict == "good" and e.seconds < TOO_FAST_S]
        told: dict[str, Any] = {
            "others": others,
            "foreign": sorted(foreign),
            "too_fast": len(fast),
            "saved": len(said) - len(others),
        }
        if asked.next is not None:
            told["taken"] = self._pages.move_on(project, asked.seat, asked.next)
        return json_response(told)

    def _foreign(self, project: int, tasks: list[int]) -> set[int]:
        """Return those of some tasks that are not of the project, or not any more."""
        unknown = self._pages.unknown(project, tasks)
        if not unknown:
            return set()
        return {*unknown} - {*self._client.ids(project, TaskFilter(ids=tuple(unknown)))}

    def undo(self, project: int) -> Response:
        """Take back the verdicts that a page has sent last; the worker deletes their annotations.

        What was changed in the editor since stays.
        """

        def describe(undone: TakingBack) -> Response:
            return json_response({"undone": undone.total, "left": undone.left})

        return answer_action(
            lambda _: self._undo(project),
            lambda undone: see_other(self._here(project, undone=undone.total)),
            describe,
            lambda error: self._page(project, error),
        )

    def _undo(self, project: int) -> TakingBack:
        seat, at = request.args.get("seat", "")[:16], request.args.get("at", type=float)
        return self.services.reviews.undo(project, seat, at)

    def make_view(self, project: int) -> Response:
        """Make a view in Label Studio of the tasks that need work."""
        return answer_action(
            lambda _: self._make_view(project),
            lambda view: see_other(self._here(project, made=view)),
            lambda view: json_response({"view": view}),
            lambda error: self._page(project, error),
        )

    def _make_view(self, project: int) -> int:
        tasks = self._to_correct(project)
        if not tasks:
            raise BadRequest("No task waits to be corrected: there is nothing to make a view of.")
        return self._client.show_tasks(project, _TITLE, tasks)

    def _to_correct(self, project: int) -> list[int]:
        """Return the tasks that need work, the worst first."""
        highest_first = self._config(project).score != "confidence"
        return self.services.reviews.to_correct(project, highest_first=highest_first)

    def _here(self, project: int, **more: Any) -> str:
        kept = {name: request.args.get(name) for name in ("seat", *AskedPage.__struct_fields__)}
        values: dict[str, Any] = {**kept, **more}
        return url_for("review.page", project=project, **values)

    # ---- pictures --------------------------------------------------------------------------------

    def picture(self, project: int, task: int, prediction: int) -> Response:
        """Answer with the picture of a task and its masks, as a JPEG."""
        side_px = _SIDES_PX.get(request.args.get("size", ""), _SIDES_PX["small"])
        drawn = self._picture(
            project,
            task,
            prediction,
            label=request.args.get("label", ""),
            side_px=side_px,
            is_plain="plain" in request.args,
        )
        return Response(drawn, mimetype="image/jpeg")

    @cachedmethod(attrgetter("_drawn"), lock=attrgetter("_lock"))
    def _picture(
        self,
        project: int,
        task: int,
        prediction: int,
        *,
        label: str,
        side_px: int,
        is_plain: bool,
    ) -> bytes:
        config = self._config(project)
        images = self._images(project, task, prediction, config)
        if label:
            images = [e for e in images if any(each.label == label for each in e.versions[0])]
        if not images:
            raise NotFound("The prediction has no mask of this label any more.")

        read = self.services.images.read_cached
        if not label:  # else a part of the picture is shown
            read = partial(self.services.images.read_small, side_px=side_px)
        pictures = [each.read_reduced(read) for each in images]
        return self._draw(images, pictures, config, label, side_px, is_plain=is_plain)

    def _images(
        self, project: int, task: int, prediction: int, config: LabelConfig
    ) -> list[AnnotatedImage]:
        """Return the images of a task with the regions that a prediction has on them."""
        with self._pages.lock:
            known = self._pages.to_draw.pop((project, task, prediction), None)
        client = self._client
        there, made = known or (client.task(project, task), client.prediction(prediction))
        if there is None or made is None:
            raise NotFound("The task or its prediction is not there any more.")
        return list(find_images(there, [as_version(made)], config))

    def _draw(
        self,
        images: Sequence[AnnotatedImage],
        pictures: Sequence[RGBArray],
        config: LabelConfig,
        label: str,
        side_px: int,
        *,
        is_plain: bool = False,
    ) -> bytes:
        """Draw images side by side, as a JPEG; without a label their pictures may be reduced."""
        parts = [
            thumbnail(
                *_cut(each, rgb, config, label, side_px=side_px, is_plain=is_plain),
                config.colours_of(each.tag.name),
                side_px,
            )
            for each, rgb in zip(images, pictures, strict=True)
        ]
        height = parts[0].shape[0]
        sizes = [(max(1, round(e.shape[1] * height / e.shape[0])), height) for e in parts]
        row = [cv2.resize(each, size) for each, size in zip(parts, sizes, strict=True)]
        return to_jpeg(np.hstack(row))

    # ---- repairs ---------------------------------------------------------------------------------

    def repair(self, project: int, task: int, prediction: int) -> Response:
        """Answer with the next step of a repair, its labels, and the picture after all steps.

        Nothing is kept here: the page sends the steps with its verdict.
        """
        asked = parse_fields(self.body.read(_MOST_BYTES), False, AskedRepair)
        if not self._pages.is_free(project, task, asked.seat, ahead=False):
            raise BadRequest(f"Somebody else has task {task} on the page: load the page again.")
        there: Task | None = self._ask(LabelStudioClient.task, project, task)
        made: PredictionRegions | None = self._ask(LabelStudioClient.prediction, prediction)
        if there is None or made is None:
            raise NotFound("The task or its prediction is not there any more.")

        repairer = Repairer(self.predictor, self._config(project), project, there, made)
        step = None if asked.click is None else repairer.step(asked.steps, asked.click)
        images = repairer.images(asked.steps if step is None else (*asked.steps, step))
        pictures = [each.read(self.services.images.read_cached) for each in images]
        picture = self._draw(images, pictures, repairer.config, "", _SIDES_PX["large"])
        told = {
            "step": msgspec.to_builtins(step),
            "labels": sorted({each.label for image in images for each in image.versions[0]}),
            "picture": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}",
        }
        return json_response(told)


def _person() -> str:
    """Return the name of who reviews, as they gave it in this browser."""
    given = request.args.get("person", request.cookies.get("person", ""))
    return given.replace("\0", "").strip()[:_NAME_LETTERS]


def _cut(
    image: AnnotatedImage,
    rgb: RGBArray,
    config: LabelConfig,
    label: str,
    *,
    side_px: int,
    is_plain: bool,
) -> tuple[RGBArray, npt.NDArray[np.int16]]:
    """Return an image and its label map; of one label, the part of the image that has it.

    The map of a whole image has no more pixels than a long side of `side_px` needs.
    """
    nothing = np.full(rgb.shape[:2], -1, np.int16)
    if image.size_hw is None or (is_plain and not label):
        return rgb, nothing

    names = [each.name for each in config.labels_of(image.tag.name)]
    if not label:
        step = max(1, max(image.size_hw) // side_px)
        return rgb, painted(image.label_map(step=step).truth(names))

    mask = image.label_map().mask_of(label)
    label_map = nothing if is_plain else np.where(mask, np.int16(names.index(label)), nothing)
    if not mask.any():
        return rgb, label_map
    shown = _around_pixels(mask, 0), _around_pixels(mask, 1)
    return rgb[shown], label_map[shown]


def _around_pixels(mask: BoolMask, axis: int) -> slice:
    """Return the rows (axis 0) or columns (1) around the pixels of a mask, (H, W) bool."""
    found = np.flatnonzero(mask.any(1 - axis))
    return around(slice(found[0], found[-1] + 1), mask.shape[axis])
