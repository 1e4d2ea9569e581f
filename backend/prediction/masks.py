"""Masks of labels and of prompts, and the regions that they are drawn as."""

import logging
import math
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

import cv2
import numpy as np

from backend.errors import BadRequest
from backend.inference.encoded_image import EncodedImage
from backend.inference.engine import Engine
from backend.label_studio.label_config import Control, ControlLabel, least_thresholds
from backend.label_studio.prompts import (
    Boxes,
    Clicks,
    Keypoint,
    Phrase,
    Phrases,
    PromptRequest,
    plain_words,
)
from backend.label_studio.region_reader import (
    Area,
    area_mask,
    draw_area,
    drawn_areas,
    rectangle_corners,
    rectangle_mask,
)
from backend.label_studio.region_writer import HasConfidence, Region, draw_regions
from backend.prediction.images import PredictionSpec, TaskImage
from backend.prediction.prompt_predictors import PromptPredictors
from backend.settings import Settings
from backend.telemetry.logs import stage
from clearclip_core import (
    BoolMask,
    ClickModelPredictor,
    Label,
    LabelMasks,
    Point,
    PromptedMask,
    PromptPredictor,
    Regions,
    RunMask,
    Scores,
    Segmentation,
    Uncertainty,
    drop_islands,
    propose_regions,
)

log = logging.getLogger(__name__)

AnyPredictor = PromptPredictor | ClickModelPredictor

_SAMPLES: Final = 16  # places along each side of a box at which its label is looked for

_MAX_CLICKS = 50  # most clicks that count: the time for a mask grows with each

#: Distance of two clicks that are one click again, in shares of the image's longer side: a hand
#: moves by two or three pixels of a screen.
_SAME_PLACE: Final = 0.003

#: Label Studio tells of accepted answers once it has saved the draft: about 5 s later.
_DRAFT_S: Final = 10.0
_MOST_ANSWERS: Final = 1000  # answers that are remembered for that time


@dataclass(frozen=True, eq=False)
class LabelMask:
    """The mask of a label."""

    label: str
    mask: RunMask
    source: HasConfidence
    mean_confidence: float  # mean of the confidence in the mask
    threshold: float | None = None  # of the controls that draw it; None: all
    #: Its things, for controls that draw each as a region of its own; () without things.
    things: tuple[RunMask, ...] = ()

    @classmethod
    def of(cls, label: str, made: PromptedMask) -> "LabelMask":
        """Return the mask that answers a click or box."""
        return cls(label, RunMask.of(made.mask), made, made.mean_confidence)


def competing_labels(
    query: Clicks | Boxes | Phrases, labels: tuple[Label, ...]
) -> tuple[Label, ...]:
    """Return the labels that compete for an answer: the phrases, then labels of the image.

    A label does not compete if a phrase is for it, or if a phrase names it ("red car", where there
    is a label "car"): the two mean too much the same.
    """
    if not isinstance(query, Phrases):
        if query.label is None or query.label in labels:
            return labels
        return (*labels, query.label)

    own = {phrase.label.name for phrase in query.phrases}
    texts = [f" {plain_words(prompt)} " for phrase in query.phrases for prompt in phrase.prompts]
    others = [label for label in labels if label.name not in own and not _is_named(label, texts)]
    return (*map(_phrase_label, range(len(query.phrases)), query.phrases), *others)


def _is_named(label: Label, texts: Sequence[str]) -> bool:
    """Return whether one of some texts, with blanks around, has a prompt of a label in it."""
    prompts = [f" {plain_words(prompt)} " for prompt in label.prompts]
    return any(prompt in text for prompt in prompts for text in texts)


