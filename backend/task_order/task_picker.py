"""Pick tasks to correct next, whose pictures differ from each other and from corrected ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import cv2
import numpy as np

from backend.feedback.learning.example_builder import NOT_FINITE
from backend.feedback.learning.example_store import ExampleStore
from backend.inference.engine import Engine
from backend.inference.image_request import Priority
from backend.label_studio.annotations import LEAVE_OUT
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig, score_options
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.settings import Settings
from backend.task_order.next_tasks import NextTask, NextTasks, most_looked_at
from backend.task_order.random_tasks import RandomTasks
from clearclip_core import Example, RGBArray
from clearclip_core.adaptation.similarity import DistinctImages, ImageLayout
from clearclip_core.images.opening import to_data_url

#: Of so many tasks that were left out it is said why.
MOST_LEFT_OUT: Final = 100

#: Long side of a small picture in px.
PICTURE_PX: Final = 192

#: Is told how many pictures were looked at, of how many at most.
Advance = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class TaskPicker:
    """Picks tasks; writes nothing to Label Studio.

    A picture is encoded as learning does it (`ExampleBuilder`), and compared by its rule
    (`clearclip_core.adaptation.similarity`). Of a task with several pictures, the first counts.

    Args:
        client: Label Studio.
        read_image: reads the images of tasks.
        engine: the owner of the model, started.
        settings: what counts in scores beside the words, as in learning.
        examples: the training examples: pictures that were corrected.
    """

    client: LabelStudioClient
    read_image: ReadImage
    engine: Engine
    settings: Settings
    examples: ExampleStore

    def pick(
        self,
        project: int,
        count: int,
        advance: Advance = lambda _done, _all: None,
        seed: int | None = None,
    ) -> NextTasks:
        """Draw tasks by lot until so many are no near-duplicates, or `most_looked_at` were tried.

        Args:
            project: its id.
            count: number of tasks to pick.
            advance: is told of the progress; what it raises ends the search.
            seed: draws the same order again where the tasks are the same; None: any order.

        Raises:
            LabelConfigError: the project has nothing that is drawn.
            ModelUnavailable: the model has failed to load, or the engine has stopped.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        config = parse_label_config(self.client.label_config(project))
        self.engine.segmenter()  # without a model, nothing needs to be read
        return _Search(self, project, config, count, advance, random.Random(seed)).run()


@dataclass(eq=False)
class _Search:
    """One search."""

    picker: TaskPicker
    project: int
    config: LabelConfig
    count: int
    advance: Advance
    lots: random.Random
    seen: list[NextTask] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)

    def run(self) -> NextTasks:
        began = time.perf_counter()
        known = self._corrected()
        images = DistinctImages(known, self.count)
        wanted = TaskFilter(unlabeled=True, undrafted=True)
        tasks = RandomTasks(self.picker.client, self.project, wanted, self.lots)
        most = min(most_looked_at(self.count), tasks.total)
        self.advance(0, most)
        for done, task in enumerate(islice(tasks, most), 1):
            is_enough = self._look(task, images)
            self.advance(done, most)
            if is_enough:
                break
        distinct = images.distinct()
        return NextTasks(
            asked=self.count,
            tasks=tuple(self.seen[index] for index in distinct[: self.count]),
            unlabeled=tasks.total,
            looked_at=len(self.seen),
            near_duplicates=len(self.seen) - len(distinct),
            examples=len(known),
            seconds=time.perf_counter() - began,
            left_out=dict(islice(self.left_out.items(), MOST_LEFT_OUT)),
            left_out_count=len(self.left_out),
        )

    def _corrected(self) -> list[ImageLayout]:
        """Return the layouts of the corrected pictures, each picture once."""
        stored = self.picker.examples.examples(self.project)
        layouts = (ImageLayout.of_example(Example.from_bytes(each.example)) for each in stored)
        return list({each.picture: each for each in layouts if each.is_finite}.values())

    def _look(self, task: Task, images: DistinctImages) -> bool:
        """Compare the picture of a task with the others; return whether there are enough."""
        number = int(task.id or 0)
        try:
            source = self.config.images[0].sources(task.data)[0]
            rgb = self.picker.read_image(source, task)
            layout = self._layout(rgb)
            if not layout.is_finite:
                raise ValueError(NOT_FINITE)
        except LEAVE_OUT as error:
            self.left_out[number] = str(error)
            return False
        self.seen.append(NextTask(number, small_picture(rgb)))
        return images.add(layout)

    def _layout(self, rgb: RGBArray) -> ImageLayout:
        engine = self.picker.engine
        prepared = engine.segmenter().prepare(rgb)
        encoded = engine.encode(
            prepared,
            self.config.labels_of(self.config.images[0].name),
            Priority.BATCH,
            self.project,
            options=score_options(self.picker.settings, self.config),
        )
        return ImageLayout.of(encoded.features, prepared.digest)


def small_picture(rgb: RGBArray) -> str:
    """Return a picture of at most `PICTURE_PX` as the data URL of a JPEG.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height, width = rgb.shape[:2]
    factor = min(1.0, PICTURE_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return to_data_url(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8))
