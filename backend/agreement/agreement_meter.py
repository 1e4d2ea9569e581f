"""Measure how far the people who have annotated a project agree."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backend.agreement.agreement_report import (
    AgreementReport,
    AnnotatorFigures,
    Confusion,
    Dispute,
    DisputedLabel,
    LabelFigures,
)
from backend.agreement.dispute_pictures import Coverage, dispute_picture, shrink
from backend.agreement.shared_image import SharedImage, newest_of_each, shared_images
from backend.errors import StudioRefused, StudioUnreachable
from backend.label_studio.annotations import LEAVE_OUT
from backend.label_studio.client import LabelStudioClient, UnreadableTasks
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.project_runs import Advance
from clearclip_core.agreement.agreement import BinaryValues, LabelAgreement, PairAgreement

#: The pictures on which people do not agree that are listed at most.
MOST_LISTED: Final = 40

#: The confusions that are listed at most.
MOST_CONFUSIONS: Final = 10

#: Of so many tasks that were left out a report says why.
MOST_LEFT_OUT: Final = 100


@dataclass(frozen=True, eq=False)
class AgreementMeter:
    """Measures agreement; writes nothing to Label Studio.

    Args:
        client: Label Studio.
        read_image: reads the images of tasks.
    """

    client: LabelStudioClient
    read_image: ReadImage

    def measure(self, project: int, advance: Advance = lambda _done, _all: None) -> AgreementReport:
        """Compare the annotations of all tasks that several people have annotated.

        Args:
            project: its id.
            advance: is told of the progress.

        Returns:
            The figures; those of no picture where no task has annotations of several people with a
            region of a label.

        Raises:
            LabelConfigError: the project has nothing that is drawn.
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer, see `UnreadableTasks`.
            ValueError: there are such tasks, and none of them can be compared.
        """
        began = time.perf_counter()
        config = parse_label_config(self.client.label_config(project))
        names = self._names()  # now: after hours of work nothing is lost where they are away
        sums = _Sums()
        wanted, unreadable = TaskFilter(min_annotations=2), UnreadableTasks(self.client, project)
        total = self.client.count(project, wanted)
        for done, task in enumerate(self.client.all_tasks(project, wanted), 1):
            self._compare(task, config, sums, unreadable)
            advance(done, max(done, total))
        if sums.left_out and not sums.pictures:
            raise ValueError(f"No task can be compared. {next(iter(sums.left_out.values()))}")
        disputes = tuple(each.told(self.read_image) for each in sums.disputes)
        return AgreementReport(
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
            sums.left_out,
            sums.left_out_count,
        )

    def _compare(
        self, task: Task, config: LabelConfig, sums: _Sums, unreadable: UnreadableTasks
    ) -> None:
        """Add the images of a task; a task with one that cannot be compared is left out."""
        number = int(task.id or 0)
        try:
            annotations = newest_of_each(unreadable.annotations(number))
            if len(annotations) < 2:
                return
            images = shared_images(task, annotations, config)
            compared = [_Compared.of(image) for image in images]
        except LEAVE_OUT as error:
            sums.leave_out(number, str(error))
            return
        if compared:
            sums.tasks += 1
            sums.annotations += len(annotations)
        for each in compared:
            sums.add(each)

    def _names(self) -> Mapping[int, str]:
        """Return the names of people; none where Label Studio does not tell them."""
        try:
            return self.client.user_names()
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
        """Compare what people have painted on an image.

        Raises:
            ValueError: a region is broken.
        """
        made = image.agreement()
        return cls(
            image.without_masks(),
            made.labels,
            made.confusions,
            made.disputed_share,
            shrink(made.disputed),
        )

    def share(self, label: LabelAgreement) -> float:
        """Return the share of the pixels that are in dispute about a label."""
        height, width = self.image.size_hw
        return label.disputed_px / (height * width)

    def told(self, read_image: ReadImage) -> Dispute:
        """Describe the dispute, with a picture if the image can be read."""
        image = self.image
        try:
            picture = dispute_picture(image.read(read_image), self.coverage)
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


@dataclass
class _Mean:
    """The mean of the values of pictures; a picture without a value does not count."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(eq=False)
