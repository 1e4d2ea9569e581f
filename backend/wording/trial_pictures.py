"""Choose the pictures of a project that words are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

import torch

from backend.errors import TaskError
from backend.label_studio.annotations import LEAVE_OUT, AnnotatedPicture, AnnotatedProject
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import RGBArray
from clearclip_core.images.label_maps import Truth
from clearclip_core.wording.vocabulary_check import k_center

#: Tasks that are listed; pictures are chosen among them.
MOST_TASKS: Final = 1000

#: So many times as many pictures are looked at as are chosen.
_LOOKED_AT: Final = 4

#: Bytes of pictures that are kept in memory while others are looked at. A chosen one beyond them is
#: decoded a second time.
_KEPT_BYTES: Final = 256 << 20

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TrialPicture:
    """A picture that words are tried on.

    Attributes:
        task: id of its task.
        rgb: (H, W, 3) uint8.
        truth: (H, W) label indices of its annotation; None where it has none.
    """

    task: int
    rgb: RGBArray
    truth: Truth | None = None


@dataclass(eq=False)
class PictureChooser:
    """Reads the pictures of a project that words are tried on, one at a time.

    Args:
        project: the project.
        describe: picture -> (D,) vector of its features, by which pictures are told apart.
        left_out: filled with the task and the reason of each picture that cannot be read.
    """

    project: AnnotatedProject
    describe: Callable[[RGBArray], torch.Tensor]
    left_out: dict[int, str] = field(default_factory=dict)

    def has_corrected(self) -> bool:
        """Return whether a task of the project has an annotation."""
        wanted = TaskFilter(labeled=True)
        return bool(self.project.client.tasks(self.project.project, wanted, size=1))

    def corrected(self, count: int, index: int | None) -> Iterator[TrialPicture]:
        """Yield pictures with an annotation, spread over the project.

        A quarter of them lacks the label where there are enough: a wording that finds the label
        where it is not must not look good.

        Args:
            count: number of pictures.
            index: of the label in label maps; None for all labels alike.
        """
        with_label = without = 0
        most_without = count if index is None else count // 4
        spare: list[AnnotatedPicture] = []
        for task in self._tasks(TaskFilter(labeled=True), count * _LOOKED_AT):
            annotated = AnnotatedPicture(self.project, task, self._item_index(task))
            truth = self._unless_left_out(task, annotated.read_truth)
            if truth is None:
                continue
            has_label = index is not None and bool((truth == index).any())
            if (with_label >= count - most_without) if has_label else (without >= most_without):
                spare.append(annotated)
                continue
            picture = self._annotated(annotated, truth)
            if picture is None:
                continue
            with_label, without = with_label + has_label, without + (not has_label)
            yield picture
            if with_label + without == count:
                return
        for annotated in spare[: count - with_label - without]:
            truth = self._unless_left_out(annotated.task, annotated.read_truth)
            picture = None if truth is None else self._annotated(annotated, truth)
            if picture is not None:
                yield picture

    def diverse(self, count: int, advance: Callable[[int, int], None]) -> Iterator[TrialPicture]:
        """Yield pictures that differ from each other: k-center over their features.

        Args:
            count: number of pictures.
            advance: is told how many pictures have been looked at, of how many.
        """
        tasks = self._tasks(TaskFilter(), count * _LOOKED_AT)
        seen: list[Task] = []
        vectors: list[torch.Tensor] = []
        kept: dict[int, TrialPicture] = {}
        room = _KEPT_BYTES
        for number, task in enumerate(tasks):
            advance(number, len(tasks))
            picture = self._plain(task)
            if picture is None:
                continue
            if picture.rgb.nbytes <= room:
                room -= picture.rgb.nbytes
                kept[len(seen)] = picture
            seen.append(task)
            vectors.append(self.describe(picture.rgb))
        chosen = k_center(torch.stack(vectors), count) if vectors else []
        kept = {index: kept[index] for index in chosen if index in kept}
        for index in chosen:
            picture = kept.pop(index, None) or self._plain(seen[index])
            if picture is not None:
                yield picture

    def _tasks(self, wanted: TaskFilter, count: int) -> list[Task]:
        """List tasks, spread evenly over the first `MOST_TASKS`."""
        listed = self.project.client.all_tasks(self.project.project, wanted)
        tasks = list(islice(listed, MOST_TASKS))
        if count >= len(tasks):
            return tasks
        return [tasks[index * len(tasks) // count] for index in range(count)]

    def _annotated(self, picture: AnnotatedPicture, truth: Truth) -> TrialPicture | None:
        rgb = self._unless_left_out(picture.task, lambda: picture.read_image(truth.shape))
        return None if rgb is None else TrialPicture(int(picture.task.id or 0), rgb, truth)

    def _plain(self, task: Task) -> TrialPicture | None:
        def read() -> RGBArray:
            return self.project.read_image(self.project.tag.sources(task.data)[0], task)

        rgb = self._unless_left_out(task, read)
        return None if rgb is None else TrialPicture(int(task.id or 0), rgb)

    def _unless_left_out(self, task: Task, read: Callable[[], T]) -> T | None:
        """Return what is read of a task; None where it cannot be, with the reason noted."""
        try:
            return read()
        except LEAVE_OUT as error:
            self.left_out[int(task.id or 0)] = str(error)
            return None

    def _item_index(self, task: Task) -> int | None:
        """Return the index of the first image where a task has a list of them."""
        try:
            return 0 if self.project.tag.is_list(task.data) else None
        except TaskError:
            return None  # reading the picture says what is wrong