def segment_clicks(clicks: Clicks, predictor: AnyPredictor) -> Iterator[LabelMask]:
    """Yield the mask of the region that clicks point at; none without a positive one on the image.

    The same click again asks for the next size of the thing. Of more than 50 clicks, the first ones
    count. Without a label, the words choose it at the first positive one, and keep it however many
    follow.
    """
    height, width = predictor.size_hw
    inside = [each for each in clicks.points if _is_inside(each)][:_MAX_CLICKS]
    points = [
        Point(each.x_percent / 100 * width, each.y_percent / 100 * height, each.positive)
        for each in inside
    ]
    first = next((point for point in points if point.positive), None)
    if first is None:
        return
    if clicks.label is None:
        label = label_in(predictor.scores, (first.x_px, first.y_px, first.x_px, first.y_px))
    else:
        label = clicks.label.name

    places = _without_repeats(points, _SAME_PLACE * max(height, width))
    repeats = len(points) - len(places)
    if repeats:
        sizes = predictor.click(*places, label=label, several=True)
        yield LabelMask.of(label, sizes[repeats % len(sizes)])
    else:
        yield LabelMask.of(label, predictor.click(*places, label=label))


def _is_inside(click: Keypoint) -> bool:
    return 0 <= click.x_percent <= 100 and 0 <= click.y_percent <= 100


def _without_repeats(points: Sequence[Point], near_px: float) -> list[Point]:
    """Return points without positive ones that lie at the place of a positive one before them."""
    places: list[Point] = []
    for point in points:
        if not point.positive or not any(
            place.positive
            and math.hypot(place.x_px - point.x_px, place.y_px - point.y_px) < near_px
            for place in places
        ):
            places.append(point)
    return places


def segment_boxes(boxes: Boxes, predictor: AnyPredictor) -> Iterator[LabelMask]:
    """Yield the mask of the object in boxes; none where they have no pixel of the image.

    A rotated box is segmented as the upright one around it; pixels outside of it are cut off.
    Without a label, the words choose it in the first box.
    """
    height, width = predictor.size_hw
    answers: list[PromptedMask] = []
    label = "" if boxes.label is None else boxes.label.name

    for rectangle in boxes.rectangles:
        inside = rectangle_mask(rectangle, (height, width))
        corners = rectangle_corners(rectangle, (height, width)).clip(0, (width, height))
        left, top = np.floor(corners.min(axis=0)).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).tolist()
        if inside.any() and left < right and top < bottom:
            label = label or label_in(predictor.scores, (left, top, right, bottom))
            made = predictor.box((left, top, right, bottom), label)
            answers.append(replace(made, mask=made.mask & inside))

    if any(answer.mask.any() for answer in answers):
        yield LabelMask.of(label, answers[0] if len(answers) == 1 else _joined(answers))


def _joined(answers: Sequence[PromptedMask]) -> PromptedMask:
    """Join the answers to several boxes: where they overlap, the surest counts."""
    confidence = np.zeros(answers[0].size_hw, np.float32)
    for answer in answers:
        confidence[answer.mask] = np.maximum(confidence, answer.confidence)[answer.mask]
    return PromptedMask.of(np.any([answer.mask for answer in answers], axis=0), confidence)


def label_in(scores: Scores, box_xyxy: tuple[float, float, float, float]) -> str:
    """Return the label to which the words give most of a box.

    Contrast words do not count: whoever points at something wants a label for it.

    Args:
        scores: those of the image.
        box_xyxy: left, top, right and bottom in px; a point is a box without an extent.

    Returns:
        The name of a label of the scores' vocabulary.
    """
    left, top, right, bottom = box_xyxy
    height, width = scores.plan.image_hw
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    # Pixel 0 has its centre at 0 there, and at 0.5 in a box.
    y_px = (top + steps * (bottom - top) - 0.5).clip(0, height - 1)
    x_px = (left + steps * (right - left) - 0.5).clip(0, width - 1)
    query_labels = np.asarray(scores.vocabulary.query_labels)
    queries = np.flatnonzero(query_labels >= 0)

    found = np.zeros(len(scores.vocabulary.names), np.int64)
    for _, logits in scores.logits_at(y_px, x_px, queries):
        best = query_labels[queries[logits.argmax(axis=-1)]]
        found += np.bincount(best.ravel(), minlength=len(found))
    return scores.vocabulary.names[int(found.argmax())]


