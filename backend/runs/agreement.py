"""Agreement: how far the people who have annotated a project agree, and where they do not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from backend.errors import BadRequest, StudioRefused, StudioUnreachable
from backend.feedback.comparison import find_areas
from backend.feedback.evidence import AreasByLabel, LazyMasks, without_rectangles
from backend.label_studio.annotations import LEAVE_OUT, AnnotationChoice, read_annotated_image
from backend.label_studio.client import LabelStudioClient, UnreadableTasks
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import ImageTag, LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation
from backend.label_studio.region_reader import image_size
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.runs.run import MOST_LEFT_OUT, AskedNothing, Progress, Run, RunKind, RunParts
from clearclip_core import BoolMask, RGBArray
from clearclip_core.agreement.agreement import (
    BinaryValues,
    LabelAgreement,
    PairAgreement,
    compare_image,
)
from clearclip_core.images.opening import to_data_url

#: A figure of fewer pictures is marked: one picture more may change it much.
FEW_PICTURES: Final = 10

#: The pictures on which people do not agree that are listed at most.
MOST_DISPUTES: Final = 40

#: The confusions that are listed at most.
MOST_CONFUSIONS: Final = 10

#: Pixels of an image times the people whose masks of it are compared: they are held together.
MOST_PX: Final = 1 << 28

#: Long side of a picture in px.
SIDE_PX: Final = 480

#: Colour of pixels in dispute, and the share of it where all that a pixel shows is in dispute.
_COLOUR: Final = (255, 0, 160)
_OPACITY: Final = 0.6

#: How much of the image's own colour is left: the rest is grey, so that the dispute stands out.
_COLOURFULNESS: Final = 0.5

#: (h, w), how much of each pixel is in dispute: 0 to 255.
Coverage = npt.NDArray[np.uint8]


# ---- the figures ---------------------------------------------------------------------------------


class AgreementOnLabel(msgspec.Struct, frozen=True):
    """Agreement on a label.

    Attributes:
        iou: intersection over union of two people's masks: the mean over the pairs of a picture,
            and then over these pictures. 0 where one of a pair has left the label out; a pair that
            has left it out both is not counted.
        boundary_f: boundary F-measure, in the same way; None where no edge lies inside a picture.
        alpha: Krippendorff's alpha over the pixels of all pictures that can have it; None where it
            is on none or all of them.
        disputed: share of the pixels to which some have given it and others not: the mean over
            these pictures.
    """

    label: str
    pictures: int
    iou: float
    boundary_f: float | None
    alpha: float | None
    disputed: float


class Confusion(msgspec.Struct, frozen=True):
    """Two labels that people have given to the same pixels.

    Attributes:
        other: name of the other one; "" where a person has given none.
        share: share of the pixels to which one of two people has given the first, and the other the
            second: the mean over the pairs of a picture, and then over all pictures. Where labels
            overlap, the last counts, in the order of the config's controls: brushes come first, and
            rectangles last.
    """

    label: str
    other: str
    share: float


class AnnotatorFigures(msgspec.Struct, frozen=True):
    """Agreement of one annotator with the others.

    Attributes:
        annotator: id of the annotator.
        name: name in Label Studio, else the e-mail address; "" where neither is known.
        pictures: number of pictures with a label that the annotator or another one has painted.
        iou: intersection over union with the others' masks: the mean over labels and others of a
            picture, and then over pictures.
        boundary_f: boundary F-measure, in the same way; None where no edge lies inside a picture.
    """

    annotator: int
    name: str
    pictures: int
    iou: float
    boundary_f: float | None


class DisputedLabel(msgspec.Struct, frozen=True):
    """A label in dispute on one picture.

    Attributes:
        iou: the mean over the pairs of people, see `AgreementOnLabel`.
        disputed: share of the picture's pixels that are in dispute about it.
    """

    label: str
    iou: float
    boundary_f: float | None
    disputed: float


class Dispute(msgspec.Struct, frozen=True):
    """A picture on which people do not agree.

    Attributes:
        item_index: index in a list of pictures; None where the task shows no list.
        people: number of people who have annotated it.
        disputed: share of the pixels to which not all have given the same labels.
        labels: the labels in dispute, those about most pixels first.
        picture: the pixels in dispute over the picture, as a data URL; "" where it cannot be read.
    """

    task: int
    item_index: int | None
    people: int
    disputed: float
    labels: tuple[DisputedLabel, ...]
    picture: str = ""


class Agreement(msgspec.Struct, frozen=True):
    """Agreement of the people who have annotated a project.

    Attributes:
        tasks: number of tasks that several people have annotated and that were compared.
        pictures: number of pictures of these tasks on which somebody has a region.
        annotations: number of annotations that were compared.
        disputed: share of the pixels to which not all have given the same labels: the mean over the
            pictures; None where there is no picture to compare yet.
        labels: the labels that somebody has painted, in the order of the label config.
        confusions: labels that people have given to the same pixels, those of most pixels first; of
            many the first only.
        disputes: the pictures on which people do not agree, the most disputed first; of many the
            first only.
        left_out: task -> why it was not compared; of the first tasks only.
    """

    tasks: int
    pictures: int
    annotations: int
    seconds: float
    disputed: float | None
    labels: tuple[AgreementOnLabel, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    annotators: tuple[AnnotatorFigures, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    dispute_count: int = 0
    left_out: dict[int, str] = {}
    left_out_count: int = 0


# ---- the comparison ------------------------------------------------------------------------------


def measure_agreement(
    parts: RunParts, run: Run, _asked: AskedNothing, progress: Progress
) -> Agreement:
    """Compare the annotations of all tasks that several people have annotated.

    Nothing is written to Label Studio.

    Returns:
        The figures; those of no picture where no task has annotations of several people with a
        region of a label.

    Raises:
        ValueError: there are such tasks, and none of them can be compared.
    """
    began, client, project = time.perf_counter(), parts.client, run.project
    config = parse_label_config(client.label_config(project))
    names = _names(client)  # now: after hours of work nothing is lost where they are away
    sums = _Sums()
    wanted, unreadable = TaskFilter(min_annotations=2), UnreadableTasks(client, project)
    total = client.count(project, wanted)
    for done, task in enumerate(client.all_tasks(project, wanted), 1):
        _compare(task, config, sums, unreadable)
        progress(done, max(done, total))
    if sums.left_out and not sums.pictures:
        raise ValueError(f"No task can be compared. {next(iter(sums.left_out.values()))}")
    disputes = tuple(each.told(parts.images.read) for each in sums.disputes)
    return Agreement(
        sums.tasks,
        sums.pictures,
        sums.annotations,
        time.perf_counter() - began,
        sums.disputed / sums.pictures if sums.pictures else None,
        sums.label_figures(config),
        sums.confusion_figures(),
        sums.annotator_figures(names),
        disputes,
        sums.dispute_count,
        dict(islice(sums.left_out.items(), MOST_LEFT_OUT)),
        len(sums.left_out),
    )


def _compare(task: Task, config: LabelConfig, sums: _Sums, unreadable: UnreadableTasks) -> None:
    """Add the images of a task; a task with one that cannot be compared is left out."""
    number = int(task.id or 0)
    try:
        annotations = newest_of_each(unreadable.annotations(number))
        if len(annotations) < 2:
            return
        images = shared_images(task, annotations, config)
        compared = [_Compared.of(image) for image in images]
    except LEAVE_OUT as error:
        sums.left_out[number] = str(error)
        return
    if compared:
        sums.tasks += 1
        sums.annotations += len(annotations)
    for each in compared:
        sums.add(each)


def _names(client: LabelStudioClient) -> Mapping[int, str]:
    """Return the names of people; none where Label Studio does not tell them."""
    try:
        return client.user_names()
    except (StudioRefused, StudioUnreachable):
        return {}


@dataclass(frozen=True, eq=False)
class _Compared:
    """A picture that was compared, without what is as large as the picture itself."""

    image: SharedImage
    labels: Mapping[str, LabelAgreement]
    confusions: Mapping[tuple[str, str], float]
    disputed: float
    coverage: Coverage

    @classmethod
    def of(cls, image: SharedImage) -> _Compared:
        made = compare_image(image.masks, image.labels, image.size_hw)
        return cls(
            replace(image, masks=()),  # which may be large
            made.labels,
            made.confusions,
            made.disputed_share,
            shrink(made.disputed),
        )

    def share(self, label: LabelAgreement) -> float:
        height, width = self.image.size_hw
        return label.disputed_px / (height * width)

    def told(self, read_image: ReadImage) -> Dispute:
        """Describe the dispute, with a picture if the image can be read."""
        image = self.image
        try:
            place = image.task, image.tag, image.item_index
            rgb = read_annotated_image(read_image, *place, image.size_hw)
            picture = dispute_picture(rgb, self.coverage)
        except LEAVE_OUT:
            picture = ""
        labels = [
            DisputedLabel(name, _iou(its.pairs), _boundary_f(its.pairs), self.share(its))
            for name, its in self.labels.items()
            if its.disputed_px
        ]
        return Dispute(
            int(image.task.id or 0),
            image.item_index,
            len(image.people),
            self.disputed,
            tuple(sorted(labels, key=lambda each: -each.disputed)),
            picture,
        )


@dataclass(eq=False)
class _Values:
    """The values of the pictures of a label, or of an annotator."""

    iou: list[float] = field(default_factory=list)
    boundary_f: list[float] = field(default_factory=list)
    disputed: list[float] = field(default_factory=list)

    def add(self, pairs: Sequence[PairAgreement]) -> None:
        """Add the pairs of a picture, of which there is at least one."""
        self.iou.append(_iou(pairs))
        if (boundary_f := _boundary_f(pairs)) is not None:
            self.boundary_f.append(boundary_f)


@dataclass(eq=False)
class _Sums:
    """Sums over pictures.

    Attributes:
        annotations: number of their annotations.
        disputed: sum of the shares of the pictures' pixels that are in dispute.
        disputes: the most disputed pictures, at most `MOST_DISPUTES`, the worst first.
    """

    tasks: int = 0
    pictures: int = 0
    annotations: int = 0
    disputed: float = 0.0
    disputes: list[_Compared] = field(default_factory=list)
    dispute_count: int = 0
    left_out: dict[int, str] = field(default_factory=dict)
    labels: defaultdict[str, _Values] = field(default_factory=lambda: defaultdict(_Values))
    values: defaultdict[str, BinaryValues] = field(
        default_factory=lambda: defaultdict(BinaryValues)
    )
    confusions: defaultdict[tuple[str, str], float] = field(
        default_factory=lambda: defaultdict(float)
    )
    people: defaultdict[int, _Values] = field(default_factory=lambda: defaultdict(_Values))

    def add(self, compared: _Compared) -> None:
        self.pictures += 1
        self.disputed += compared.disputed
        by_person: defaultdict[int, list[PairAgreement]] = defaultdict(list)
        for name, its in compared.labels.items():
            self.values[name] += its.values
            if its.pairs:
                self.labels[name].add(its.pairs)
                self.labels[name].disputed.append(compared.share(its))
            for pair in its.pairs:
                for person in pair.people:
                    by_person[compared.image.people[person]].append(pair)
        for labels, share in compared.confusions.items():
            self.confusions[labels] += share
        for annotator, pairs in by_person.items():
            self.people[annotator].add(pairs)
        if compared.disputed:
            self.dispute_count += 1
            self.disputes.append(compared)
            self.disputes.sort(key=lambda each: -each.disputed)  # of equal ones the first stay
            del self.disputes[MOST_DISPUTES:]

    def label_figures(self, config: LabelConfig) -> tuple[AgreementOnLabel, ...]:
        names = (label.name for label in (*config.labels, *config.box_labels))
        return tuple(
            AgreementOnLabel(
                name,
                len(values.iou),
                _mean(values.iou) or 0.0,
                _mean(values.boundary_f),
                self.values[name].alpha,
                _mean(values.disputed) or 0.0,
            )
            for name in names
            if (values := self.labels.get(name)) is not None
        )

    def confusion_figures(self) -> tuple[Confusion, ...]:
        """Return the largest confusions; of equal ones those that were seen first."""
        largest = sorted(self.confusions.items(), key=lambda each: -each[1])[:MOST_CONFUSIONS]
        return tuple(Confusion(*labels, share / self.pictures) for labels, share in largest)

    def annotator_figures(self, names: Mapping[int, str]) -> tuple[AnnotatorFigures, ...]:
        """Return the figures of the annotators by name; those without a name come last."""
        found = [
            AnnotatorFigures(
                annotator,
                names.get(annotator, ""),
                len(values.iou),
                _mean(values.iou) or 0.0,
                _mean(values.boundary_f),
            )
            for annotator, values in self.people.items()
        ]
        return tuple(
            sorted(found, key=lambda each: (not each.name, each.name.casefold(), each.annotator))
        )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _iou(pairs: Sequence[PairAgreement]) -> float:
    return _mean([pair.iou for pair in pairs]) or 0.0


def _boundary_f(pairs: Sequence[PairAgreement]) -> float | None:
    return _mean([pair.boundary_f for pair in pairs if pair.boundary_f is not None])


# ---- what people have painted --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SharedImage:
    """An image that several people have annotated.

    Attributes:
        people: ids of the annotators, at least two.
        masks: of each of them, name of a label -> (H, W) bool, drawn on each access. A rectangle is
            filled, and counts only where a label has nothing else. To draw a broken region is a
            ValueError.
    """

    task: Task
    tag: ImageTag
    item_index: int | None
    size_hw: tuple[int, int]
    people: tuple[int, ...]
    masks: Sequence[Mapping[str, BoolMask]] = field(repr=False)
    labels: tuple[str, ...]


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
        annotations: one of each person, see `newest_of_each`.
    """
    painted = [find_areas(each.result, config) for each in annotations]
    people = tuple(int(each.annotator or 0) for each in annotations)
    return [
        _shared(task, tag, people, [each.get((tag.name, index), {}) for each in painted], config)
        for tag in config.images
        for index in sorted({item for name, item in chain(*painted) if name == tag.name})
    ]


