"""Next tasks: tasks to correct, at random, whose pictures are no near-duplicates of others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Final

import cv2
import msgspec
import numpy as np

from backend.errors import AnswerTooLarge, StudioRefused
from backend.inference.queue import Priority
from backend.label_studio.annotations import LEAVE_OUT
from backend.label_studio.client import PAGE, LabelStudioClient
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning.examples import NOT_FINITE
from backend.runs.run import MOST_LEFT_OUT, MOST_NEXT_TASKS, Progress, Run, RunKind, RunParts
from clearclip_core import Example, RGBArray
from clearclip_core.adaptation.similarity import DistinctImages, ImageLayout
from clearclip_core.images.opening import to_data_url
from clearclip_core.quantities import quantity

#: So many pictures are compared for each task that is asked for, at most.
COMPARED_PER_TASK: Final = 20

#: So many tasks are listed and shuffled; of more, pages are drawn.
_MOST_LISTED: Final = 1000

#: Tasks that are taken of a page of a large project at least.
_OF_PAGE: Final = 4

#: Long side of a small picture in px.
_PICTURE_PX: Final = 192


class AskedTasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many tasks are asked for."""

    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_NEXT_TASKS)] = 20


class NextTask(msgspec.Struct, frozen=True):
    """A task to correct, with its picture, small, as a data URL."""

    task: int
    picture: str = ""


class NextTasks(msgspec.Struct, frozen=True):
    """Tasks without annotations whose pictures are no near-duplicates.

    Attributes:
        tasks: the tasks, in random order.
        unlabeled: number of all tasks of the project without an annotation or a draft.
        near_duplicates: number of these that were passed over.
        examples: number of corrected pictures that they were compared with.
        left_out: task -> why its picture was not compared; of the first tasks only.
    """

    asked: int
    tasks: tuple[NextTask, ...]
    unlabeled: int
    compared: int
    near_duplicates: int
    examples: int
    left_out: dict[int, str] = {}
    left_out_count: int = 0

    @property
    def shortage(self) -> str:
        """Why there are fewer tasks than were asked for; "" where there are as many."""
        if len(self.tasks) >= self.asked:
            return ""
        if not self.unlabeled:
            return "Each task of the project has an annotation or a draft."
        tried = self.compared + self.left_out_count
        return (
            f"There are fewer than you asked for: {tried} of {quantity(self.unlabeled, 'task')} "
            "were tried, and the others look nearly like one of these, or cannot be read."
        )


def choose_next_tasks(
    parts: RunParts, run: Run, asked: AskedTasks, progress: Progress
) -> NextTasks:
    """Draw tasks at random until so many are no near-duplicates, or enough were compared.

    A picture is encoded as learning does it, and compared by its rule. Of a task with several
    pictures, the first counts. Nothing is written to Label Studio.
    """
    config = parts.client.config(run.project)
    parts.engine.segmenter()  # without a model, nothing needs to be read
    known = _corrected(parts, run.project)
    images = DistinctImages(known, asked.count)
    wanted = TaskFilter(labeled=False, drafted=False)
    total = parts.client.count(run.project, wanted)
    most = min(COMPARED_PER_TASK * asked.count, total)
    seen: list[NextTask] = []
    left_out: dict[int, str] = {}
    tasks = _at_random(parts.client, run.project, wanted, total, most)
    for done, task in enumerate(islice(tasks, most)):
        progress(done, most)
        try:
            rgb = parts.images.read(config.images[0].sources(task.data)[0], task)
            layout = _layout(parts, run.project, config, rgb)
        except LEAVE_OUT as error:
            left_out[int(task.id or 0)] = str(error)
            continue
        seen.append(NextTask(int(task.id or 0), _small_picture(rgb)))
        if images.add(layout):
            break
    distinct = images.distinct()
    return NextTasks(
        asked.count,
        tuple(seen[index] for index in distinct[: asked.count]),
        total,
        len(seen),
        len(seen) - len(distinct),
        len(known),
        dict(islice(left_out.items(), MOST_LEFT_OUT)),
        len(left_out),
    )


def _at_random(
    client: LabelStudioClient, project: int, wanted: TaskFilter, total: int, most: int
) -> Iterator[Task]:
    """Yield tasks that pass a filter, at random.

    Of a large project a few tasks of each page are read: these follow each other, as frames of a
    video do.
    """
    if total <= _MOST_LISTED:
        tasks = list(client.all_tasks(project, wanted))
        random.shuffle(tasks)
        yield from tasks
        return
    pages = list(range(1, 1 - (-total // PAGE)))
    random.shuffle(pages)
    for number in pages:
        try:
            tasks = client.page(project, wanted, number)[0]
        except (StudioRefused, AnswerTooLarge):
            continue  # tasks that were annotated meanwhile pass no more: the last page is gone
        random.shuffle(tasks)
        yield from tasks[: max(_OF_PAGE, -(-most // len(pages)))]


def _corrected(parts: RunParts, project: int) -> list[ImageLayout]:
    """Return the layouts of the corrected pictures, each picture once."""
    stored = parts.examples.examples(project)
    layouts = (ImageLayout.of_example(Example.from_bytes(each.example)) for each in stored)
    return list({each.picture: each for each in layouts if each.is_finite}.values())


def _layout(parts: RunParts, project: int, config: LabelConfig, rgb: RGBArray) -> ImageLayout:
    prepared = parts.engine.segmenter().prepare(rgb)
    encoded = parts.engine.encode(
        prepared,
        config.labels_of(config.images[0].name),
        Priority.BATCH,
        project,
        presence=config.presence,
    )
    layout = ImageLayout.of(encoded.features, prepared.digest)
    if not layout.is_finite:
        raise ValueError(NOT_FINITE)
    return layout


def _small_picture(rgb: RGBArray) -> str:
    """Return a picture of at most `_PICTURE_PX` as the data URL of a JPEG."""
    height, width = rgb.shape[:2]
    factor = min(1.0, _PICTURE_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return to_data_url(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8))


NEXT_TASKS: Final = RunKind(
    "next-tasks",
    "Next tasks",
    "Tasks are read from Label Studio",
    AskedTasks,
    NextTasks,
    choose_next_tasks,
    lambda report: {each.task for each in report.tasks},
)
