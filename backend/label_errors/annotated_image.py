"""The annotated images of a project: each annotation of each task by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from backend.errors import BadRequest, DataKeyError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_maps import AnnotationMap, draw_annotation
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.label_studio.unreadable_tasks import UnreadableTasks
from clearclip_core import RGBArray


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image of a task with one of the task's annotations; pixels are read on demand.

    Attributes:
        task: the task.
        annotation: the annotation.
        tag: the image tag.
        item_index: index in a list of images; None where the tag shows no list.
        config: label config of the project.
    """

    task: Task
    annotation: Annotation = field(repr=False)
    tag: ImageTag
    item_index: int | None
    config: LabelConfig = field(repr=False)

    def draw(self) -> AnnotationMap | None:
        """Draw the annotation, see `draw_annotation`; None where it has no region on the image.

        Raises:
            BadRequest: a region cannot be read.
            ValueError: a region is broken, or the regions disagree on the image's size.
        """
        labels = self.config.labels_of(self.tag.name)
        return draw_annotation(
            self.annotation.result, self.config, self.tag.name, labels, self.item_index
        )

    def without_regions(self) -> AnnotatedImage:
        """Return it without the regions of its annotation, which may be large."""
        return replace(self, annotation=replace(self.annotation, result=()))

    def read(self, read_image: ReadImage) -> RGBArray:
        """Read the image.

        Raises:
            TaskError: it cannot be read.
        """
        return read_image(self.tag.sources(self.task.data)[self.item_index or 0], self.task)


def list_images(
    client: LabelStudioClient,
    project: int,
    config: LabelConfig,
    leave_out: Callable[[Task, str], None],
) -> Iterator[AnnotatedImage]:
    """Read the annotations of a project, one task at a time; skips do not count.

    Args:
        client: Label Studio.
        project: id of the project.
        config: its label config.
        leave_out: is told of a task whose annotations cannot be read, and why.

    Yields:
        Each image of each annotation, in the order of the tasks.

    Raises:
        StudioRefused: there is no such project for this token.
        StudioUnreachable: Label Studio does not answer, see `UnreadableTasks`.
    """
    unreadable = UnreadableTasks(client, project)
    for task in client.all_tasks(project, TaskFilter(labeled=True)):
        try:
            annotations = unreadable.annotations(int(task.id or 0))
        except BadRequest as error:
            leave_out(task, str(error))
            continue
        for annotation in annotations:
            if annotation.skipped:
                continue
            for tag in config.images:
                for index in _indices(task, tag):
                    yield AnnotatedImage(task, annotation, tag, index, config)


def _indices(task: Task, tag: ImageTag) -> list[int | None]:
    try:
        return [*range(len(tag.sources(task.data)))] if tag.is_list(task.data) else [None]
    except DataKeyError:
        return [None]  # reading the image says what is wrong