def segment_phrases(
    phrases: Phrases, segmentation: Segmentation, min_px: int
) -> Iterator[LabelMask]:
    """Yield the masks of phrases, of `competing_labels`, joined where they are for one label."""
    own = [phrase.label.name for phrase in phrases.phrases]
    names = list(dict.fromkeys(own))
    numbers = np.full(len(segmentation.labels) + 1, -1)
    numbers[: len(own)] = [names.index(name) for name in own]
    masks = segmentation.label_masks(min_px, min_px, numbers)
    for number, name in enumerate(names):
        yield LabelMask(name, masks.runs(number), segmentation, masks.mean_confidence(number))


def _phrase_label(index: int, phrase: Phrase) -> Label:
    """Return a phrase as a label: by its label's name if it has the label's own prompts.

    Adaptations go by name: so a label that has learned keeps what it has learned, and free words
    follow nothing.
    """
    own = phrase.prompts == phrase.label.prompts
    return Label(phrase.label.name if own else f"words {index}", phrase.prompts)


@dataclass(frozen=True)
class ImagePrediction:
    """The regions of one image."""

    regions: list[Region]  # in the order of the controls and their labels
    #: The score for sorting, in [0, 1]: the mean probability over the pixels of all masks, unless
    #: the team wants one of `clearclip_core.Uncertainty`.
    score: float
    pixels: int  # the number of pixels that the score is the mean of


