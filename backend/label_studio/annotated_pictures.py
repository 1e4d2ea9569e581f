"""Annotated pictures of a project, read one by one through Label Studio's API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from backend.errors import BadRequest, DataKeyError, TaskError
from backend.label_studio.annotation_choice import AnnotationChoice
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_maps import draw_label_map
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import Label, RGBArray
from clearclip_core.images.label_maps import Truth

#: Errors of one picture, for which it is left out.
LEAVE_OUT: Final = (TaskError, BadRequest, ValueError)


@dataclass(frozen=True, eq=False)
class AnnotatedProject:
    """A project whose annotations are taken for the truth.

    Attributes:
        client: Label Studio.
        read_image: reads the images of tasks.
        project: id of the project.
        config: its label config.
        tag: the image tag whose images are read.
    """

    client: LabelStudioClient
    read_image: ReadImage
    project: int
    config: LabelConfig
    tag: ImageTag

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that compete on the images; their indices are the values of label maps."""
        return self.config.labels_of(self.tag.name)

    def pictures(self, limit: int | None = None) -> tuple[AnnotatedPicture, ...]:
        """List the images of all tasks with an annotation; no image and no annotation is read.

        Args:
            limit: limit of their number; they are taken evenly from all.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        tasks = self.client.all_tasks(self.project, TaskFilter(labeled=True))
        found = [picture for task in tasks for picture in self._pictures_of(task)]
        if limit is None or limit >= len(found):
            return tuple(found)
        return tuple(found[index * len(found) // limit] for index in range(limit))

    def _pictures_of(self, task: Task) -> Iterator[AnnotatedPicture]:
        try:
            count = len(self.tag.sources(task.data)) if self.tag.is_list(task.data) else None
        except DataKeyError:
            count = None  # reading the picture says what is wrong
        for index in [None] if count is None else range(count):
            yield AnnotatedPicture(self, task, index)


@dataclass(frozen=True, eq=False)
class AnnotatedPicture:
    """An image of a task with the label map of the task's annotation, read on demand.

    Attributes:
        project: the project.
        task: the task.
        item_index: index in a list of images; None where the tag shows no list.
    """

    project: AnnotatedProject
    task: Task
    item_index: int | None = None

    @property
    def name(self) -> str:
        """The task by its number, and which of its images it is where it has several."""
        more = "" if self.item_index is None else f", picture {self.item_index + 1}"
        return f"task {self.task.id}{more}"

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 label indices, see `draw_label_map`.

        Raises:
            TaskError: the image cannot be read.
            BadRequest: a region cannot be read.
            ValueError: the annotation has no region there, or does not fit the image.
            StudioRefused: the token may not see the annotation.
            StudioUnreachable: Label Studio does not answer.
        """
        truth = self.read_truth()
        return self.read_image(truth.shape), truth

    def read_image(self, size_hw: tuple[int, ...]) -> RGBArray:
        """Read (H, W, 3) uint8 RGB.

        Args:
            size_hw: height and width in px that the regions were drawn on.

        Raises:
            TaskError: the image cannot be read.
            ValueError: it has another size.
        """
        source = self.project.tag.sources(self.task.data)[self.item_index or 0]
        rgb = self.project.read_image(source, self.task)
        if rgb.shape[:2] != size_hw:
            raise ValueError(
                f"The regions are of a picture of {_size(size_hw)} px, but it has "
                f"{_size(rgb.shape)}."
            )
        return rgb

    def read_truth(self) -> Truth:
        """Draw the annotation that counts as (H, W) uint8 label indices, see `draw_label_map`.

        The image itself is not read.

        Raises:
            BadRequest: a region cannot be read.
            ValueError: there is no annotation, or it has no region of a label on the image.
            StudioRefused: the token may not see the annotation.
            StudioUnreachable: Label Studio does not answer.
        """
        project = self.project
        annotations = project.client.contents.annotations(int(self.task.id or 0))
        chosen = AnnotationChoice().choose(annotations)
        if not chosen:
            raise ValueError("It has no annotation that was submitted.")
        (annotation,) = chosen
        made = draw_label_map(
            annotation.result, project.config, project.tag.name, project.labels, self.item_index
        )
        if made is None:
            raise ValueError(f"Annotation {annotation.id} has no region of a label on it.")
        return made


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"