def _shared(
    task: Task,
    tag: ImageTag,
    people: tuple[int, ...],
    painted: Sequence[AreasByLabel],
    config: LabelConfig,
) -> SharedImage:
    """Put together what people have painted on one image."""
    areas = [area for its in painted for label in its.values() for area in label]
    size_hw = image_size(areas)
    if size_hw[0] * size_hw[1] * len(people) > MOST_PX:
        raise BadRequest(
            f"Expected at most {MOST_PX} pixels times people, but {len(people)} people have "
            f"annotated a picture of {size_hw[1]}×{size_hw[0]} px."
        )
    every = (label.name for label in (*config.labels, *config.box_labels))
    return SharedImage(
        task,
        tag,
        areas[0].item_index,
        size_hw,
        people,
        [LazyMasks.of_areas({**its, **without_rectangles(its)}, size_hw) for its in painted],
        tuple(name for name in every if config.controls_for(tag.name, name)),
    )


# ---- pictures of it ------------------------------------------------------------------------------


def shrink(disputed: BoolMask) -> Coverage:
    """Shrink pixels in dispute (H, W) to the size of a picture.

    >>> shrink(np.eye(960, dtype=bool)[:, :480]).shape
    (480, 240)
    """
    factor = min(1.0, SIDE_PX / max(disputed.shape))
    height, width = (max(1, round(side * factor)) for side in disputed.shape)
    values = disputed.astype(np.uint8) * 255
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def dispute_picture(rgb: RGBArray, coverage: Coverage) -> str:
    """Return an image (H, W, 3) uint8 with its pixels in dispute as the data URL of a JPEG.

    Thin lines fade less than their coverage, so that they are seen.
    """
    height, width = coverage.shape
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small.mean(axis=2, keepdims=True)
    base = _COLOURFULNESS * small + (1 - _COLOURFULNESS) * grey
    opacity = _OPACITY * np.sqrt(coverage[..., None].astype(np.float32) / 255)
    drawn = opacity * np.array(_COLOUR, np.float32) + (1 - opacity) * base
    return to_data_url(np.rint(drawn).astype(np.uint8))


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