class _Means:
    """Means of the pictures of a label or of an annotator."""

    iou: _Mean = field(default_factory=_Mean)
    boundary_f: _Mean = field(default_factory=_Mean)
    disputed: _Mean = field(default_factory=_Mean)

    def add(self, pairs: Sequence[PairAgreement]) -> None:
        """Add the pairs of a picture, of which there is at least one."""
        self.iou.add(_iou(pairs))
        self.boundary_f.add(_boundary_f(pairs))


@dataclass(eq=False)
class _Sums:
    """Sums over pictures; they grow with labels and people, not with tasks.

    Attributes:
        tasks: number of tasks.
        pictures: number of their pictures.
        annotations: number of their annotations.
        disputed: sum of the shares of the pictures' pixels that are in dispute.
        disputes: the most disputed pictures, at most `MOST_LISTED`, the worst first.
        dispute_count: the number of all pictures with a dispute.
        left_out: task -> why it was not compared, of the first `MOST_LEFT_OUT`.
        left_out_count: the number of all tasks that were left out.
    """

    tasks: int = 0
    pictures: int = 0
    annotations: int = 0
    disputed: float = 0.0
    disputes: list[_Compared] = field(default_factory=list)
    dispute_count: int = 0
    left_out: dict[int, str] = field(default_factory=dict)
    left_out_count: int = 0
    labels: defaultdict[str, _Means] = field(default_factory=lambda: defaultdict(_Means))
    values: defaultdict[str, BinaryValues] = field(
        default_factory=lambda: defaultdict(BinaryValues)
    )
    confusions: defaultdict[tuple[str, str], float] = field(
        default_factory=lambda: defaultdict(float)
    )
    people: defaultdict[int, _Means] = field(default_factory=lambda: defaultdict(_Means))

    def add(self, compared: _Compared) -> None:
        """Add a picture."""
        self.pictures += 1
        self.disputed += compared.disputed
        by_person: defaultdict[int, list[PairAgreement]] = defaultdict(list)
        for name, its in compared.labels.items():
            self.values[name] += its.values
            if its.pairs:
                self.labels[name].add(its.pairs)
                self.labels[name].disputed.add(compared.share(its))
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
            del self.disputes[MOST_LISTED:]

    def leave_out(self, task: int, reason: str) -> None:
        """Count a task that was not compared."""
        self.left_out_count += 1
        if len(self.left_out) < MOST_LEFT_OUT:
            self.left_out[task] = reason

    def label_figures(self, config: LabelConfig) -> tuple[LabelFigures, ...]:
        """Return the figures of the labels that somebody has painted, by the config's controls."""
        names = (label.name for label in (*config.labels, *config.box_labels))
        return tuple(
            LabelFigures(
                name,
                means.iou.count,
                means.iou.value or 0.0,
                means.boundary_f.value,
                self.values[name].alpha,
                means.disputed.value or 0.0,
            )
            for name in names
            if (means := self.labels.get(name)) is not None
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
                means.iou.count,
                means.iou.value or 0.0,
                means.boundary_f.value,
            )
            for annotator, means in self.people.items()
        ]
        return tuple(
            sorted(found, key=lambda each: (not each.name, each.name.casefold(), each.annotator))
        )


def _iou(pairs: Sequence[PairAgreement]) -> float:
    """Return the mean IoU of pairs, of which there is at least one."""
    mean = _Mean()
    for pair in pairs:
        mean.add(pair.iou)
    return mean.value or 0.0


def _boundary_f(pairs: Sequence[PairAgreement]) -> float | None:
    """Return the mean boundary F-measure of the pairs that have one."""
    mean = _Mean()
    for pair in pairs:
        mean.add(pair.boundary_f)
    return mean.value
