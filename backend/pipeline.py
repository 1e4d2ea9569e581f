"""From a request to its predictions: the whole way in, one line a stage."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backend.engine import Engine, Urgency
from backend.errors import Busy, ModelUnavailable, TaskError
from backend.messages import PredictRequest, Task
from backend.regions import Region, draw_regions
from backend.settings import Settings
from backend.vocabulary import LabelConfig, parse_label_config
from clearclip_core import BoolMask, RGBArray, Segmentation, drop_islands, fill_holes

log = logging.getLogger(__name__)

#: Raised by one whenever the same settings would give other masks than before.
_ALGORITHM = 1

#: Tasks of batches of one project that are worked on at the same time: while the model has one
#: picture, the next ones are fetched and the last ones drawn. Each may hold a picture in memory.
AHEAD = 4

#: Threads that do so for all projects together.
_WORKERS = 2 * AHEAD

#: One task's entry: a prediction, or an empty list, which Label Studio asks for again.
Entry = dict[str, Any] | list[Any]


@dataclass(frozen=True)
class Drawn:
    """What was found on one picture.

    Attributes:
        regions: in the order of the controls and their labels.
        score: mean probability over the pixels of all masks, in [0, 1].
        pixels: how many those are.
    """

    regions: list[Region]
    score: float
    pixels: int


@dataclass(frozen=True)
class Wish:
    """What a request asks for, the same for all its tasks.

    Attributes:
        config: what is drawn.
        version: the ``model_version`` of its predictions.
        labels: names of those that are wanted; None for all.
        urgency: who is served first.
        project: projects of one urgency take turns.
    """

    config: LabelConfig
    version: str
    labels: frozenset[str] | None
    urgency: Urgency
    project: int | None


class Pipeline:
    """Requests -> predictions.

    Args:
        engine: the owner of the model.
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        settings: the limits.
    """

    def __init__(
        self,
        engine: Engine,
        read_image: Callable[[str, Task], RGBArray],
        settings: Settings,
    ) -> None:
        self._engine = engine
        self._read_image = read_image
        self._settings = settings
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="batch")
        self._slots: dict[int | None, threading.Semaphore] = {}

    def predict(self, request: PredictRequest) -> list[Entry]:
        """One entry a task, in their order; a task that fails has ``[]`` and a line in the log.

        Raises:
            LabelConfigError: the label config has nothing to draw.
            ModelUnavailable: the model has failed to load.
            Busy: too many pictures wait for the model; never for a request of several tasks.
        """
        config = parse_label_config(request.label_config)
        wanted = None
        if request.context is not None:
            if not request.context.regions:
                return [{"result": []} for _ in request.tasks]
            wanted = config.names_of(request.context.labels) or None
        self._engine.segmenter()  # waits here, before any picture is fetched
        wish = Wish(config, self.version(config), wanted, urgency(request), request.project_id)
        if len(request.tasks) < 2:
            return [self._entry(task, wish) for task in request.tasks]
        return self._entries(request.tasks, wish)

    def prime(self, config: LabelConfig) -> None:
        """Have the words of a label config embedded before its first picture; never waits."""
        for tag in config.images:
            self._engine.prime(config.labels_of(tag.name))

    def version(self, config: LabelConfig) -> str:
        """Model, method, and a hash of weights, settings and vocabulary.

        The same for the same masks, up to rounding on another device or in another precision;
        known before the weights are loaded.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        settings = self._settings
        parts = [
            _ALGORITHM,
            self._engine.model_id,
            settings.method,
            settings.short_side_px,
            settings.min_island_share,
            asdict(config),
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return f"{settings.model} {settings.method} {digest[:8]}"

    def _entries(self, tasks: Sequence[Task], wish: Wish) -> list[Entry]:
        """The entries of a batch, a few tasks at the same time."""
        slots = self._slots.setdefault(wish.project, threading.Semaphore(AHEAD))
        entries: list[Future[Entry]] = []
        for task in tasks:
            slots.acquire()
            entries.append(self._workers.submit(self._entry, task, wish))
            entries[-1].add_done_callback(lambda _: slots.release())
        return [entry.result() for entry in entries]

    def _entry(self, task: Task, wish: Wish) -> Entry:
        """The boundary between tasks: whatever happens to one of them stays with it."""
        try:
            return self._prediction(task, wish)
        except TaskError as error:
            log.warning("Task %s has no prediction: %s", task.id, error)
        except (Busy, ModelUnavailable):
            raise
        except Exception:
            log.exception("Task %s has no prediction", task.id)
        return []

    def _prediction(self, task: Task, wish: Wish) -> Entry:
        segmenter, drawn = self._engine.segmenter(), []
        for tag in wish.config.images:
            labels = wish.config.labels_of(tag.name)
            for index, source in enumerate(tag.sources(task.data)):
                picture = segmenter.prepare(self._read_image(source, task))
                scores = self._engine.score(picture, labels, wish.urgency, wish.project)
                segmentation = segmenter.decide(scores)
                item_index = index if tag.is_list(task.data) else None
                drawn.append(self._draw(segmentation, wish, tag.name, item_index, task))
        regions = [region.to_json() for picture in drawn for region in picture.regions]
        log.info("Task %s: %d regions", task.id, len(regions))
        return {"model_version": wish.version, "score": mean_score(drawn), "result": regions}

    def _draw(
        self,
        segmentation: Segmentation,
        wish: Wish,
        image: str,
        item_index: int | None,
        task: Task,
    ) -> Drawn:
        regions: list[Region] = []
        masks: dict[tuple[str, float], BoolMask] = {}
        for control in wish.config.controls_of(image):
            for label in control.labels:
                if wish.labels is not None and label.name not in wish.labels:
                    continue
                key = (label.name, label.threshold)
                if key not in masks:
                    masks[key] = self._mask(segmentation, *key)
                regions += draw_regions(
                    masks[key],
                    segmentation.confidence,
                    control,
                    label,
                    image,
                    item_index=item_index,
                    owner=str(task.id),
                )
        union = np.any([np.zeros_like(segmentation.label_map), *masks.values()], axis=0)
        return Drawn(regions, segmentation.score(union), int(np.count_nonzero(union)))

    def _mask(self, segmentation: Segmentation, name: str, threshold: float) -> BoolMask:
        """The pixels of a label that are likely enough, without specks and pinholes."""
        min_px = round(self._settings.min_island_share * segmentation.label_map.size)
        index = segmentation.labels.index(name)
        likely = segmentation.confidence >= np.float16(threshold)
        mask = (segmentation.label_map == index) & likely
        return drop_islands(fill_holes(mask, min_px), min_px)


def urgency(request: PredictRequest) -> Urgency:
    """Who waits for an answer: an annotator who has clicked, one who has opened a task, or none."""
    if request.context is not None:
        return Urgency.INTERACTIVE
    return Urgency.OPENED if len(request.tasks) == 1 else Urgency.BATCH


def mean_score(drawn: list[Drawn]) -> float:
    """Mean probability over all predicted pixels, in [0, 1]; 0 where there are none.

    >>> mean_score([Drawn([], 0.5, 1), Drawn([], 0.9, 3)])
    0.8
    """
    pixels = sum(picture.pixels for picture in drawn)
    total = sum(picture.score * picture.pixels for picture in drawn)
    return round(total / pixels, 6) if pixels else 0.0