class ImagePredictor:
    """Predicts the regions of images: asks the engine for scores, makes masks and draws them."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._predictors = PromptPredictors((settings.picture_cache_mb << 20) // 2)
        self._answers: dict[tuple[int | str | None, str], tuple[frozenset[str], float]] = {}

    def predict_image(self, image: TaskImage, spec: PredictionSpec) -> ImagePrediction:
        """Predict all labels of an image, or answer a prompt on it."""
        query, encoded = self._encode(image, spec)
        return self._engine.with_room(lambda: self._draw_encoded(query, encoded, image, spec))

    def find_masks(self, image: TaskImage, spec: PredictionSpec) -> list[LabelMask]:
        """Answer a prompt on an image by masks, before they are drawn as regions."""
        query, encoded = self._encode(image, spec)

        def find() -> list[LabelMask]:
            with encoded.own_stream():
                return [*self._find_masks(query, encoded, image)]

        return self._engine.with_room(find)

    def _encode(
        self, image: TaskImage, spec: PredictionSpec
    ) -> tuple[Clicks | Boxes | Phrases, EncodedImage]:
        """Return what is asked for on an image, and the image as the models see it."""
        query = Phrases(asks_all=True) if spec.prompt is None else spec.prompt.query
        encoded = self._engine.encode(
            image.prepared,
            competing_labels(query, image.labels),
            spec.priority,
            spec.project,
            spec.adaptation,
        )
        if isinstance(query, Clicks | Boxes) or (query.asks_all and self._settings.regions):
            digest = image.prepared.digest
            encoded = self._engine.encode_for_clicks(encoded, image.rgb, digest, spec.project)
        return query, encoded

    def _draw_encoded(
        self,
        query: Clicks | Boxes | Phrases,
        encoded: EncodedImage,
        image: TaskImage,
        spec: PredictionSpec,
    ) -> ImagePrediction:
        """Make masks of the scores of an image, draw them and judge them."""
        with encoded.own_stream():
            masks = [*self._find_masks(query, encoded, image)]
            drawn = self._draw(masks, image, spec)
            if spec.prompt is not None or spec.config.score == "confidence":
                return drawn
            least = least_thresholds(image.controls, image.labels)
            uncertainty = Uncertainty.of(encoded.scores, least)
        by_effort = spec.config.score == "effort"
        score = uncertainty.effort if by_effort else uncertainty.uncertainty
        return replace(drawn, score=score, pixels=math.prod(image.size_hw))

    # ---- masks -----------------------------------------------------------------------------------

    def _find_masks(
        self, query: Clicks | Boxes | Phrases, encoded: EncodedImage, image: TaskImage
    ) -> Iterator[LabelMask]:
        if isinstance(query, Clicks | Boxes):
            predictor = self._prompt_predictor(encoded, image)
            if isinstance(query, Clicks):
                yield from segment_clicks(query, predictor)
            else:
                yield from segment_boxes(query, predictor)
        elif query.asks_all:
            yield from self._label_masks(image, encoded)
        else:
            segmentation = self._decide(encoded.scores, image)
            yield from segment_phrases(query, segmentation, self._min_px(image))

    def _prompt_predictor(self, encoded: EncodedImage, image: TaskImage) -> AnyPredictor:
        model = self._engine.segmenter().click_model
        if model is None or encoded.seen is None:
            return self._predictors.of(encoded, image.rgb, image.prepared.digest)
        return ClickModelPredictor(model, encoded.seen, encoded.scores)

    def _label_masks(self, image: TaskImage, encoded: EncodedImage) -> Iterator[LabelMask]:
        """Yield the masks of labels, where they win against all others or in their region.

        A label has one mask for each threshold that a control has for it. Labels are disjoint, so
        one label map serves a threshold of each; a second one of a label needs another.
        """
        segmentation = self._decide(encoded.scores, image)
        regions = self._regions(encoded, image)
        if regions is not None:
            segmentation = regions.vote(segmentation)

        wanted = dict.fromkeys(
            (label.name, label.threshold)
            for control in image.controls
            for label in control.labels
            if label.threshold < 1  # which is never reached
        )
        cleaned: dict[tuple[str, float], LabelMasks] = {}
        min_px = self._min_px(image)
        while rest := [pair for pair in wanted if pair not in cleaned]:
            thresholds = dict(reversed(rest))  # the first one of each label
            masks = segmentation.above(thresholds).label_masks(min_px, min_px)
            cleaned |= dict.fromkeys(thresholds.items(), masks)
        for (name, threshold), masks in ((pair, cleaned[pair]) for pair in wanted):
            label = segmentation.labels.index(name)
            mean, runs = masks.mean_confidence(label), masks.runs(label)
            things = self._things(regions, runs, image)
            yield LabelMask(name, runs, segmentation, mean, threshold, things)

    def _things(
        self, regions: Regions | None, mask: RunMask, image: TaskImage
    ) -> tuple[RunMask, ...]:
        """Split the mask of a label into its things, where they are known and a control asks."""
        if regions is None or not any(control.has_instances for control in image.controls):
            return ()
        min_px = max(1, self._min_px(image))
        return tuple(RunMask.of(part) for part in regions.parts(mask.to_mask(), min_px))

    @stage("regions")
    def _regions(self, encoded: EncodedImage, image: TaskImage) -> Regions | None:
        """Propose the regions of an image; None where predictions do without."""
        model = self._engine.segmenter().click_model
        if not self._settings.regions or model is None or encoded.seen is None:
            return None
        return propose_regions(model, encoded.seen, image.size_hw)

    @stage("decide")
    def _decide(self, scores: Scores, image: TaskImage) -> Segmentation:
        refine, propagate = self._settings.refine, self._settings.propagate
        return self._engine.segmenter().decide(
            scores, image=image.rgb, refine=refine, propagate=propagate
        )

    def _min_px(self, image: TaskImage) -> int:
        """Return the size in px below which an island is dropped."""
        return round(self._settings.min_island_share * math.prod(image.size_hw))

    # ---- regions ---------------------------------------------------------------------------------

    @stage("draw")
    def _draw(
        self, masks: Sequence[LabelMask], image: TaskImage, spec: PredictionSpec
    ) -> ImagePrediction:
        """Draw masks, each in the form of all controls that want it.

        The regions of each answer to a prompt have ids of their own, so that accepted they replace
        none that is there, apart from a predicted one: see `_in_place_of`.
        """
        # Only answers to prompts stay clear of regions that are drawn already.
        taken = None if spec.prompt is None else _taken(image, spec.prompt)
        owner = str(image.task.id) if spec.prompt is None else secrets.token_hex(8)
        regions: list[tuple[int, Region]] = []
        largest: dict[str, LabelMask] = {}
        for mask in masks:
            controls = spec.config.controls_for(image.tag, mask.label)
            regions += self._draw_mask(mask, controls, image, spec, taken=taken, owner=owner)
            if mask.label not in largest or largest[mask.label].mask.area < mask.mask.area:
                largest[mask.label] = mask
        pixels = sum(each.mask.area for each in largest.values())
        total = sum(each.mean_confidence * each.mask.area for each in largest.values())
        ordered = [region for _, region in sorted(regions, key=itemgetter(0))]
        return ImagePrediction(ordered, total / pixels if pixels else 0.0, pixels)

    def _draw_mask(
        self,
        mask: LabelMask,
        controls: Sequence[tuple[Control, ControlLabel]],
        image: TaskImage,
        spec: PredictionSpec,
        *,
        taken: BoolMask | None,
        owner: str,
    ) -> Iterator[tuple[int, Region]]:
        """Yield a mask's regions, each with the place of its control in the labeling config."""
        order = [*spec.config.controls, *spec.config.boxes]
        for control, label in _drawing(mask, controls, spec):
            drawn_label = label if mask.threshold is not None else replace(label, threshold=0.0)
            free, place = self._place(mask, (control, label), image, spec, taken)
            parts = mask.things if control.has_instances and mask.things else (free.mask,)
            for number, part in enumerate(parts):
                regions = draw_regions(
                    part,
                    mask.source,
                    control,
                    drawn_label,
                    image.tag,
                    mean_confidence=free.mean_confidence if part is free.mask else None,
                    item_index=image.item_index,
                    owner=f"{owner}/{number}" if number else owner,
                )
                for region in regions:
                    yield order.index(control), replace(region, id=place) if place else region

    def _place(
        self,
        mask: LabelMask,
        drawn_by: tuple[Control, ControlLabel],
        image: TaskImage,
        spec: PredictionSpec,
        taken: BoolMask | None,
    ) -> tuple[LabelMask, str]:
        """Fit a mask to the regions that are there; see `_in_place_of` for the id."""
        control, _ = drawn_by
        drawn, mean = mask.mask, mask.mean_confidence
        if taken is not None and not control.overlap:
            drawn = self._free(mask.mask, taken, image)
            if drawn is not mask.mask:
                mean = drawn.mean(mask.source.confidence)

        place = ""
        if spec.prompt is not None:
            drawn, place = self._in_place_of(drawn, drawn_by, image, spec.prompt)
        return replace(mask, mask=drawn, mean_confidence=mean), place

    def _in_place_of(
        self,
        answer: RunMask,
        drawn_by: tuple[Control, ControlLabel],
        image: TaskImage,
        prompt: PromptRequest,
    ) -> tuple[RunMask, str]:
        """Join the answer to a click or a box with the predicted brush region that it lies on.

        The editor puts an accepted region in the place of the one that has its id.

        Returns:
            The mask with the parts of that region that are not asked for anew, and the region's
            id; the answer and an empty id where it lies on none.
        """
        control, label = drawn_by
        if control.kind != "brushlabels" or not control.overlap:
            return answer, ""

        query, inside = prompt.query, answer.to_mask()
        same = [area for area in drawn_areas(image.task.predicted) if _is_of(area, control, label)]
        found = _most_shared((area for area in same if _is_on(area, image)), inside)
        if found is None or isinstance(query, Phrases):
            return answer, ""

        region, mask = found
        if not self._is_told(image, region, prompt):
            return answer, ""
        return RunMask.of(inside | _left_alone(mask, query)), region

    def _is_told(self, image: TaskImage, region: str, prompt: PromptRequest) -> bool:
        """Return whether Label Studio has told what became of the last answer for a region.

        Clicks come again with each further one, until they are accepted or rejected.
        """
        key, now = (image.task.id, region), time.monotonic()
        asked, at = self._answers.get(key, (prompt.region_ids, now))
        if asked.isdisjoint(prompt.region_ids) and now - at < _DRAFT_S:
            return False
        self._answers.pop(key, None)
        self._answers[key] = prompt.region_ids, now
        while len(self._answers) > _MOST_ANSWERS:
            self._answers.pop(next(iter(self._answers)), None)
        return True

    def _free(self, runs: RunMask, taken: BoolMask, image: TaskImage) -> RunMask:
        """Return the part of a mask that is not taken, without slivers along the taken part.

        An annotation that covers most of the mask is taken for another annotator's and ignored.
        """
        mask = runs.to_mask()
        size = runs.area
        share = np.count_nonzero(mask & taken) / max(1, size)
        if share == 0 or (share > 0.5 and not image.task.is_draft):
            return runs
        # An annotator may point at something smaller than an island elsewhere.
        min_px = min(self._min_px(image), size // 4)
        free = drop_islands(mask & ~taken, min_px)
        if not free.any():
            task = image.task.id
            log.info("Nothing is left of a mask: regions of task %s cover it already.", task)
        return RunMask.of(free)


def _left_alone(mask: BoolMask, query: Clicks | Boxes) -> BoolMask:
    """Return (H, W) what of a region lies outside of boxes, or on no click's island."""
    height, width = mask.shape
    if isinstance(query, Boxes):
        boxes = [rectangle_mask(each, (height, width)) for each in query.rectangles]
        return np.asarray(mask & ~np.any(boxes, axis=0))

    islands = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
    clicked = []
    for point in query.points:
        if 0 <= point.x_percent <= 100 and 0 <= point.y_percent <= 100:
            x_px, y_px = point.x_percent / 100 * width, point.y_percent / 100 * height
            clicked.append(islands[min(int(y_px), height - 1), min(int(x_px), width - 1)])
    return np.asarray(mask & ~np.isin(islands, clicked))


def _most_shared(areas: Iterable[Area], inside: BoolMask) -> tuple[str, BoolMask] | None:
    """Return the id and the mask of the area that shares most pixels; None where all share none."""
    most, found = 0, None
    for area in areas:
        with suppress(BadRequest):
            mask = area_mask(area)
            shared = np.count_nonzero(mask & inside)
            if shared > most:
                most, found = shared, (area.id, mask)
    return found


def _is_on(area: Area, image: TaskImage) -> bool:
    """Return whether a region is on an image, and was drawn on it in its size of now."""
    is_here = area.image == image.tag and (area.item_index or 0) == (image.item_index or 0)
    return is_here and area.size_hw == image.size_hw


def _taken(image: TaskImage, prompt: PromptRequest) -> BoolMask | None:
    """Return what regions of controls without overlap cover: (H, W) bool; None without such.

    A region that cannot be read, or whose image had another size, covers nothing.
    """
    exclusive = {control.name for control in image.controls if not control.overlap}
    if not exclusive:
        return None

    mask = np.zeros(image.size_hw, np.bool_)
    for area in drawn_areas(image.task.drawn):
        is_taken = area.control in exclusive and area.id not in prompt.region_ids
        if is_taken and _is_on(area, image):
            try:
                draw_area(area, mask)
            except BadRequest as error:
                log.warning("A region that is drawn already is not respected: %s", error)
    return mask


def _is_of(area: Area, control: Control, label: ControlLabel) -> bool:
    return area.control == control.name and bool(label.spellings & {*area.labels})


def _drawing(
    mask: LabelMask, controls: Sequence[tuple[Control, ControlLabel]], spec: PredictionSpec
) -> Iterator[tuple[Control, ControlLabel]]:
    """Yield the controls that draw a mask; of an answer to a prompt one, a predicted one first."""
    if spec.prompt is not None and controls:
        controls = (min(controls, key=lambda own: not own[0].is_predicted),)
    for control, label in controls:
        if spec.draws(control) and mask.threshold in (None, label.threshold):
            yield control, label
