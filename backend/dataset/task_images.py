"""Make labelled pictures of a task: choose annotations, read regions, let annotators vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args

import numpy as np

from backend.dataset.labelled_image import (
    NOTHING,
    BoolMask,
    ClassTable,
    LabelledImage,
    LabelledRegion,
    Origin,
    Overlap,
    Provenance,
)
from backend.dataset.project_labels import ProjectLabels
from backend.dataset.task_record import TaskRecord
from backend.errors import BadRequest, DatasetError
from backend.label_studio.annotation_choice import AnnotationChoice
from backend.label_studio.drawing_steps import check_exported_masks
from backend.label_studio.label_config import ImageTag
from backend.label_studio.region_reader import Area, area_mask, disagreement, read_areas
from backend.label_studio.requests import Task

_ORIGINS: Final = get_args(Origin)


@dataclass(frozen=True)
class TaskImage:
    """One picture of a task, before its file is read.

    Attributes:
        task: the task.
        tag: name of the ``<Image>``.
        item_index: index in a list of pictures; 0 where it is no list.
        source: address of the picture.
        versions: the regions of each annotation that counts: several vote. None: nobody has said
            anything of the task.
    """

    task: Task
    tag: str
    item_index: int
    source: str
    versions: tuple[tuple[tuple[Area, Provenance], ...], ...]

    @property
    def key(self) -> str:
        """Text that tells it from all other pictures of the project."""
        return f"{self.task.id}/{self.tag}/{self.item_index}"

    @property
    def drawn_size_hw(self) -> tuple[int, int] | None:
        """The size in px on which its regions were drawn; None without a region.

        Raises:
            DatasetError: regions were drawn on several sizes.
        """
        sizes = {area.size_hw for version in self.versions for area, _ in version}
        if len(sizes) > 1:
            raise DatasetError(disagreement(sizes))
        return next(iter(sizes), None)


class TaskImageReader:
    """Makes labelled pictures of tasks.

    Args:
        labels: the controls and classes of the project.
        choice: says which annotations count.
        with_predictions: whether the newest prediction counts where a task has no such annotation.
        overlap: the rule by which overlaps are resolved before annotators vote.
        max_megapixels: limit of a picture's size, in millions of pixels.
    """

    def __init__(
        self,
        labels: ProjectLabels,
        choice: AnnotationChoice,
        *,
        with_predictions: bool,
        overlap: Overlap,
        max_megapixels: float,
    ) -> None:
        self._labels = labels
        self._choice = choice
        self._with_predictions = with_predictions
        self._overlap = overlap
        self._max_megapixels = max_megapixels

    def images(self, record: TaskRecord) -> list[TaskImage]:
        """Return the pictures of a task; none where nothing counts of what was said about it.

        Raises:
            DatasetError: a region is broken, or has an unknown label.
            DataKeyError: the task's data lacks an address.
        """
        results = self._results(record)
        if not results:
            return []
        versions = [self._areas(result) for result in results]
        found: list[TaskImage] = []
        for tag in self._labels.images:
            for index, source in enumerate(tag.sources(record.task.data)):
                of_image = tuple(_on_image(version, tag, index) for version in versions)
                found.append(TaskImage(record.task, tag.name, index, source, of_image))
        return found

    def label(
        self, image: TaskImage, name: str, suffix: str, size_hw: tuple[int, int]
    ) -> LabelledImage:
        """Return a picture with its regions.

        Args:
            image: the picture.
            name: its name in the data set.
            suffix: of its file.
            size_hw: its height and width in px.

        Raises:
            DatasetError: its regions were drawn on another size, have an unknown label, take too
                long to draw, or cannot be decoded.
        """
        drawn = image.drawn_size_hw
        if drawn is not None and drawn != size_hw:
            raise DatasetError(
                f"Its regions were drawn on {drawn[1]}×{drawn[0]} px, but the picture has "
                f"{size_hw[1]}×{size_hw[0]} px."
            )
        if size_hw[0] * size_hw[1] > self._max_megapixels * 1e6:
            raise DatasetError(
                f"Its regions cover {size_hw[1]}×{size_hw[0]} px, over the limit of "
                f"{self._max_megapixels:g} MP."
            )
        try:
            for version in image.versions:
                check_exported_masks(size_hw, [area for area, _ in version])
        except (BadRequest, ValueError) as error:
            raise DatasetError(str(error)) from None
        versions = [
            LabelledImage(name, size_hw, self._regions(version), suffix)
            for version in image.versions
        ]
        return versions[0] if len(versions) == 1 else vote(versions, self.classes, self._overlap)

    @property
    def classes(self) -> ClassTable:
        """The classes of the project."""
        return self._labels.classes

    def _results(self, record: TaskRecord) -> list[tuple[Sequence[Any], Provenance]]:
        chosen = self._choice.choose(record.annotations)
        if chosen:
            return [
                (
                    each.result,
                    Provenance(
                        model_version=plain_text(record.version_of(each.prediction)),
                        annotation=each.id,
                        annotator=each.annotator,
                    ),
                )
                for each in chosen
            ]
        if self._with_predictions and record.predictions and not _is_judged(record):
            newest = record.predictions[-1]
            return [(newest.result, Provenance("prediction", plain_text(newest.version)))]
        return []

    def _areas(
        self, result: tuple[Sequence[Any], Provenance]
    ) -> tuple[tuple[Area, Provenance], ...]:
        regions, whole = result
        areas = read_areas(regions, self._labels.controls)
        return tuple((area, _provenance_of(area, whole)) for area in areas)

    def _regions(self, areas: Sequence[tuple[Area, Provenance]]) -> tuple[LabelledRegion, ...]:
        return tuple(
            LabelledRegion(
                label=name,
                read_mask=_mask_reader(area),
                score=area.score,
                provenance=provenance,
                id=area.id,
            )
            for area, provenance in areas
            for name in self._labels.names_of(area)
        )


def vote(versions: Sequence[LabelledImage], classes: ClassTable, overlap: Overlap) -> LabelledImage:
    """Give each pixel the class that more than half of the annotators have given it.

    Pixels without such a class have none. The vote is that of Boyer and Moore (1981): one pass
    finds the only value that can have a majority, another one counts it.

    Args:
        versions: the picture as each annotator has labelled it.
        classes: the classes.
        overlap: the rule by which the overlaps of each annotator are resolved.

    Returns:
        The picture with one region for each class.

    Raises:
        DatasetError: see `LabelledImage.owners`.
    """
    maps = [version.label_map(classes, overlap) for version in versions]
    leader = maps[0].copy()
    lead = np.ones(leader.shape, np.int32)
    for label_map in maps[1:]:
        agrees = label_map == leader
        lead += np.where(agrees, 1, -1)
        lost = lead < 0
        leader[lost] = label_map[lost]
        lead[lost] = 1
    votes = np.zeros(leader.shape, np.int32)
    for label_map in maps:
        votes += label_map == leader
    leader[2 * votes <= len(maps)] = NOTHING
    first = versions[0]
    regions = tuple(
        LabelledRegion(
            classes.names[value],
            partial(np.equal, leader, value),
            provenance=Provenance("majority"),
        )
        for value in np.unique(leader).tolist()
        if value != NOTHING
    )
    return LabelledImage(first.name, first.size_hw, regions, first.suffix)


def plain_text(text: str) -> str:
    """Replace lone surrogates, which no file of UTF-8 can hold.

    >>> plain_text("a\\ud800")
    'a?'
    """
    return text.encode("utf-8", "replace").decode()


def _is_judged(record: TaskRecord) -> bool:
    """Return whether somebody has said something of a task, be it to skip it."""
    return bool(record.annotations)


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


def _mask_reader(area: Area) -> Callable[[], BoolMask]:
    def read() -> BoolMask:
        try:
            return area_mask(area)
        except ValueError as error:
            raise DatasetError(str(error)) from None

    return read
