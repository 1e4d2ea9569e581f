"""Label errors: the annotations of a project that disagree with what the others teach."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Integer,
    Table,
    delete,
    insert,
    select,
)

from backend.database.database import LOCK, METADATA, Database
from backend.errors import BadRequest, StudioRefused, StudioUnreachable
from backend.inference.queue import Priority
from backend.label_studio.annotations import (
    LEAVE_OUT,
    AnnotationMap,
    draw_annotation,
    read_annotated_image,
)
from backend.label_studio.label_config import ImageTag, LabelConfig, score_options
from backend.label_studio.label_config_parser import parse_label_config
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning.examples import read_examples
from backend.runs.run import MOST_LEFT_OUT, AskedNothing, Progress, Run, RunKind, RunParts
from clearclip_core import RGBArray, Scores
from clearclip_core.adaptation.fitting import HeldOutAdaptations, fit_held_out
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth, thumbnail
from clearclip_core.images.opening import to_data_url
from clearclip_core.label_errors.disagreement import Disagreement, Kind, find_disagreements
from clearclip_core.label_errors.ranking import Ranked, rank

log = logging.getLogger(__name__)

#: The share of the annotated images that is listed, and the least and the most of them.
LISTED_SHARE: Final = 0.1
LEAST_SUSPICIONS: Final = 10
MOST_SUSPICIONS: Final = 60

#: Long side of a picture in px.
_SIDE_PX: Final = 320

#: Share of the image's sides that is shown at least, and that is shown around a place.
_LEAST_SHOWN: Final = 0.4
_MARGIN: Final = 0.1

_OPACITY: Final = 0.45
_WHITE: Final = (255, 255, 255)

#: What is said of each kind of disagreement; `{label}` is the annotation's. `{other}` is the label
#: that the part looks like, which the scores alone need not see there, or for what is missing, the
#: scores'.
_SENTENCES: Final[Mapping[Kind, str]] = {
    "label": "Painted “{label}”, but it looks like “{other}”.",
    "missing": "No “{other}” is painted where the scores see one.",
    "edges": "The edges of “{label}” lie where the picture has fewer edges than usual.",
}

_CONFIRMED: Final = Table(
    "confirmed_annotations",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("updated", Float, nullable=False),
)

_Place = tuple[slice, slice]


# ---- what is found -------------------------------------------------------------------------------


class Suspicion(msgspec.Struct, frozen=True):
    """An annotation on one image that disagrees with what the others teach.

    Attributes:
        updated: when it was changed last, in seconds since the epoch: its version.
        kind: in what it disagrees most.
        label: name of the label that is painted there; "" where none is.
        other: name of the label that the part looks like, or that the scores see where none is
            painted; "" for edges.
        score: how far its disagreement is from what is usual for the label, 0 and more.
        preview: the place in the annotation, as a data URL; "" where the annotation was changed
            during the run, or it or its image can be read no more.
        suggestion: the place by the scores, as a data URL; "" as for `preview`.
        colours: label -> its colour in both pictures, as "#rrggbb".
    """

    task: int
    annotation: int
    updated: float
    item_index: int | None
    kind: Kind
    label: str
    other: str
    score: float
    sentence: str = ""
    preview: str = ""
    suggestion: str = ""
    colours: dict[str, str] = {}


class LabelErrors(msgspec.Struct, frozen=True):
    """What is suspicious in a project.

    Attributes:
        reviewed: number of annotated images that were compared: an image counts once for each of
            its annotations.
        annotations: number of these annotations.
        pictures: number of different images that these are of, copies counted once.
        examples: number of training examples that the scores were learned from, in folds.
        suspicions: of all these images, the most suspicious first.
        left_out: task -> why an image of it was not compared; of the first tasks only.
    """

    reviewed: int
    annotations: int
    pictures: int
    examples: int
    seconds: float
    suspicions: tuple[Suspicion, ...] = ()
    left_out: dict[int, str] = {}
    left_out_count: int = 0

    def without(self, confirmed: Mapping[int, float]) -> LabelErrors:
        """Return the report without annotations that people confirmed as they were compared.

        Args:
            confirmed: annotation -> which version of it, see `Suspicion.updated`.
        """
        left = (s for s in self.suspicions if confirmed.get(s.annotation) != s.updated)
        return msgspec.structs.replace(self, suspicions=tuple(left))


class ConfirmedAnnotations:
    """The annotations that people have confirmed as right.

    >>> confirmed = ConfirmedAnnotations(Database("sqlite://"))
    >>> confirmed.confirm(7, 12, 5.0)
    >>> confirmed.of(7)
    {12: 5.0}
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def confirm(self, project: int, annotation: int, updated: float) -> None:
        """Remember that somebody has confirmed a version of an annotation.

        Args:
            updated: when it was changed last, in seconds since the epoch.
        """
        row = {"project": project, "annotation": annotation, "updated": updated}
        with self._database.write_exclusively(LOCK) as connection:
            connection.execute(delete(_CONFIRMED).where(*_confirmed(project, annotation)))
            connection.execute(insert(_CONFIRMED).values(row))

    def take_back(self, project: int, annotation: int) -> None:
        """Forget that an annotation was confirmed."""
        with self._database.write() as connection:
            connection.execute(delete(_CONFIRMED).where(*_confirmed(project, annotation)))

    def of(self, project: int) -> dict[int, float]:
        """Return the annotations that are confirmed: id -> when that version was made."""
        query = select(_CONFIRMED).where(_CONFIRMED.c.project == project)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_CONFIRMED.c.annotation))
            return {row.annotation: row.updated for row in rows}


