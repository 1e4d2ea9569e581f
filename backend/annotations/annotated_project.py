"""The images of a project whose annotations are taken for the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.annotations.annotated_image import find_chosen_image
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core.images.label_maps import Truth

if TYPE_CHECKING:
    from backend.label_studio.image_loader import ReadImage
    from clearclip_core import Label, RGBArray


@dataclass(frozen=True, eq=False)
class AnnotatedProject:
    """A project whose annotations are taken for the truth."""

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
        """List the images of all tasks with an annotation; no image and no annotation is read."""
        tasks = self.client.all_tasks(self.project, TaskFilter(labeled=True))
        found = [
            AnnotatedPicture(self, task, index)
            for task in tasks
            for index in self.tag.indices(task.data)
        ]
        if limit is None or limit >= len(found):
            return tuple(found)
        return tuple(found[index * len(found) // limit] for index in range(limit))


@dataclass(frozen=True, eq=False)
class AnnotatedPicture:
    """An image of a task with the label map of the task's annotation, read on demand."""

    project: AnnotatedProject
    task: Task
    item_index: int | None = None

    @property
    def name(self) -> str:
        """The task by its number, and which of its images it is where it has several."""
        more = "" if self.item_index is None else f", picture {self.item_index + 1}"
        return f"task {self.task.id}{more}"

    def read(self) -> tuple[RGBArray, Truth]:
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 label indices, see `LabelMap.truth`.

        Raises:
            ValueError: there is no annotation, or it has no region of a label on the image.
        """
        project = self.project
        image = find_chosen_image(
            project.client, self.task, project.config, project.tag, self.item_index
        )
        truth = image.label_map().truth([label.name for label in project.labels])
        return image.read(project.read_image), truth
