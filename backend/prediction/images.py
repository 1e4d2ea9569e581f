"""The images of tasks: what a prediction of them works on, how they are read, and its score."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backend.errors import ImageRefused, TaskError
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import Control, ImageTag, LabelConfig
from backend.label_studio.prompts import PromptRequest
from backend.label_studio.requests import Task
from backend.telemetry.logs import stage
from clearclip_core import Adaptation, Label, PreparedImage, RGBArray


@dataclass(frozen=True)
class PredictionSpec:
    """What all tasks of a request share."""

    config: LabelConfig  # the labeling config, with the thresholds that its project has learned
    version: str
    priority: Priority
    project: int | None
    prompt: PromptRequest | None = None  # an annotator's; None where all labels are predicted
    adaptation: Adaptation | None = None  # what scores follow beside the words

    def draws(self, control: Control) -> bool:
        """Return whether a control has regions: all answer prompts, some are not predicted."""
        return self.prompt is not None or control.is_predicted


@dataclass(frozen=True, eq=False)
class TaskImage:
    """One image of a task, with its part of the labeling config."""

    tag: str
    controls: tuple[Control, ...]
    labels: tuple[Label, ...]
    item_index: int | None  # its index in a list; None where the task has no list there
    rgb: RGBArray  # (H, W, 3) uint8
    prepared: PreparedImage
    task: Task

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.rgb.shape[:2]
        return height, width


#: Scheme and host of an address; empty for a path on Label Studio.
_HOST: Final = re.compile(r"(?:[^:/?#]+:(?://[^/?#]*)?)?")


@dataclass(frozen=True)
class _Place:
    """Where an image of a task is shown, and its address."""

    tag: ImageTag
    controls: tuple[Control, ...]
    item_index: int | None
    source: str


class TaskImageReader:
    """Reads the images of tasks, and prepares them for the model.

    Args:
        read_image: address and task -> (H, W, 3) uint8; raises `TaskError`.
        recall_image: reads images that annotators have open, which may be asked for again soon.
        patience_s: how long a task waits in vain for the images of one host, in seconds. After
            that, the rest of its images there are given up.
    """

    def __init__(
        self, engine: Engine, read_image: ReadImage, recall_image: ReadImage, patience_s: float
    ) -> None:
        self._engine = engine
        self._read_image = read_image
        self._recall_image = recall_image
        self._patience_s = patience_s

    def read(self, task: Task, spec: PredictionSpec) -> Iterator[TaskImage | TaskError]:
        """Yield the images of a task that are asked for, or the error of each."""
        with stage("load"):
            self._engine.segmenter()  # where it is gone, nothing needs to be fetched
        waited_s: dict[str, float] = {}
        for place in _places(task, spec):
            if isinstance(place, TaskError):
                yield place
            else:
                yield self._read_place(place, task, spec, waited_s)

    def _read_place(
        self, place: _Place, task: Task, spec: PredictionSpec, waited_s: dict[str, float]
    ) -> TaskImage | TaskError:
        """Read one image, or return its error; waiting in vain for a host adds to `waited_s`."""
        host, started = _HOST.match(place.source.strip()), time.monotonic()
        name = host.group() if host else ""

        if waited_s.get(name, 0.0) >= self._patience_s:
            return ImageRefused(
                "Some pictures were not asked for: the host of others of their task did not "
                f"answer for {self._patience_s:g} s."
            )

        read = self._read_image if spec.priority is Priority.BATCH else self._recall_image
        try:
            with stage("fetch"):
                rgb = read(place.source, task)
            with stage("prepare"):
                prepared = self._engine.segmenter().prepare(rgb)
        except ImageRefused as error:
            waited_s[name] = waited_s.get(name, 0.0) + time.monotonic() - started
            return error
        except TaskError as error:
            return error

        labels = spec.config.labels_of(place.tag.name)  # those that are not drawn compete too
        return TaskImage(
            place.tag.name, place.controls, labels, place.item_index, rgb, prepared, task
        )


def _places(task: Task, spec: PredictionSpec) -> Iterator[_Place | TaskError]:
    """Yield where the images of a task are that are asked for, or why a tag shows none."""
    prompt = spec.prompt
    for tag in spec.config.images if prompt is None else (prompt.image,):
        controls = tuple(filter(spec.draws, spec.config.controls_of(tag.name)))
        if not controls:
            continue  # nothing of it is predicted
        try:
            sources = tag.sources(task.data)
        except TaskError as error:
            yield error
            continue
        for index, source in zip(tag.indices(task.data), sources, strict=True):
            if index is None or prompt is None or prompt.item_index in (None, index):
                yield _Place(tag, controls, index, source)
