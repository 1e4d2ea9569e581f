"""Agreement: how far the people who have annotated a project agree, and where they do not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import fmean
from typing import Final

import cv2
import msgspec
import numpy as np

from backend.annotations.annotated_image import (
    LEAVE_OUT,
    AnnotatedImage,
    AnnotationChoice,
    find_images,
    read_annotated_image,
    sourced_regions,
)
from backend.annotations.label_map import MapRule, draw_label_map
from backend.annotations.regions import LabelledRegion
from backend.errors import StudioRefused
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import image_size
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.runs.run_store import MOST_LEFT_OUT, AskedNothing, Progress, Run, RunKind, RunParts
from clearclip_core import BoolMask
from clearclip_core.agreement import LabelAgreement, PairAgreement, compare_image
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.opening import to_data_url

MOST_DISPUTES: Final = 40  # most pictures in dispute that are listed
MOST_CONFUSIONS: Final = 10  # most confusions that are listed
SIDE_PX: Final = 480  # long side of a picture in px
_COLOUR: Final = np.array([[255, 0, 160]], np.uint8)  # of pixels in dispute

#: People who have drawn rectangles are compared by these.
_RULE: Final = MapRule(fills_rectangles=True)


# ---- the figures ---------------------------------------------------------------------------------


class AgreementOnLabel(msgspec.Struct, frozen=True):
    """Agreement on a label: means over the pictures on which somebody has painted it."""

    label: str
    pictures: int
    iou: float  # mean over pairs of people of whom one or both have painted it
    disputed: float  # share of the pixels to which some have given it and others not


class Confusion(msgspec.Struct, frozen=True):
    """Two labels that people have given to the same pixels."""

    label: str
    other: str  # name of the other one; "" where a person has given none
    share: float  # mean over the pairs of a picture, and then over all pictures


class AnnotatorFigures(msgspec.Struct, frozen=True):
    """Agreement of one annotator with the others."""

    annotator: int  # id of the annotator
    name: str  # name in Label Studio, else the e-mail address; "" where neither is known
    pictures: int  # number of pictures with a label that the annotator or another one has painted
    iou: float  # see `AgreementOnLabel`; mean over a picture's, then over pictures


class DisputedLabel(msgspec.Struct, frozen=True):
    """A label in dispute on one picture, see `AgreementOnLabel`."""

    label: str
    iou: float
    disputed: float


class Dispute(msgspec.Struct, frozen=True):
    """A picture on which people do not agree."""

    task: int
    item_index: int | None  # index in a list of pictures; None where the task shows no list
    people: int
    disputed: float  # share of the pixels to which not all have given the same labels
    labels: tuple[DisputedLabel, ...]  # the labels in dispute, those about most pixels first
    picture: str = ""  # the pixels in dispute over it, as a data URL; "": it cannot be read


class Agreement(msgspec.Struct, frozen=True):
    """Agreement of the people who have annotated a project."""

    tasks: int  # number of tasks that several people have annotated and that were compared
    pictures: int  # number of pictures of these tasks on which somebody has a region
    annotations: int
    disputed: float | None  # as of a `Dispute`, mean over the pictures; None where there is none
    labels: tuple[AgreementOnLabel, ...] = ()  # that somebody has painted, in the config's order
    confusions: tuple[Confusion, ...] = ()  # of most pixels first, the first of many alone
    annotators: tuple[AnnotatorFigures, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    dispute_count: int = 0
    left_out: dict[int, str] = {}  # task -> why it was not compared
    left_out_count: int = 0


# ---- the comparison ------------------------------------------------------------------------------


def measure_agreement(parts: RunParts, run: Run, _: AskedNothing, progress: Progress) -> Agreement:
    """Compare the annotations of all tasks that several people have annotated; write nothing.

    Raises:
        ValueError: there are such tasks, and none of them can be compared.
    """
    client, project, sums = parts.client, run.project, _Sums()
    config = client.config(project)
    wanted = TaskFilter(min_annotations=2)
    total = client.count(project, wanted)
    for done, task in enumerate(client.all_tasks(project, wanted), 1):
        try:
            sums.add(_compare(task, client.annotations(int(task.id or 0)), config))
        except LEAVE_OUT as error:
            sums.left_out[int(task.id or 0)] = str(error)
        progress(done, max(done, total))
    if sums.left_out and not sums.pictures:
        raise ValueError(f"No task can be compared. {next(iter(sums.left_out.values()))}")
    names: Mapping[int, str] = {}
    with suppress(StudioRefused):  # the token may not list people
        names = client.user_names()
    return sums.report(config.names, names, parts.images.read)


@dataclass(frozen=True, eq=False)
class _Compared:
    """A picture that several people have annotated, without arrays of its size."""

    image: AnnotatedImage
    size_hw: tuple[int, int]
    people: tuple[int, ...]
    labels: Mapping[str, LabelAgreement]
    confusions: Mapping[tuple[str, str], float]
    disputed: float
    coverage: BoolMask  # the pixels in dispute, at most `SIDE_PX` wide and high

    def disputed_by(self, label: str) -> float:
        height, width = self.size_hw
        return self.labels[label].disputed_px / (height * width)

    def told(self, read_image: ReadImage) -> Dispute:
        """Describe the dispute, with a picture if the image can be read."""
        try:
            image = self.image
            rgb = read_annotated_image(read_image, image.source, image.task, self.size_hw)
            shown = self.coverage.astype(np.int16) - 1
            picture = to_data_url(thumbnail(rgb, shown, _COLOUR, SIDE_PX))
        except LEAVE_OUT:
            picture = ""
        labels = [
            DisputedLabel(name, _mean_iou(its.pairs), self.disputed_by(name))
            for name, its in self.labels.items()
            if its.disputed_px
        ]
        labels.sort(key=lambda each: -each.disputed)
        number, people = int(self.image.task.id or 0), len(self.people)
        return Dispute(number, self.image.item_index, people, self.disputed, tuple(labels), picture)


@dataclass(eq=False)
class _Sums:
    """Sums over pictures."""

    tasks: int = 0
    pictures: int = 0
    annotations: int = 0
    disputed: float = 0.0  # sum of the shares of the pictures' pixels that are in dispute
    disputes: list[_Compared] = field(default_factory=list)  # the worst first
    dispute_count: int = 0
    left_out: dict[int, str] = field(default_factory=dict)
    #: Label -> IoU and share in dispute on each picture; annotator -> IoU with the others.
    labels: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    people: dict[int, list[float]] = field(default_factory=dict)
    confusions: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, images: Sequence[_Compared]) -> None:
        if images:
            self.tasks += 1
            self.annotations += len(images[0].people)
        for image in images:
            self._add(image)

    def _add(self, image: _Compared) -> None:
        self.pictures += 1
        self.disputed += image.disputed
        by_person: defaultdict[int, list[PairAgreement]] = defaultdict(list)
        for name, its in image.labels.items():
            if its.pairs:
                figures = _mean_iou(its.pairs), image.disputed_by(name)
                self.labels.setdefault(name, []).append(figures)
            for pair in its.pairs:
                for person in pair.people:
                    by_person[image.people[person]].append(pair)
        for labels, share in image.confusions.items():
            self.confusions[labels] = self.confusions.get(labels, 0.0) + share
        for annotator, pairs in by_person.items():
            self.people.setdefault(annotator, []).append(_mean_iou(pairs))
        if image.disputed:
            self.dispute_count += 1
            self.disputes.append(image)
            self.disputes.sort(key=lambda each: -each.disputed)  # of equal ones the first stay
            del self.disputes[MOST_DISPUTES:]

    def report(
        self, labels: Sequence[str], names: Mapping[int, str], read_image: ReadImage
    ) -> Agreement:
        """Put the figures together; annotators by name, and last those without one."""
        people = [
            AnnotatorFigures(person, names.get(person, ""), len(ious), fmean(ious))
            for person, ious in self.people.items()
        ]
        people.sort(key=lambda each: (not each.name, each.name.casefold(), each.annotator))
        largest = sorted(self.confusions.items(), key=lambda each: -each[1])[:MOST_CONFUSIONS]

        agreed = tuple(
            AgreementOnLabel(name, len(its), *map(fmean, zip(*its, strict=True)))
            for name in labels
            if (its := self.labels.get(name))
        )

        return Agreement(
            tasks=self.tasks,
            pictures=self.pictures,
            annotations=self.annotations,
            disputed=self.disputed / self.pictures if self.pictures else None,
            labels=agreed,
            confusions=tuple(Confusion(*pair, share / self.pictures) for pair, share in largest),
            annotators=tuple(people),
            disputes=tuple(each.told(read_image) for each in self.disputes),
            dispute_count=self.dispute_count,
            left_out=dict(islice(self.left_out.items(), MOST_LEFT_OUT)),
            left_out_count=len(self.left_out),
        )


def _mean_iou(pairs: Sequence[PairAgreement]) -> float:
    return fmean(pair.iou for pair in pairs)


# ---- what people have painted --------------------------------------------------------------------


def newest_of_each(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Return the annotation of each person that counts: the one that was changed last.

    Skipped ones do not count, those of nobody, nor copies of another person's.

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


def _compare(task: Task, every: Iterable[Annotation], config: LabelConfig) -> list[_Compared]:
    """Compare the pictures of a task on which at least one of several people has a region.

    A person without a region on such a picture has painted nothing there.
    """
    annotations = newest_of_each(every)
    if len(annotations) < 2:
        return []
    people = tuple(int(each.annotator or 0) for each in annotations)
    images = find_images(task, map(sourced_regions, annotations), config)
    return [_compare_image(each, people, config) for each in images if any(each.versions)]


def _compare_image(
    image: AnnotatedImage, people: tuple[int, ...], config: LabelConfig
) -> _Compared:
    """Compare what people have painted on one picture.

    A rectangle is filled, and counts only where a label has nothing else.
    """
    size_hw = image_size(each.area for version in image.versions for each in version)
    numbers = {name: number for number, name in enumerate(config.names, 1)}
    maps = [
        draw_label_map(_without_frames(version), size_hw, _RULE).values(numbers, 0, 0, np.uint16)
        for version in image.versions
    ]
    made = compare_image(maps, config.names)
    return _Compared(
        replace(image, versions=()),
        size_hw,
        people,
        made.labels,
        made.confusions,
        made.disputed_share,
        shrink(made.disputed),
    )


def _without_frames(regions: Sequence[LabelledRegion]) -> list[LabelledRegion]:
    """Leave the rectangles of labels out that have other regions, too."""
    painted = {each.label for each in regions if not each.is_rectangle}
    return [each for each in regions if not (each.is_rectangle and each.label in painted)]


def shrink(disputed: BoolMask) -> BoolMask:
    """Shrink pixels in dispute (H, W) to the size of a picture; thin lines stay.

    >>> shrink(np.eye(960, dtype=bool)[:, :480]).shape
    (480, 240)
    """
    factor = min(1.0, SIDE_PX / max(disputed.shape))
    height, width = (max(1, round(side * factor)) for side in disputed.shape)
    values = disputed.astype(np.uint8) * 255
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA) > 0)


AGREEMENT: Final = RunKind(
    "agreement",
    "Agreement",
    "Annotations are read from Label Studio",
    AskedNothing,
    Agreement,
    measure_agreement,
    lambda report: {each.task for each in report.disputes},
    needs_model=False,
)
