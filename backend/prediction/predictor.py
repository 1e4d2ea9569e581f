"""From a request to its predictions: the whole way in, one line a stage."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from backend.errors import Busy, ImageRefused, ModelUnavailable, TaskError
from backend.feedback.learning.active_models import ActiveModels
from backend.feedback.learning.versions import ActiveModel
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig, adapt_mode
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.region_reader import drawn_areas
from backend.label_studio.region_writer import Region, draw_regions
from backend.label_studio.requests import PredictRequest, Task
from backend.prediction.interactive import (
    LabelMask,
    competing_labels,
    covered,
    segment_boxes,
    segment_clicks,
    segment_phrases,
)
from backend.prediction.prompt_parser import Clicks, Phrases, PromptRequest, parse_prompt
from backend.prediction.task_runner import Entry, Outcome, TaskRunner
from backend.settings import ScoreKind, Settings
from backend.telemetry.task_tracker import TaskTracker, TrackedTask
from backend.telemetry.tracing import stage
from clearclip_core import (
    Adaptation,
    BoolMask,
    Label,
    PreparedImage,
    RGBArray,
    Scores,
    Segmentation,
    Uncertainty,
    drop_islands,
    fill_holes,
)

log = logging.getLogger(__name__)

#: Raised by one whenever the same settings would give other masks than before.
_ALGORITHM = 2


@dataclass(frozen=True)
class ImagePrediction:
    """What was found on one picture.

    Attributes:
        regions: in the order of the controls and their labels.
        score: what the prediction is sorted by, in [0, 1]: the mean probability over the pixels
            of all masks, unless the team wants a `Uncertainty`.
        pixels: how many it is the mean of.
    """

    regions: list[Region]
    score: float
    pixels: int


@dataclass(frozen=True)
class PredictionSpec:
    """What a request asks for, the same for all its tasks.

    Attributes:
        config: what is drawn, with what its project has learned of thresholds.
        version: the ``model_version`` of its predictions.
        urgency: who is served first.
        project: projects of one urgency take turns.
        ask: the one thing that an annotator asks for; None for all.
        adaptation: what scores follow beside the words; None: the words alone.
    """

    config: LabelConfig
    version: str
    priority: Priority
    project: int | None
    ask: PromptRequest | None = None
    adaptation: Adaptation | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a task.

    Attributes:
        tag: where it is.
        item_index: which of a list it is; None where there is no list.
        rgb: (H, W, 3) uint8.
        prepared: the same for the model.
        task: whose it is.
    """

    tag: ImageTag
    item_index: int | None
    rgb: RGBArray
    prepared: PreparedImage
    task: Task


