"""Label errors: the annotations of a project that disagree with what the others teach."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from backend.annotations.annotated_image import (
    LEAVE_OUT,
    AnnotatedImage,
    find_images,
    sourced_regions,
)
from backend.database.database import LOCK, METADATA, Database
from backend.errors import BadRequest
from backend.inference.queue import Priority
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.records import Annotation
from backend.label_studio.requests import Task
from backend.label_studio.task_filter import TaskFilter
from backend.learning.examples import read_examples
from backend.runs.crops import around
from backend.runs.run_store import MOST_LEFT_OUT, AskedNothing, Progress, Run, RunKind, RunParts
from clearclip_core import HeldOutAdaptations, RGBArray, Scores
from clearclip_core.images.drawing import thumbnail
from clearclip_core.images.label_maps import IGNORE, NOTHING, Truth
from clearclip_core.images.opening import to_data_url
from clearclip_core.label_errors import Disagreement, Kind, Ranked, find_disagreements, rank
from clearclip_core.quantities import quantity

log = logging.getLogger(__name__)

MOST_SUSPICIONS: Final = 60  # that are listed, the most suspicious

#: Of so few different pictures nobody can say what is usual: the scores of right ones reach 3.9, as
#: those of mistakes do, so nothing is listed.
TOO_FEW: Final = 12

#: Of so few, only what scores twice as much as is asked for of more: of right ones the second
#: reaches 1.7, and one may stand out at most.
_FEW: Final = 19

#: What planted mistakes were hardly found, see docs/results/measurements.md.
BLIND: Final = (
    "It hardly sees boxes drawn in place of masks, things painted too wide, and small things with "
    "another label: look for these yourself."
)

_SIDE_PX: Final = 320  # long side of a picture in px


_WHITE: Final = (255, 255, 255)

#: What is said of each kind of disagreement, see `Suspicion`.
_SENTENCES: Final[Mapping[Kind, str]] = {
    "label": "Painted “{label}”, but it looks like “{other}”.",
    "missing": "No “{other}” is painted where the scores see one.",
    "edges": "The edges of “{label}” lie where the picture has fewer edges than usual.",
}

_CONFIRMED: Final = sa.Table(
    "confirmed_annotations",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("annotation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("updated", sa.Float, nullable=False),
)


# ---- what is found -------------------------------------------------------------------------------


class Suspicion(msgspec.Struct, frozen=True):
    """An annotation of one picture that disagrees with what the others teach."""

    task: int
    annotation: int
    updated: float  # when it was changed last, in seconds since the epoch: its version
    item_index: int | None
    kind: Kind  # in what it disagrees most
    label: str  # that is painted there, if any
    other: str  # label that the part looks like, or is seen where none is painted; "" for edges
    sentence: str = ""
    #: The place in the annotation and by the scores, as data URLs; "" where the annotation was
    #: changed during the run, or it or its picture can be read no more.
    preview: str = ""
    suggestion: str = ""
    colours: dict[str, str] = {}  # label -> its colour in both pictures, as "#rrggbb"


class LabelErrors(msgspec.Struct, frozen=True):
    """What is suspicious in a project."""

    annotations: int  # number of annotations that were compared
    pictures: int  # number of different pictures that these are of, copies counted once
    examples: int  # number of training examples that the scores were learned from, in folds
    suspicions: tuple[Suspicion, ...] = ()  # the most suspicious first
    left_out: dict[int, str] = {}  # task -> why a picture of it was not compared; the first tasks
    left_out_count: int = 0

    @property
    def notes(self) -> str:
        """What the list does not show, in sentences."""
        few = quantity(self.pictures, "picture")
        if self.pictures <= TOO_FEW:
            return (
                f"{few} do not say what is usual, so nothing is listed: that takes {TOO_FEW + 1} "
                "annotated pictures, better twenty."
            )
        if self.pictures <= _FEW:
            return f"Of {few} only what stands out by far is listed: better are twenty. {BLIND}"
        return BLIND

    def without(self, confirmed: Mapping[int, float]) -> "LabelErrors":
        """Return the report without versions of annotations that people confirmed."""
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
        """Remember that somebody has confirmed a version of an annotation, see `Suspicion`."""
        row = {"project": project, "annotation": annotation, "updated": updated}
        with self._database.write_exclusively(LOCK) as connection:
            connection.execute(_deletion(project, annotation))
            connection.execute(sa.insert(_CONFIRMED).values(row))

    def take_back(self, project: int, annotation: int) -> None:
        """Forget that an annotation was confirmed."""
        with self._database.write() as connection:
            connection.execute(_deletion(project, annotation))

    def of(self, project: int) -> dict[int, float]:
        """Return the annotations that are confirmed: id -> when that version was made."""
        query = sa.select(_CONFIRMED).where(_CONFIRMED.c.project == project)
        with self._database.read() as connection:
            return {row.annotation: row.updated for row in connection.execute(query)}


def _deletion(project: int, annotation: int) -> sa.Delete:
    return sa.delete(_CONFIRMED).where(
        _CONFIRMED.c.project == project, _CONFIRMED.c.annotation == annotation
    )


def least_score(pictures: int) -> float:
    """Return the score above which annotations of a number of different pictures are listed.

    A score above 1 stands out, see `clearclip_core.label_errors.rank`.

    >>> least_score(12), least_score(13), least_score(20)
    (inf, 2.0, 1.0)
    """
    if pictures <= TOO_FEW:
        return math.inf
    return 2.0 if pictures <= _FEW else 1.0


# ---- how it is found -----------------------------------------------------------------------------


def find_label_errors(
    parts: RunParts, run: Run, _asked: AskedNothing, progress: Progress
) -> LabelErrors:
    """Compare the annotations of a project's pictures with scores that the others teach.

    Of a labeling config with several images, the first counts. What people have confirmed as it is
    now is not listed. Nothing is written to Label Studio, and nothing that is learned from.
    """
    config = parts.client.config(run.project)
    return _Search(parts, run.project, config, progress).report()


@dataclass(frozen=True, eq=False)
class _Scored:
    rgb: RGBArray
    truth: Truth
    regions: npt.NDArray[Any]
    scores: Scores
    digest: str


@dataclass(eq=False)
class _Search:
    parts: RunParts
    project: int
    config: LabelConfig
    progress: Progress
    left_out: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tag = self.config.images[0]
        self.labels = self.config.labels_of(self.tag.name)
        self.held_out, self.examples = self._learn()

    def report(self) -> LabelErrors:
        # Read now: after hours of work nothing is lost where the database is away for a while.
        confirmed = ConfirmedAnnotations(self.parts.database).of(self.project)

        reviewed: list[tuple[AnnotatedImage, Annotation]] = []
        found: list[Sequence[Disagreement]] = []
        digests: list[str] = []

        for image, annotation, scored in self._scored_images():
            # Without the regions, which may be large.
            without = msgspec.structs.replace(annotation, result=())
            reviewed.append((replace(image, versions=()), without))
            disagreements = find_disagreements(
                scored.scores, scored.rgb, scored.truth, scored.regions
            )
            found.append(disagreements)
            digests.append(scored.digest)

        if not reviewed:
            raise ValueError(self._why_nothing())

        pictures = len(set(digests))
        least = least_score(pictures)
        # Annotations of one picture do not vouch for each other, nor do those of copies of it.
        ranked = [(*reviewed[each.index], each) for each in rank(found, digests)]
        suspect = [
            (image, annotation, each)
            for image, annotation, each in ranked
            if each.score > least and confirmed.get(annotation.id) != annotation.updated
        ]

        return LabelErrors(
            annotations=len({annotation.id for _, annotation in reviewed}),
            pictures=pictures,
            examples=self.examples,
            suspicions=tuple(self._suspicion(*each) for each in suspect[:MOST_SUSPICIONS]),
            left_out=dict(islice(self.left_out.items(), MOST_LEFT_OUT)),
            left_out_count=len(self.left_out),
        )

    def _learn(self) -> tuple[HeldOutAdaptations, int]:
        """Learn from the training examples, in folds; return how many these are."""
        stored = self.parts.examples.examples(self.project)
        if not stored:
            return HeldOutAdaptations(), 0
        read = read_examples(stored, self.parts.engine, self.config)
        return HeldOutAdaptations.fit(*read), len(read[0])

    def _scored_images(self) -> Iterator[tuple[AnnotatedImage, Annotation, _Scored]]:
        """Score each picture of each annotation, in the order of the tasks; skips do not count."""
        client, wanted = self.parts.client, TaskFilter(labeled=True)
        total = client.count(self.project, wanted)
        for done, task in enumerate(client.all_tasks(self.project, wanted), 1):
            try:
                annotations = client.annotations(int(task.id or 0))
            except BadRequest as error:
                self._leave_out(task, error)
                annotations = []
            for annotation in (each for each in annotations if not each.skipped):
                for image in self._images(task, annotation):
                    try:
                        scored = self._score(image)
                    except LEAVE_OUT as error:
                        self._leave_out(task, error)
                    else:
                        yield image, annotation, scored
            self.progress(done, max(done, total))

    def _images(self, task: Task, annotation: Annotation) -> list[AnnotatedImage]:
        """Return the images of the tag on which an annotation has a region of a label."""
        try:
            found = find_images(task, [sourced_regions(annotation)], self.config)
        except LEAVE_OUT as error:
            self._leave_out(task, error)
            return []
        return [each for each in found if each.tag == self.tag and each.versions[0]]

    def _leave_out(self, task: Task, error: Exception) -> None:
        self.left_out[int(task.id or 0)] = str(error)

    def _score(self, image: AnnotatedImage) -> _Scored:
        """Read a picture and score it; one that cannot be read raises an error of `LEAVE_OUT`."""
        drawn = image.label_map()
        rgb = image.read(self.parts.images.read)
        engine = self.parts.engine
        prepared = engine.segmenter().prepare(rgb)
        learned = self.held_out.of(prepared.digest)
        encoded = engine.encode(prepared, self.labels, Priority.BATCH, self.project, learned)
        truth = drawn.truth([label.name for label in self.labels])
        return _Scored(rgb, truth, drawn.regions, encoded.scores, prepared.digest)

    def _why_nothing(self) -> str:
        if self.left_out:
            return f"No annotation can be reviewed. {next(iter(self.left_out.values()))}"
        return "The project has no annotation with a region of a label."

    def _suspicion(
        self, image: AnnotatedImage, annotation: Annotation, ranked: Ranked
    ) -> Suspicion:
        """Describe a picture, with pictures of it as it is now if its annotation is the same."""
        found = ranked.disagreement
        names = ["", *(label.name for label in self.labels)]
        label, other = names[found.label + 1], names[found.other + 1]

        made = Suspicion(
            int(image.task.id or 0),
            annotation.id,
            float(annotation.updated),
            image.item_index,
            found.kind,
            label,
            other,
            _SENTENCES[found.kind].format(label=label, other=other),
        )

        try:
            now = self.parts.client.annotation(annotation.id)
            if now is None or now.updated != annotation.updated:
                return made
            (again,) = (each for each in self._images(image.task, now) if each.key == image.key)
            scored = self._score(again)
        except LEAVE_OUT as error:
            log.warning("Annotation %d has no pictures: %s", annotation.id, error)
            return made
        return self._with_previews(made, scored, found.box)

    def _with_previews(
        self, made: Suspicion, scored: _Scored, box: tuple[slice, slice]
    ) -> Suspicion:
        settings = self.parts.settings
        shown = self.parts.engine.segmenter().decide(
            scored.scores, image=scored.rgb, refine=settings.refine, propagate=settings.propagate
        )
        maps, colours = (scored.truth, shown.label_map), self.config.colours_of(self.tag.name)
        before, after, seen = draw_place(scored.rgb, *maps, box, colours)
        legend = self.config.legend_of(self.tag.name, seen)
        return msgspec.structs.replace(made, preview=before, suggestion=after, colours=legend)


# ---- pictures of it ------------------------------------------------------------------------------


def draw_place(
    rgb: RGBArray,
    truth: Truth,  # (H, W), see `LabelMap.truth`
    made: npt.NDArray[np.int16],  # (H, W) label indices by the scores, -1 for none
    box: tuple[slice, slice],
    colours: RGBArray,
) -> tuple[str, str, list[int]]:
    """Return data URLs of a place in a white frame, as drawn and by scores, and its labels."""
    drawn = painted(truth)
    shown = tuple(around(side, length) for side, length in zip(box, rgb.shape[:2], strict=True))
    labels = np.union1d(drawn[shown], made[shown])
    before, after = (_draw_around(rgb, each, box, shown, colours) for each in (drawn, made))
    return before, after, [int(label) for label in labels if label >= 0]


def _draw_around(
    rgb: RGBArray,
    label_map: npt.NDArray[Any],
    box: tuple[slice, slice],
    shown: tuple[slice, ...],
    colours: RGBArray,
) -> str:
    rows, columns = shown
    part = rgb[shown]
    drawn = thumbnail(part, label_map[shown], colours, _SIDE_PX)
    factor = min(1.0, _SIDE_PX / max(part.shape[:2]))

    def to_shown(x_px: int, y_px: int) -> tuple[int, int]:
        return round((x_px - columns.start) * factor), round((y_px - rows.start) * factor)

    first = to_shown(box[1].start, box[0].start)
    last = to_shown(box[1].stop - 1, box[0].stop - 1)
    framed = cv2.rectangle(drawn, first, last, _WHITE, 1)
    return to_data_url(np.asarray(framed, np.uint8))


_PAINTED: Final = np.array([-1 if i in (NOTHING, IGNORE) else i for i in range(256)], np.int16)


def painted(truth: Truth) -> npt.NDArray[np.int16]:
    """Return (H, W) label indices, -1 for none and for what is not counted."""
    return np.asarray(cv2.LUT(truth, _PAINTED), np.int16)


LABEL_ERRORS: Final = RunKind(
    "label-errors",
    "Label errors",
    "Annotations are read from Label Studio",
    AskedNothing,
    LabelErrors,
    find_label_errors,
    lambda report: {each.task for each in report.suspicions},
)
