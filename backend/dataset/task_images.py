"""The pictures of tasks as a data set has them, read ahead: their classes, regions and files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Final

from backend.annotations.annotated_image import (
    AnnotatedImage,
    AnnotationChoice,
    Said,
    find_images,
    said_by,
)
from backend.annotations.label_map import MapRule, draw_label_map, vote
from backend.annotations.regions import LabelledRegion, Provenance
from backend.dataset.formats.format_writer import ClassTable, LabelledImage
from backend.dataset.tasks import READ_AHEAD, READERS, TaskRecord, TaskReference
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.region_reader import Area, drawn_areas, is_shape
from backend.label_studio.requests import Task
from clearclip_core.thread_pools import read_ahead

#: Pixels of all masks of a picture that are kept while it is written.
_KEPT_PIXELS: Final = 64 << 20


@dataclass(frozen=True)
class ClassNames:
    """The classes of regions: their labels, or what the caller wants in the place of these.

    Attributes:
        renamed: label -> class, as the caller wants it; an empty class leaves its regions out.
    """

    config: LabelConfig
    classes: ClassTable
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, name in self.renamed.items():
            if name and name not in self.classes.all_names:
                raise DatasetError(
                    f'"{label}={name}" names no label of the labeling config, which has '
                    f"{', '.join(self.classes.names[:20])}."
                )

    def names_of(self, area: Area) -> Iterator[str]:
        """Yield the names of the classes that a region has: mostly one.

        There is none where a prompt has left the region behind, or where the caller leaves it out.
        A label that the labeling config does not have is the name itself, empty where there is no
        label.
        """
        if not area.labels:
            yield ""
        for text in dict.fromkeys(area.labels):
            name = self.config.label_of(area.control, text)
            label = text if name is None else name
            if label and (wanted := self.renamed.get(text, self.renamed.get(label, label))):
                yield wanted

    def unknown_labels(self, image: AnnotatedImage) -> list[str]:
        """Return the labels of an image's regions that are no class, once for each region."""
        regions = (region for version in image.versions for region in version)
        return [each.label for each in regions if each.label not in self.classes.all_names]


@dataclass(frozen=True)
class LoadedImage:
    """An image of a task, as it is written.

    Attributes:
        created: when the task was annotated first, in seconds since the epoch.
        content: bytes of its file, where they are needed.
        problem: why they could not be read.
    """

    image: AnnotatedImage
    created: float
    content: bytes | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True)
class LoadedTask:
    """A task with the pictures that count, or why it was not read; and what it has lost."""

    id: int
    images: tuple[LoadedImage, ...] = ()
    problem: str = ""
    lost_controls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskLoader:
    """Reads tasks ahead, and makes labelled pictures of them.

    Attributes:
        choice: says which annotations count.
        rule: draws the label map of each annotation, before annotators vote.
        needs_images: without, only pictures are read that have no region, and so no size.
    """

    names: ClassNames
    choice: AnnotationChoice
    rule: MapRule
    read_file: Callable[[str, Task], bytes]
    needs_images: bool

    def load(self, references: Iterable[TaskReference]) -> Generator[LoadedTask, None, None]:
        """Iterate over tasks in their order."""
        return read_ahead(self._load, references, READERS, READ_AHEAD)

    def _load(self, reference: TaskReference) -> LoadedTask:
        try:
            record = reference.read()
            images = tuple(map(self._load_image, self._images(record)))
            return LoadedTask(reference.id, images, "", self._lost_controls(record))
        except (BadRequest, DatasetError, TaskError) as error:
            return LoadedTask(reference.id, problem=str(error))

    def _load_image(self, loaded: LoadedImage) -> LoadedImage:
        image = loaded.image
        try:
            if not self.needs_images and image.size_hw is not None:
                return loaded
            return replace(loaded, content=self.read_file(image.source, image.task))
        except (BadRequest, TaskError) as error:
            return replace(loaded, problem=str(error))

    def _images(self, record: TaskRecord) -> list[LoadedImage]:
        """Return the pictures of a task; none where nothing counts of what was said about it."""
        said = self._said(record)
        created = min((each.created for each in record.annotations), default=math.inf)
        found = find_images(record.task, said, self.names.config, self.names.names_of)
        return [LoadedImage(each, created) for each in (found if said else ())]

    def _lost_controls(self, record: TaskRecord) -> Counter[str]:
        """Count the regions that cover pixels of each control that the labeling config lacks."""
        areas = (area for result, _ in self._said(record) for area in drawn_areas(result))
        known = self.names.config.control_names
        return Counter(a.control for a in areas if is_shape(a) and a.control not in known)

    def label(self, image: AnnotatedImage, size_hw: tuple[int, int]) -> LabelledImage:
        """Return a picture, of a height and width in px, with its regions.

        Raises:
            BadRequest: see `AnnotatedImage.size_hw`.
            DatasetError: its regions were drawn on another size, or have an unknown label.
        """
        for text in self.names.unknown_labels(image):
            told = f'the label "{text[:100]}", which the labeling config does not have there'
            raise DatasetError(f"A region has {told if text else 'no label'}.")
        drawn, classes = image.size_hw, self.names.classes
        if drawn is not None and drawn != size_hw:
            raise DatasetError(
                f"Its regions were drawn on {drawn[1]}×{drawn[0]} px, but the picture has "
                f"{size_hw[1]}×{size_hw[0]} px."
            )
        versions = [_with_masks_kept(each) for each in image.versions]
        if len(versions) == 1:
            own = tuple(each for each in versions[0] if each.label != classes.background)
            return LabelledImage(
                size_hw, own, partial(draw_label_map, versions[0], size_hw, self.rule)
            )
        voted = vote([draw_label_map(each, size_hw, self.rule) for each in versions], classes.names)
        made = (
            LabelledRegion(name, mask, None, Provenance("majority"), "majority")
            for name in classes.names
            if (mask := cache(partial(voted.mask_of, name)))().any()
        )
        return LabelledImage(size_hw, tuple(made), lambda: voted)

    def _said(self, record: TaskRecord) -> list[Said]:
        """Return the regions of each annotation or prediction that counts, and where it is from."""
        if record.prediction is not None:
            version, regions = record.prediction
            return [(regions, Provenance("prediction", plain_text(version)))]
        return [
            said_by(each, plain_text(record.versions.get(each.prediction or 0, "")))
            for each in self.choice.choose(record.annotations)
        ]


def plain_text(text: str) -> str:
    """Replace lone surrogates, which no file of UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _with_masks_kept(regions: Sequence[LabelledRegion]) -> Sequence[LabelledRegion]:
    """Keep the masks of a picture, which several formats read, where they are small enough."""
    if sum(math.prod(each.area.size_hw) for each in regions) > _KEPT_PIXELS:
        return regions
    return [replace(each, read_mask=cache(each.read_mask)) for each in regions]
