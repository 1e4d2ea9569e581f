"""The annotations of a task that count, what they say of each pixel, and the pictures they are of.

Where regions overlap, the later one is on top, as the editor shows them. A rectangle bounds its
thing and does not fill it: pixels that only rectangles cover are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from backend.errors import BadRequest, TaskError
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import (
    area_box,
    area_mask,
    image_size,
    read_areas,
)
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from clearclip_core import Label, RGBArray
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth

Rule = Literal["preferred", "newest", "ground-truth", "annotator", "majority"]


@dataclass(frozen=True)
class AnnotationChoice:
    """Says which annotations count where a task has several; skipped ones never do.

    Attributes:
        rule: "preferred", the newest that is marked as ground truth, else the newest; "newest", the
            one that was changed last; "ground-truth", the newest that is marked as such;
            "annotator", the newest of one annotator; "majority", the newest of each.
        annotator: id of the annotator, for that rule.
    """

    rule: Rule = "preferred"
    annotator: int | None = None

    @classmethod
    def parse(cls, text: str) -> AnnotationChoice:
        """Read what a person has typed: the name of a rule, or the number of an annotator.

        Raises:
            BadRequest: it is neither.

        >>> AnnotationChoice.parse("5")
        AnnotationChoice(rule='annotator', annotator=5)
        """
        for rule in get_args(Rule):
            if text == rule != "annotator":
                return cls(rule)
        if text.isascii() and text.isdecimal() and len(text) < 19:
            return cls("annotator", int(text))
        raise BadRequest(
            "Expected the annotations to be preferred, newest, ground-truth, majority or the "
            f'number of an annotator, but got "{text[:50]}".'
        )

    def __str__(self) -> str:
        return self.rule if self.annotator is None else str(self.annotator)

    def choose(self, annotations: Iterable[Annotation]) -> list[Annotation]:
        """Return the annotations that count: several only for "majority".

        >>> old, new = Annotation(1, 1, 1, (), updated=5.0), Annotation(2, 1, 1, (), updated=6.0)
        >>> [each.id for each in AnnotationChoice().choose([new, old])]
        [2]
        >>> marked = Annotation(3, 1, 1, (), updated=1.0, ground_truth=True)
        >>> [each.id for each in AnnotationChoice().choose([new, marked, old])]
        [3]
        """
        ordered = sorted(annotations, key=lambda each: (each.updated, each.id))
        left = [each for each in ordered if not each.skipped]
        if self.rule == "preferred":
            left.sort(key=lambda each: each.ground_truth)  # the order of equals stays
        if self.rule == "ground-truth":
            left = [each for each in left if each.ground_truth]
        if self.rule == "annotator":
            left = [each for each in left if each.annotator == self.annotator]
        if self.rule == "majority":
            # An annotation without an annotator, such as an imported one, has a vote of its own.
            own = {each.id if each.annotator is None else (each.annotator,): each for each in left}
            return sorted(own.values(), key=lambda each: each.id)
        return left[-1:]


_RECTANGLE: Final = "rectanglelabels"


@dataclass(frozen=True, eq=False)
class AnnotationMap:
    """What an annotation says of each pixel of an image.

    Attributes:
        truth: (H, W) uint8 label indices, 254 for pixels without a label, 255 for pixels that are
            not counted.
        regions: (H, W) unsigned integers, of each pixel with a label the number of its region, from
            1 in the order of the annotation, a region of several labels once for each; 0 for all
            other pixels.
    """

    truth: Truth
    regions: npt.NDArray[np.unsignedinteger[Any]]


def draw_annotation(
    result: Sequence[Any], config: LabelConfig, image: str, item_index: int | None = None
) -> AnnotationMap | None:
    """Draw the regions of an annotation on one image as a map of its labels, `labels_of` it.

    Args:
        result: the regions of the annotation, as they came.

    Returns:
        None where no region of a label is on the image: its size is not known.

    Raises:
        ValueError: a region is broken, or they are of pictures of different sizes.
    """
    labels = config.labels_of(image)
    indices = {label.name: index for index, label in enumerate(labels)}
    found = [
        (indices[name], area)
        for area in read_areas(result, config.control_names, config.prompt_tools)
        if area.image == image and (area.item_index or 0) == (item_index or 0)
        for name in (config.label_of(area.control, text) for text in area.labels)
        if name in indices
    ]
    if not found:
        return None
    if len(labels) > NOTHING:
        raise ValueError(f"Expected at most {NOTHING} labels on an image, but got {len(labels)}.")
    size_hw = image_size(area for _, area in found)
    truth = np.full(size_hw, NOTHING, np.uint8)
    regions = np.zeros(size_hw, np.min_scalar_type(len(found)))
    for _, area in found:
        if area.kind == _RECTANGLE:
            box = area_box(area)
            truth[box][area_mask(area)[box]] = IGNORE
    for number, (index, area) in enumerate(found, 1):
        if area.kind != _RECTANGLE:
            box = area_box(area)
            mask = area_mask(area)[box]
            truth[box][mask], regions[box][mask] = index, number
    return AnnotationMap(truth, regions)


def read_annotated_image(
    read_image: ReadImage, task: Task, tag: ImageTag, item_index: int | None, size_hw: Sequence[int]
) -> RGBArray:
    """Read an image (H, W, 3) uint8 RGB whose regions were drawn on that height and width in px.

    Raises:
        TaskError: it cannot be read, the task has no such image any more, or it has another size.
    """
    sources, index = tag.sources(task.data), item_index or 0
    if index >= len(sources):
        raise TaskError(f"The task has no picture {index + 1} any more.")
    rgb = read_image(sources[index], task)
    if rgb.shape[:2] != tuple(size_hw):
        raise TaskError(
            f"The regions are of a picture of {_size(size_hw)} px, but it has {_size(rgb.shape)}."
        )
    return rgb


#: Errors of one picture, for which it is left out.
LEAVE_OUT: Final = (TaskError, BadRequest, ValueError)


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
        """Read (H, W, 3) uint8 RGB, and (H, W) uint8 label indices, see `AnnotationMap`."""
        truth = self.read_truth()
        return self.read_image(truth.shape), truth

    def read_image(self, size_hw: Sequence[int]) -> RGBArray:
        """Read (H, W, 3) uint8 RGB, see `read_annotated_image`."""
        project = self.project
        return read_annotated_image(
            project.read_image, self.task, project.tag, self.item_index, size_hw
        )

    def read_truth(self) -> Truth:
        """Draw the annotation that counts as (H, W) uint8 label indices, see `AnnotationMap`.

        The image itself is not read.

        Raises:
            ValueError: there is no annotation, or it has no region of a label on the image.
        """
        project = self.project
        annotations = project.client.annotations(int(self.task.id or 0))
        chosen = AnnotationChoice().choose(annotations)
        if not chosen:
            raise ValueError("It has no annotation that was submitted.")
        (annotation,) = chosen
        made = draw_annotation(annotation.result, project.config, project.tag.name, self.item_index)
        if made is None:
            raise ValueError(f"Annotation {annotation.id} has no region of a label on it.")
        return made.truth


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"
