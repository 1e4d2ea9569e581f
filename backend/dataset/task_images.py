"""Labelled pictures of tasks: choose annotations, read regions, let annotators vote, read ahead."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Final, get_args

import numpy as np

from backend.dataset.labelled_image import (
    NO_CLASS,
    ClassTable,
    LabelledImage,
    LabelledRegion,
    Origin,
    Overlap,
    Provenance,
    RegionMask,
)
from backend.dataset.tasks import READ_AHEAD, READERS, TaskRecord, TaskReference
from backend.errors import BadRequest, DatasetError, TaskError
from backend.label_studio.annotations import AnnotationChoice
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.region_reader import (
    Area,
    area_mask,
    drawn_areas,
    image_size,
    is_shape,
    read_areas,
)
from backend.label_studio.requests import Task
from clearclip_core.thread_pools import read_ahead

#: Pixels of all masks of a picture that are kept while it is written.
_KEPT_PIXELS: Final = 32 << 20


@dataclass(frozen=True)
class ClassNames:
    """The classes of regions: their labels, or what the caller wants in the place of these.

    Attributes:
        renamed: label -> class, as the caller wants it; an empty class leaves its regions out.

    Raises:
        DatasetError: a label is renamed to what is no class.
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

    def names_of(self, area: Area) -> tuple[str, ...]:
        """Return the names of the classes that a region has: mostly one.

        There is none where a prompt has left the region behind, or where the caller leaves it out.

        Raises:
            DatasetError: it has no label, or one that the labeling config does not have.
        """
        if unknown := self.unknown_labels(area):
            raise DatasetError(
                f'A region of "{area.control[:50]}" has the label "{unknown[0][:100]}", which the '
                "labeling config does not have there."
            )
        if not area.labels:
            raise DatasetError(f'A region of "{area.control[:50]}" has no label.')
        return tuple(dict.fromkeys(filter(None, self._names(area).values())))

    def unknown_labels(self, area: Area) -> list[str]:
        """Return those labels of a region that the labeling config does not have."""
        known = ("", *self.classes.all_names)
        return [text for text, name in self._names(area).items() if name not in known]

    def _names(self, area: Area) -> dict[str, str]:
        names = {text: self.config.label_of(area.control, text) for text in area.labels}
        return {
            text: ""
            if name == ""
            else self.renamed.get(text, self.renamed.get(name or text, name or text))
            for text, name in names.items()
        }


_ORIGINS: Final = get_args(Origin)


@dataclass(frozen=True)
class AnnotatedImage:
    """One picture of a task.

    Attributes:
        item_index: index in a list of pictures; 0 where it is no list.
        versions: the regions of each annotation that counts: several vote.
        created: when the task was annotated first, in seconds since the epoch.
        content: bytes of its file, where they are needed.
        problem: why they could not be read.
    """

    task: Task
    tag: str
    item_index: int
    source: str
    versions: tuple[tuple[tuple[Area, Provenance], ...], ...]
    created: float
    content: bytes | None = field(default=None, repr=False)
    problem: str = ""

    @property
    def key(self) -> str:
        """Text that tells it from all other pictures of the project."""
        return f"{self.task.id}/{self.tag}/{self.item_index}"

    @property
    def drawn_size_hw(self) -> tuple[int, int] | None:
        """The size in px on which its regions were drawn; None without a region.

        Raises:
            BadRequest: regions were drawn on several sizes, or are more than can be drawn.
        """
        areas = [area for version in self.versions for area, _ in version]
        return image_size(areas) if areas else None