def _confirmed(project: int, annotation: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _CONFIRMED.c.project == project, _CONFIRMED.c.annotation == annotation


# ---- how it is found -----------------------------------------------------------------------------


def find_label_errors(
    parts: RunParts, run: Run, _asked: AskedNothing, progress: Progress
) -> LabelErrors:
    """Compare all annotations of a project with scores that the others teach.

    What people have confirmed as it is now is not listed. Nothing is written to Label Studio, and
    nothing that is learned from.
    """
    config = parse_label_config(parts.client.label_config(run.project))
    return _Search(parts, run.project, config, progress).report()


@dataclass(frozen=True, eq=False)
class _AnnotatedImage:
    """An image of a task with one of the task's annotations; pixels are read on demand."""

    task: Task
    annotation: Annotation = field(repr=False)
    tag: ImageTag
    item_index: int | None

    def without_regions(self) -> _AnnotatedImage:
        """Return it without the regions of its annotation, which may be large."""
        return replace(self, annotation=msgspec.structs.replace(self.annotation, result=()))


@dataclass(frozen=True, eq=False)
class _Seen:
    rgb: RGBArray
    annotated: AnnotationMap
    scores: Scores
    digest: str


@dataclass(eq=False)
class _Search:
    parts: RunParts
    project: int
    config: LabelConfig
    progress: Progress
    left_out: dict[int, str] = field(default_factory=dict)
    is_studio_away: bool = False

    def report(self) -> LabelErrors:
        began = time.perf_counter()
        held_out, examples = self._learn()
        # Read now: after hours of work nothing is lost where the database is away for a while.
        confirmed = self.parts.confirmed.of(self.project)
        client = self.parts.client
        total = client.count(self.project, TaskFilter(labeled=True))
        tasks: set[object] = set()
        reviewed: list[_AnnotatedImage] = []
        found: list[Sequence[Disagreement]] = []
        digests: list[str] = []
        for image in self._images():
            try:
                seen = self._look(image, held_out)
            except LEAVE_OUT as error:
                self._leave_out(image.task, str(error))
                seen = None
            if seen is not None:
                reviewed.append(image.without_regions())
                truth, regions = seen.annotated.truth, seen.annotated.regions
                found.append(find_disagreements(seen.scores, seen.rgb, truth, regions))
                digests.append(seen.digest)
            tasks.add(image.task.id)
            self.progress(len(tasks), total)
        if not reviewed:
            raise ValueError(
                f"No annotation can be reviewed. {next(iter(self.left_out.values()))}"
                if self.left_out
                else "The project has no annotation with a region of a label."
            )
        listed = min(MOST_SUSPICIONS, max(LEAST_SUSPICIONS, round(LISTED_SHARE * len(reviewed))))
        vocabularies = [
            tuple(label.name for label in self.config.labels_of(image.tag.name))
            for image in reviewed
        ]
        # Annotations of one picture do not vouch for each other, nor do those of copies of it.
        ranked = [
            (image, each)
            for each in rank(found, vocabularies, digests)
            for image in (reviewed[each.index],)
            if confirmed.get(image.annotation.id) != image.annotation.updated
        ]
        suspicions = [self._suspicion(image, each, held_out) for image, each in ranked[:listed]]
        seconds = time.perf_counter() - began
        return LabelErrors(
            len(reviewed),
            len({image.annotation.id for image in reviewed}),
            len(set(digests)),
            examples,
            seconds,
            tuple(suspicions),
            dict(islice(self.left_out.items(), MOST_LEFT_OUT)),
            len(self.left_out),
        )

    def _images(self) -> Iterator[_AnnotatedImage]:
        """Read each image of each annotation, in the order of the tasks; skips do not count."""
        client = self.parts.client
        for task in client.all_tasks(self.project, TaskFilter(labeled=True)):
            try:
                annotations = client.annotations(int(task.id or 0))
            except BadRequest as error:
                self._leave_out(task, str(error))
                continue
            for annotation in annotations:
                if annotation.skipped:
                    continue
                for tag in self.config.images:
                    for index in tag.indices(task.data):
                        yield _AnnotatedImage(task, annotation, tag, index)

    def _learn(self) -> tuple[HeldOutAdaptations, int]:
        """Learn from the training examples, in folds; return how many these are."""
        parts = self.parts
        stored = parts.examples.examples(self.project)
        if not stored:
            return HeldOutAdaptations(), 0
        presence = score_options(parts.settings, self.config).presence
        read = read_examples(stored, parts.engine, self.config.labels, presence)
        return fit_held_out(*read), len(stored)

    def _look(self, image: _AnnotatedImage, held_out: HeldOutAdaptations) -> _Seen | None:
        """Read an image and score it; None where no region is on it.

        An image that cannot be read raises an error of `LEAVE_OUT`.
        """
        result, tag = image.annotation.result, image.tag
        annotated = draw_annotation(result, self.config, tag.name, image.item_index)
        if annotated is None:
            return None
        place = image.task, tag, image.item_index
        rgb = read_annotated_image(self.parts.images.read, *place, annotated.truth.shape)
        settings, engine = self.parts.settings, self.parts.engine
        prepared = engine.segmenter().prepare(rgb)
        scores = engine.encode(
            prepared,
            self.config.labels_of(tag.name),
            Priority.BATCH,
            self.project,
            held_out.of(prepared.digest),
            score_options(settings, self.config),
        ).scores
        return _Seen(rgb, annotated, scores, prepared.digest)

    def _leave_out(self, task: Task, reason: str) -> None:
        self.left_out[int(task.id or 0)] = reason

    def _read_again(self, annotation: Annotation) -> Annotation | None:
        """Read an annotation as it is now; None where it is gone, too large, or cannot be had.

        What took hours to find does without its pictures then, and none is waited for again.
        """
        if self.is_studio_away:
            return None
        try:
            return self.parts.client.annotation(annotation.id)
        except BadRequest as error:
            log.warning("Annotation %d has no pictures: %s", annotation.id, error)
            return None
        except (StudioRefused, StudioUnreachable) as error:
            log.warning("Project %d: suspicions have no pictures: %s", self.project, error)
            self.is_studio_away = True
            return None

    def _suspicion(
        self, image: _AnnotatedImage, ranked: Ranked, held_out: HeldOutAdaptations
    ) -> Suspicion:
        """Describe an image, with pictures of it as it is now if its annotation is the same."""
        disagreement = ranked.disagreement
        names = ["", *(label.name for label in self.config.labels_of(image.tag.name))]
        made = Suspicion(
            int(image.task.id or 0),
            image.annotation.id,
            float(image.annotation.updated),
            image.item_index,
            disagreement.kind,
            names[disagreement.label + 1],
            names[disagreement.other + 1],
            ranked.score,
        )
        sentence = _SENTENCES[made.kind].format(label=made.label, other=made.other)
        made = msgspec.structs.replace(made, sentence=sentence)
        annotation = self._read_again(image.annotation)
        if annotation is None or annotation.updated != image.annotation.updated:
            return made
        try:
            seen = self._look(replace(image, annotation=annotation), held_out)
        except LEAVE_OUT as error:
            log.warning("Annotation %d has no pictures: %s", annotation.id, error)
            return made
        if seen is None:
            return made
        settings = self.parts.settings
        shown = self.parts.engine.segmenter().decide(
            seen.scores, image=seen.rgb, refine=settings.refine, propagate=settings.propagate
        )
        colours = self.config.colours_of(image.tag.name)
        before, after, seen_labels = place_pictures(
            seen.rgb, seen.annotated.truth, shown.label_map, disagreement.box, colours
        )
        legend = self.config.legend_of(image.tag.name, seen_labels)
        return msgspec.structs.replace(made, preview=before, suggestion=after, colours=legend)


# ---- pictures of it ------------------------------------------------------------------------------


def place_pictures(
    rgb: RGBArray, truth: Truth, made: npt.NDArray[np.int16], box: _Place, colours: RGBArray
) -> tuple[str, str, list[int]]:
    """Return two pictures of a place and what is around it, as data URLs, and the labels in them.

    A white frame marks the place.

    Args:
        rgb: (H, W, 3) uint8.
        truth: (H, W) label indices of the annotation, see `AnnotationMap`.
        made: (H, W) label indices by the scores, -1 for none.
        colours: (labels, 3) uint8.
    """
    painted = np.where((truth == NOTHING) | (truth == IGNORE), -1, truth.astype(np.int16))
    around = tuple(_around(side, length) for side, length in zip(box, rgb.shape[:2], strict=True))
    labels = np.union1d(painted[around], made[around])
    before, after = (_picture(rgb, each, box, around, colours) for each in (painted, made))
    return before, after, [int(label) for label in labels if label >= 0]


def _picture(
    rgb: RGBArray,
    label_map: npt.NDArray[Any],
    box: _Place,
    around: tuple[slice, ...],
    colours: RGBArray,
) -> str:
    rows, columns = around
    part = rgb[around]
    drawn = thumbnail(part, label_map[around], colours, _SIDE_PX, _OPACITY)
    factor = min(1.0, _SIDE_PX / max(part.shape[:2]))
    first, last = (
        (round((x - columns.start) * factor), round((y - rows.start) * factor))
        for x, y in ((box[1].start, box[0].start), (box[1].stop - 1, box[0].stop - 1))
    )
    return to_data_url(np.asarray(cv2.rectangle(drawn, first, last, _WHITE, 1), np.uint8))


def _around(side: slice, length: int) -> slice:
    """Return a side of a box with what is around it, inside an image of that length."""
    margin = max(_MARGIN * length, (_LEAST_SHOWN * length - (side.stop - side.start)) / 2)
    return slice(max(0, round(side.start - margin)), min(length, round(side.stop + margin)))


LABEL_ERRORS: Final = RunKind(
    "label-errors",
    "Label errors",
    "Annotations are read from Label Studio",
    AskedNothing,
    LabelErrors,
    find_label_errors,
    lambda report: {each.task for each in report.suspicions},
)
