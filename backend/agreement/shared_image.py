"""The images of a task that several people have annotated, with what each of them has painted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from backend.errors import BadRequest
from backend.feedback.comparison import ImageMasks, read_masks
from backend.label_studio.annotations import AnnotationChoice
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import disagreement
from backend.label_studio.requests import Task
from clearclip_core import BoolMask, RGBArray
from clearclip_core.agreement.agreement import ImageAgreement, compare_image

#: Pixels of an image times the people whose masks of it are compared: they are held together.
MOST_PX: Final = 1 << 28


@dataclass(frozen=True, eq=False)
class SharedImage:
    """An image that several people have annotated.

    Attributes:
        task: its task.
        tag: the image tag.
        item_index: index in a list of images; None where the tag shows no list.
        size_hw: height and width in px.
        people: ids of the annotators, at least two.
        masks: of each of them, name of a label -> (H, W) bool, drawn on each access. A rectangle is
            filled, and counts only where a label has nothing else, see
            `backend.feedback.comparison.read_masks`.
        labels: names of all labels that can be painted on it.
    """

    task: Task
    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    people: tuple[int, ...]
    masks: Sequence[Mapping[str, BoolMask]] = field(repr=False)
    labels: tuple[str, ...]

    def agreement(self) -> ImageAgreement:
        """Compare what the people have painted.

        Raises:
            ValueError: a region is broken.
        """
        return compare_image(self.masks, self.labels, self.size_hw)

    def read(self, read_image: ReadImage) -> RGBArray:
        """Read the image.

        Raises:
            TaskError: it cannot be read.
            ValueError: the task's list is shorter now, or the image has another size than its
                regions were drawn on.
        """
        sources, index = self.tag.sources(self.task.data), self.item_index or 0
        if index >= len(sources):
            raise ValueError("The task has no such picture any more.")
        rgb = read_image(sources[index], self.task)
        if rgb.shape[:2] != self.size_hw:
            raise ValueError("The regions are of a picture of another size.")
        return rgb

    def without_masks(self) -> SharedImage:
        """Return it without what was painted, which may be large."""
        return replace(self, masks=())


def newest_of_each(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Return the annotation of each person that counts: the one that was changed last.

    Skipped ones do not count, nor those of which Label Studio does not say whose they are, nor
    copies of another person's.

    >>> by = lambda person, id, at: Annotation(id, 1, 1, (), annotator=person, updated=at)
    >>> [each.id for each in newest_of_each([by(5, 1, 1.0), by(6, 2, 1.0), by(5, 3, 2.0)])]
    [2, 3]
    """
    every = list(annotations)
    whose: dict[int | None, int | None] = {each.id: each.annotator for each in every}
    known = [
        each
        for each in every
        if each.annotator is not None and whose.get(each.parent, each.annotator) == each.annotator
    ]
    return AnnotationChoice("majority").choose(known)


def shared_images(
    task: Task, annotations: Sequence[Annotation], config: LabelConfig
) -> list[SharedImage]:
    """Return the images of a task on which at least one person has a region; nothing is drawn.

    Who has no region on such an image has painted nothing there.

    Args:
        task: the task.
        annotations: one of each person, see `newest_of_each`.
        config: label config of the project.

    Raises:
        BadRequest: a region cannot be read, the regions of an image disagree on its size, or the
            image is too large for so many people.
    """
    found: dict[tuple[str, int], dict[int, ImageMasks]] = {}
    for number, annotation in enumerate(annotations):
        for image in read_masks(annotation.result, config, task):
            found.setdefault((image.tag.name, image.item_index or 0), {})[number] = image
    people = tuple(int(each.annotator or 0) for each in annotations)
    return [_shared(task, people, found[key], config) for key in sorted(found)]


def _shared(
    task: Task, people: tuple[int, ...], images: Mapping[int, ImageMasks], config: LabelConfig
) -> SharedImage:
    """Put together what people have painted on one image.

    Args:
        task: the task.
        people: ids of all annotators of the task.
        images: index of an annotator -> the image; without those who have no region on it.
        config: label config of the project.
    """
    sizes = {image.size_hw for image in images.values()}
    if len(sizes) > 1:
        raise BadRequest(disagreement(sizes))
    (size_hw,) = sizes
    if size_hw[0] * size_hw[1] * len(people) > MOST_PX:
        raise BadRequest(
            f"Expected at most {MOST_PX} pixels times people, but {len(people)} people have "
            f"annotated a picture of {size_hw[1]}×{size_hw[0]} px."
        )
    tag = next(iter(images.values())).tag
    every = (label.name for label in (*config.labels, *config.box_labels))
    return SharedImage(
        task,
        tag,
        next(iter(images.values())).item_index,
        size_hw,
        people,
        [images[number].masks if number in images else {} for number in range(len(people))],
        tuple(name for name in every if config.controls_for(tag.name, name)),
    )