@dataclass(frozen=True)
class RegionReader:
    """Makes labelled pictures of tasks.

    Attributes:
        choice: says which annotations count.
        overlap: the rule by which overlaps are resolved before annotators vote.
    """

    labels: ClassNames
    choice: AnnotationChoice
    overlap: Overlap

    def images(self, record: TaskRecord) -> list[AnnotatedImage]:
        """Return the pictures of a task; none where nothing counts of what was said about it.

        Raises:
            DataKeyError: the task's data lacks an address.
        """
        config = self.labels.config
        names = config.control_names, config.prompt_tools
        versions = [
            [(area, _provenance_of(area, whole)) for area in read_areas(regions, *names)]
            for regions, whole in self._results(record)
        ]
        created = min((each.created for each in record.annotations), default=math.inf)
        return [
            AnnotatedImage(
                record.task,
                tag.name,
                index,
                source,
                tuple(_on_image(version, tag, index) for version in versions),
                created,
            )
            for tag in (self.labels.config.annotated if versions else ())
            for index, source in enumerate(tag.sources(record.task.data))
        ]

    def lost_controls(self, record: TaskRecord) -> Counter[str]:
        """Count the regions that cover pixels of each control that the labeling config lacks."""
        areas = (area for result, _ in self._results(record) for area in drawn_areas(result))
        known = self.labels.config.control_names
        return Counter(a.control for a in areas if is_shape(a) and a.control not in known)

    def label(self, image: AnnotatedImage, size_hw: tuple[int, int]) -> LabelledImage:
        """Return a picture, of a height and width in px, with its regions.

        Raises:
            BadRequest: see `AnnotatedImage.drawn_size_hw`.
            DatasetError: its regions were drawn on another size, or have an unknown label.
        """
        drawn = image.drawn_size_hw
        if drawn is not None and drawn != size_hw:
            raise DatasetError(
                f"Its regions were drawn on {drawn[1]}×{drawn[0]} px, but the picture has "
                f"{size_hw[1]}×{size_hw[0]} px."
            )
        versions = [LabelledImage(size_hw, self._regions(version)) for version in image.versions]
        if len(versions) == 1:
            return versions[0]
        return vote(versions, self.labels.classes, self.overlap)

    def _results(self, record: TaskRecord) -> list[tuple[Sequence[Any], Provenance]]:
        """Return the regions of each annotation or prediction that counts, and where it is from."""
        if record.prediction is not None:
            version, regions = record.prediction
            return [(regions, Provenance("prediction", plain_text(version)))]
        return [
            (
                each.result,
                Provenance(
                    model_version=plain_text(record.versions.get(each.prediction or 0, "")),
                    annotation=each.id,
                    annotator=each.annotator,
                ),
            )
            for each in self.choice.choose(record.annotations)
        ]

    def _regions(self, areas: Sequence[tuple[Area, Provenance]]) -> tuple[LabelledRegion, ...]:
        pixels = sum(math.prod(area.size_hw) for area, _ in areas)
        return tuple(
            LabelledRegion(
                label=name,
                read_mask=_mask_reader(area, is_kept=pixels <= _KEPT_PIXELS),
                score=area.score,
                provenance=provenance,
                id=area.id,
                parent=area.parent,
            )
            for area, provenance in areas
            for name in self.labels.names_of(area)
            if name != self.labels.classes.background  # as pixels that nobody has painted
        )


def vote(versions: Sequence[LabelledImage], classes: ClassTable, overlap: Overlap) -> LabelledImage:
    """Give each pixel the class that more than half of the annotators have given it.

    Pixels without such a class are undecided. `overlap` resolves the overlaps of each annotator
    before.
    """
    maps = [version.label_map(classes, overlap)[0] for version in versions]
    leader = np.full(maps[0].shape, NO_CLASS, np.uint8)
    undecided = np.ones(leader.shape, np.bool_)
    for value in np.unique(maps).tolist():
        votes = np.sum([label_map == value for label_map in maps], axis=0, dtype=np.uint16)
        agreed = 2 * votes > len(maps)
        leader[agreed] = value
        undecided &= ~agreed
    regions = tuple(
        LabelledRegion(
            classes.all_names[value],
            partial(np.equal, leader, value),
            provenance=Provenance("majority"),
            id="majority",
        )
        for value in np.unique(leader).tolist()
        if value != NO_CLASS
    )
    return LabelledImage(versions[0].size_hw, regions, undecided)


def plain_text(text: str) -> str:
    """Replace lone surrogates, which no file of UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _provenance_of(area: Area, whole: Provenance) -> Provenance:
    origin: Origin = whole.origin
    if whole.annotation is not None:
        origin = next((each for each in _ORIGINS if each == area.origin), "manual")
    from_model = origin in ("prediction", "prediction-changed")
    return Provenance(
        origin, whole.model_version if from_model else "", whole.annotation, whole.annotator
    )


def _on_image(
    version: Sequence[tuple[Area, Provenance]], tag: ImageTag, index: int
) -> tuple[tuple[Area, Provenance], ...]:
    return tuple(
        each for each in version if each[0].image == tag.name and (each[0].item_index or 0) == index
    )


def _mask_reader(area: Area, is_kept: bool) -> Callable[[], RegionMask]:
    def read() -> RegionMask:
        try:
            return area_mask(area)
        except ValueError as error:
            raise DatasetError(str(error)) from None

    return cache(read) if is_kept else read  # several formats read each mask


@dataclass(frozen=True)
class LoadedTask:
    """A task with the pictures that count, or why it was not read; see `lost_controls`."""

    id: int
    images: tuple[AnnotatedImage, ...] = ()
    problem: str = ""
    lost_controls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskLoader:
    """Reads tasks ahead; without `needs_pictures` only pictures without a region, and so a size."""

    reader: RegionReader
    read_file: Callable[[str, Task], bytes]
    needs_pictures: bool

    def load(self, references: Iterable[TaskReference]) -> Generator[LoadedTask, None, None]:
        """Iterate over tasks in their order."""
        return read_ahead(self._load, references, READERS, READ_AHEAD)

    def _load(self, reference: TaskReference) -> LoadedTask:
        try:
            record = reference.read()
            images = tuple(map(self._load_image, self.reader.images(record)))
            return LoadedTask(reference.id, images, "", self.reader.lost_controls(record))
        except (BadRequest, DatasetError, TaskError) as error:
            return LoadedTask(reference.id, problem=str(error))

    def _load_image(self, image: AnnotatedImage) -> AnnotatedImage:
        try:
            if not self.needs_pictures and image.drawn_size_hw is not None:
                return image
            return replace(image, content=self.read_file(image.source, image.task))
        except (BadRequest, TaskError) as error:
            return replace(image, problem=str(error))