class Predictor:
    """Requests -> predictions.

    Args:
        engine: the owner of the model.
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        settings: the limits.
        recall_image: the same for pictures that annotators have open, which may be asked for
            again soon; `read_image` by default.
        batches: works on requests without a context; waits for all their tasks by default.
        journal: hears what becomes of each task; one of its own by default.
        active_models: what projects have learned; by default none has learned anything.
    """

    def __init__(
        self,
        engine: Engine,
        read_image: ReadImage,
        settings: Settings,
        recall_image: ReadImage | None = None,
        batches: TaskRunner | None = None,
        tracker: TaskTracker | None = None,
        active_models: ActiveModels | None = None,
    ) -> None:
        self._engine = engine
        self._read_image = read_image
        self._recall_image = recall_image or read_image
        self._settings = settings
        self._batches = batches or TaskRunner()
        self._tracker = tracker or TaskTracker()
        self._active_models = active_models

    def predict(self, request: PredictRequest) -> list[Entry]:
        """One entry a task, in their order; a task that fails has ``[]`` and a line in the log.

        Raises:
            LabelConfigError: the label config has nothing to draw.
            ModelUnavailable: the model has failed to load.
            Busy: too many clicks wait for the model.
        """
        config = parse_label_config(request.label_config)
        if request.context is not None and not request.context.prompts:
            return [{"result": []} for _ in request.tasks]
        ask = parse_prompt(request.context, config, self._nearest) if request.context else None
        if request.context is not None and ask is None:
            return [{"result": []} for _ in request.tasks]
        learned = self.learned(config, request.project_id)
        spec = self.spec(config, priority(request), request.project_id, learned, ask)
        if spec.priority is Priority.BATCH:
            return [outcome.entry for outcome in self.outcomes(request.tasks, spec)]
        return [self._outcome_now(task, spec).entry for task in request.tasks]

    def warm_up(self, config: LabelConfig) -> None:
        """Have the words of a label config embedded before its first picture; never waits."""
        for tag in config.images:
            self._engine.warm_up(config.labels_of(tag.name))

    def version(self, config: LabelConfig, project: int | None = None) -> str:
        """Model, method, and a hash of weights, settings, vocabulary, and what was learned.

        The same for the same masks, up to rounding on another device or in another precision;
        known before the weights are loaded. Where a project has learned, it ends in the number of
        annotations that it has learned from: ``demo clearclip 1a2b3c4d +20``.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        return self._version(config, self.learned(config, project))

    def knows(self, version: str, config: LabelConfig, project: int | None) -> bool:
        """Whether predictions of a version are wanted: as now, or before the last corrections."""
        return self._version(config, self.learned(config, project, keep=version)) == version

    def learned(
        self, config: LabelConfig, project: int | None, keep: str = ""
    ) -> ActiveModel | None:
        """What predictions of a project follow now beside the words; None: nothing.

        Args:
            config: the project's.
            project: its id.
            keep: a version that somebody has begun with. Where only what was learned has moved on
                since, what that version has learned stands in for what is live.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        if self._active_models is None:
            return None
        mode = adapt_mode(self._settings, config)
        live = self._active_models.get(project, mode)
        if keep in ("", self._version(config, live)):
            return live
        for other in self._active_models.earlier(project, mode):
            if self._version(config, other) == keep:
                return other
        return live

    def spec(
        self,
        config: LabelConfig,
        priority: Priority,
        project: int | None,
        learned: ActiveModel | None,
        ask: PromptRequest | None = None,
    ) -> PredictionSpec:
        """What is asked for: one version for all of it, whatever the project learns meanwhile.

        Args:
            config: the project's.
            urgency: who is served first.
            project: whose tasks.
            learned: see `learned`.
            ask: the one thing that an annotator asks for; None for all.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        version = self._version(config, learned)
        if learned is None:
            return PredictionSpec(config, version, priority, project, ask)
        config = config.with_thresholds(learned.thresholds)
        return PredictionSpec(config, version, priority, project, ask, learned.adaptation)

    def _version(self, config: LabelConfig, learned: ActiveModel | None) -> str:
        settings = self._settings
        parts: list[Any] = [
            _ALGORITHM,
            self._engine.model_id,
            settings.method,
            settings.short_side_px,
            settings.min_island_share,
            settings.refine,
            _config_parts(config),
        ]
        if (score := self._score_kind(config)) != "confidence":
            parts.append(score)
        if learned is not None:
            parts.append(learned.digest)
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        count = "" if learned is None else f" +{learned.annotations}"
        return f"{settings.model} {settings.method} {digest[:8]}{count}"

    def outcomes(self, tasks: Sequence[Task], spec: PredictionSpec) -> list[Outcome]:
        """What becomes of the tasks of a batch, a few of them at the same time."""
        work = partial(self.outcome, spec=spec)
        return self._batches.outcomes(tasks, spec.version, spec.project, work)

    def outcome(self, task: Task, spec: PredictionSpec) -> Outcome:
        """The boundary between tasks: whatever happens to one of them stays with it."""
        with self._tracker.task(task.id, spec.project, spec.priority.word) as work:
            try:
                return Outcome(self._prediction(task, spec, work))
            except TaskError as error:
                work.failed(error)
                return Outcome([], str(error), may_pass=isinstance(error, ImageRefused))
            except (Busy, ModelUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 -- the journal tells of it
                work.failed(error)
                return Outcome([], f"Unexpected {type(error).__name__}: see the backend's log.")

    def _outcome_now(self, task: Task, spec: PredictionSpec) -> Outcome:
        """What becomes of a task that an annotator looks at."""
        if spec.ask is not None:
            return self.outcome(task, spec)
        work = partial(self.outcome, spec=spec)
        return self._batches.opened(task, spec.version, spec.project, work)

    def _prediction(self, task: Task, spec: PredictionSpec, work: TrackedTask) -> Entry:
        """What is drawn on all pictures of a task, or the answer to what an annotator asks for."""
        draw = self._draw_labels if spec.ask is None else self._draw_asked
        drawn = [draw(picture, spec) for picture in self._pictures(task, spec)]
        regions = [region.to_json() for picture in drawn for region in picture.regions]
        work.drawn(len(regions), len(drawn))
        return {"model_version": spec.version, "score": mean_score(drawn), "result": regions}

    def _pictures(self, task: Task, spec: PredictionSpec) -> Iterator[Picture]:
        """The pictures of a task that are asked for, one after the other."""
        with stage("load"):
            segmenter = self._engine.segmenter()  # where it is gone, nothing needs to be fetched
        read = self._read_image if spec.priority is Priority.BATCH else self._recall_image
        for tag in spec.config.images if spec.ask is None else (spec.ask.image,):
            is_list = tag.is_list(task.data)
            for index, source in enumerate(tag.sources(task.data)):
                if is_list and spec.ask and spec.ask.item_index not in (None, index):
                    continue
                with stage("fetch"):
                    rgb = read(source, task)
                with stage("prepare"):
                    prepared = segmenter.prepare(rgb)
                yield Picture(tag, index if is_list else None, rgb, prepared, task)

    def _draw_labels(self, picture: Picture, spec: PredictionSpec) -> ImagePrediction:
        """All labels of a picture, and how it ranks among the others."""
        scores = self._score(picture, spec.config.labels_of(picture.tag.name), spec)
        drawn = self._draw(self._find_labels(picture, scores, spec), picture, spec)
        kind = self._score_kind(spec.config)
        if kind == "confidence":
            return drawn
        uncertainty = Uncertainty.of(scores, least_thresholds(spec.config, picture.tag.name))
        score = uncertainty.uncertainty if kind == "uncertainty" else uncertainty.effort
        return replace(drawn, score=score, pixels=picture.rgb[..., 0].size)

    def _draw_asked(self, picture: Picture, spec: PredictionSpec) -> ImagePrediction:
        return self._draw(self._find_asked(picture, spec), picture, spec)

    def _score_kind(self, config: LabelConfig) -> ScoreKind:
        """What the predictions of a project are sorted by; its own word wins."""
        return config.score or self._settings.score

    def _find_labels(
        self,
        picture: Picture,
        scores: Scores,
        spec: PredictionSpec,
        names: Collection[str] | None = None,
    ) -> Iterator[LabelMask]:
        """All labels of a picture, or those of some names, where they win against all others."""
        segmentation = self._decide(scores, picture)
        wanted = dict.fromkeys(
            (label.name, label.threshold)
            for control in spec.config.controls_of(picture.tag.name)
            for label in control.labels
            if names is None or label.name in names
        )
        for name, threshold in wanted:
            mask = segmentation.label_map == segmentation.labels.index(name)
            if threshold > 0:
                mask &= segmentation.confidence >= np.float16(threshold)
            yield LabelMask(name, self._clean(mask), segmentation.confidence, threshold)

    def _find_asked(self, picture: Picture, spec: PredictionSpec) -> Iterator[LabelMask]:
        """What an annotator asks for on a picture."""
        assert spec.ask is not None
        asked, labels = spec.ask.spec, spec.config.labels_of(picture.tag.name)
        if isinstance(asked, Phrases):
            if asked.whole:
                scores, names = (
                    self._score(picture, labels, spec),
                    {each.name for each in asked.whole},
                )
                yield from self._find_labels(picture, scores, spec, names)
            if asked.phrases:
                scores = self._score(picture, competing_labels(asked, labels), spec)
                segmentation = self._decide(scores, picture)
                for found in segment_phrases(asked, segmentation):
                    yield replace(found, mask=self._clean(found.mask))
            return
        competing = labels if asked.label in labels else (*labels, asked.label)
        encoded = self._engine.encode(
            picture.prepared, competing, spec.priority, spec.project, spec.adaptation
        )
        if isinstance(asked, Clicks):
            yield from segment_clicks(asked, encoded.features, encoded.scores, picture.rgb)
        else:
            yield from segment_boxes(asked, encoded.features, encoded.scores, picture.rgb)

    def _score(self, picture: Picture, labels: tuple[Label, ...], spec: PredictionSpec) -> Scores:
        return self._engine.score(
            picture.prepared, labels, spec.priority, spec.project, spec.adaptation
        )

    @stage("decide")
    def _decide(self, scores: Scores, picture: Picture) -> Segmentation:
        refine = self._settings.refine
        return self._engine.segmenter().decide(scores, image=picture.rgb, refine=refine)

    def _clean(self, mask: BoolMask) -> BoolMask:
        """A mask without specks and pinholes."""
        min_px = self._min_island_px(mask)
        return fill_holes(drop_islands(mask, min_px), min_px)

    def _min_island_px(self, mask: BoolMask) -> int:
        return round(self._settings.min_island_share * mask.size)

    @stage("draw")
    def _draw(
        self, found: Iterable[LabelMask], picture: Picture, spec: PredictionSpec
    ) -> ImagePrediction:
        """Masks as the controls have them that want them.

        One mask exists at a time, however many labels there are. The regions of each answer to an
        annotator have ids of their own: accepted, they replace none that is there.
        """
        config, image = spec.config, picture.tag.name
        order = [control.name for control in (*config.controls, *config.boxes)]
        regions: list[tuple[int, Region]] = []
        union = np.zeros(picture.rgb.shape[:2], np.bool_)
        total = 0.0
        taken = None if spec.ask is None else self._taken(picture, spec)
        owner = str(picture.task.id) if spec.ask is None else secrets.token_hex(8)
        for each in found:
            for control, label in config.controls_for(image, each.label):
                if each.threshold not in (None, label.threshold):
                    continue
                free = each.mask
                if taken is not None and not control.overlap:
                    free = self._free(each.mask, taken, picture.task)
                regions += [
                    (order.index(control.name), region)
                    for region in draw_regions(
                        free,
                        each.confidence,
                        control,
                        label if each.threshold is not None else replace(label, threshold=0.0),
                        image,
                        item_index=picture.item_index,
                        owner=owner,
                    )
                ]
            new = each.mask & ~union
            total += float(each.confidence[new].sum(dtype=np.float64))
            union |= new
        pixels = int(np.count_nonzero(union))
        ordered = [region for _, region in sorted(regions, key=lambda pair: pair[0])]
        return ImagePrediction(ordered, total / pixels if pixels else 0.0, pixels)

    def _taken(self, picture: Picture, spec: PredictionSpec) -> BoolMask | None:
        """What must stay free on a picture, if any control asks for that; else nothing is read."""
        assert spec.ask is not None
        controls = spec.config.controls_of(picture.tag.name)
        exclusive = {control.name for control in controls if not control.overlap}
        if not exclusive:
            return None
        there = (
            area
            for area in drawn_areas(picture.task)
            if area.image == picture.tag.name
            and (area.item_index or 0) == (picture.item_index or 0)
            and area.id not in spec.ask.region_ids
        )
        height, width = picture.rgb.shape[:2]
        return covered(there, exclusive, (height, width))

    def _free(self, mask: BoolMask, taken: BoolMask, task: Task) -> BoolMask:
        """What of a mask is not taken, without the slivers along what is.

        An annotation that has most of it already is taken for another annotator's, and left aside.
        """
        size = np.count_nonzero(mask)
        share = np.count_nonzero(mask & taken) / max(1, size)
        if share == 0 or (share > 0.5 and not task.is_draft):
            return mask
        # What an annotator points at may be smaller than what counts as a speck elsewhere.
        free = drop_islands(mask & ~taken, min(self._min_island_px(mask), size // 4))
        if not free.any():
            log.info("Nothing is left of a mask: regions of task %s cover it already.", task.id)
        return free

    def _nearest(self, text: str, labels: Sequence[Label]) -> Label:
        """The label with the prompt that means most what a text says."""
        rows = self._engine.embed((*labels, Label(text)))  # (prompts + 1, D)
        owners = [label for label in labels for _ in label.prompts]
        return owners[int((rows[:-1] @ rows[-1]).argmax())]


def priority(request: PredictRequest) -> Priority:
    """Who waits for an answer: an annotator who has clicked, one who has opened a task, or none."""
    if request.context is not None:
        return Priority.INTERACTIVE
    return Priority.OPENED if len(request.tasks) < 2 else Priority.BATCH


def least_thresholds(config: LabelConfig, image: str) -> list[float]:
    """From what probability on each label of an image is drawn by any of its controls.

    >>> config = parse_label_config('''<View><Image name="img" value="$image"/>
    ...   <BrushLabels name="b" toName="img" model_score_threshold="0.4"><Label value="sky"/>
    ...     <Label value="car"/></BrushLabels>
    ...   <PolygonLabels name="p" toName="img"><Label value="sky"/></PolygonLabels></View>''')
    >>> least_thresholds(config, "img")
    [0.0, 0.4]
    """
    own = [label for control in config.controls_of(image) for label in control.labels]
    return [
        min(each.threshold for each in own if each.name == label.name)
        for label in config.labels_of(image)
    ]


def mean_score(drawn: list[ImagePrediction]) -> float:
    """The mean of the pictures' scores by their pixels, in [0, 1]; 0 where there are none.

    >>> mean_score([ImagePrediction([], 0.5, 1), ImagePrediction([], 0.9, 3)])
    0.8
    """
    pixels = sum(picture.pixels for picture in drawn)
    total = sum(picture.score * picture.pixels for picture in drawn)
    return round(total / pixels, 6) if pixels else 0.0


def _config_parts(config: LabelConfig) -> list[list[dict[str, Any]]]:
    """What of a label config a version depends on: other words here, another version."""
    return [
        [{"name": image.name, "value": image.value} for image in config.images],
        [
            {
                "kind": control.kind,
                "name": control.name,
                "to_names": control.to_names,
                "labels": [
                    {"name": own.name, "written": own.written, "threshold": own.threshold}
                    for own in control.labels
                ],
                "overlap": control.overlap,
            }
            for control in config.controls
        ],
        [
            {"name": label.name, "prompts": label.prompts, "background": label.background}
            for label in config.labels
        ],
    ]
