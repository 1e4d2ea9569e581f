"""Keep the training examples of projects: a row for each corrected image.

Replacing or deleting an annotation replaces or deletes its rows, whichever backend wrote them. Each
change is counted in the project's row, so that a step becomes due, see `backend.learning.versions`.
Where the last example of a project is gone, the words alone decide again.

Examples belong to one model, as features do: those of two models are never learned from together.
Where the model changes, the annotations that it has not read are read again, and the other model's
examples go.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
import torch

from backend.annotations.annotated_image import read_annotated_image
from backend.database.database import METADATA, Database, insert_on_conflict, key_batches
from backend.database.leases import FINISHED, lease_columns
from backend.errors import ImageRefused, TaskError
from backend.feedback.comparison import AnnotationDiff, ImageDiff
from backend.inference.engine import Engine
from backend.inference.queue import Priority
from backend.label_studio.image_loader import ReadImage
from backend.label_studio.label_config import LabelConfig
from clearclip_core import Example, RGBArray, Vocabulary

log = logging.getLogger(__name__)

EXAMPLES: Final = sa.Table(
    "training_examples",
    METADATA,
    sa.Column("annotation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("picture", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("project", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("example", sa.LargeBinary, nullable=False),  # last: SQLite reads all before it
    # examples are counted without their rows, which are large
    sa.Index("ix_training_examples_annotation", "project", "model", "annotation"),
)

STATES: Final = sa.Table(
    "learning_states",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("live", sa.Integer),
    sa.Column("newest", sa.Integer, nullable=False, default=0),  # the newest version ever
    sa.Column("decided", sa.Integer, nullable=False, default=0),  # somebody has, up to this one
    sa.Column("pinned", sa.Integer, nullable=False, default=0),
    sa.Column("adapt", sa.String(8)),  # who decides, as the last step found it
    sa.Column("as_words", sa.Text, nullable=False, default="[]"),  # names of labels, as JSON
    # people whose annotations teach nothing: key of an annotator -> name, as JSON
    sa.Column("left_out", sa.Text, nullable=False, default="{}", server_default="{}"),
    sa.Column("changed", sa.Integer, nullable=False, default=0),
    sa.Column("asked", sa.Integer, nullable=False, default=0),
    sa.Column("trouble", sa.Text, nullable=False, default=""),
    sa.Column("due", sa.Float, nullable=False, default=0.0),
    *lease_columns(),
)

MOST_ANNOTATIONS: Final = 1000  # annotations of a project that are learned from, the newest

#: Why an example is left out: some activation was too large for the model's precision.
NOT_FINITE: Final = (
    "the model's features of its picture are not all finite numbers; PRECISION=fp32 may help."
)

_EXAMPLE: Final = EXAMPLES.c


@dataclass(frozen=True)
class TrainingExample:
    """One corrected image, as it is learned from."""

    digest: str  # of its content
    example: bytes = field(repr=False)  # the bytes of a `clearclip_core.Example`
    annotation: int = 0  # the id of its annotation; 0 before it is kept


class ExampleStore:
    """The training examples in a database, of the model in use.

    >>> examples = ExampleStore(Database("sqlite://"), lambda: "demo")
    >>> examples.replace(3, 7, [TrainingExample("a", b"...")]), len(examples.examples(7))
    (True, 1)
    >>> examples.forget(3), len(examples.examples(7))
    (True, 0)
    """

    def __init__(self, database: Database, model_key: Callable[[], str]) -> None:
        self._database = database
        self._model_key = model_key  # see `backend.learning.versions.model_key`

    def replace(self, annotation: int, project: int, examples: Sequence[TrainingExample]) -> bool:
        """Replace the examples of an annotation, also another model's; return whether they differ.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        model = self._model_key()
        its = sa.and_(_EXAMPLE.annotation == annotation, _EXAMPLE.model == model)
        query = sa.select(_EXAMPLE.digest).where(its).order_by(_EXAMPLE.picture)

        with self._database.write() as connection:
            locked = StateRow.lock(connection, project, model)
            others = sa.and_(_EXAMPLE.annotation == annotation, _EXAMPLE.model != model)
            connection.execute(sa.delete(EXAMPLES).where(others))
            if [*connection.scalars(query)] == [example.digest for example in examples]:
                return False
            connection.execute(sa.delete(EXAMPLES).where(its))

            own = {"annotation": annotation, "model": model, "project": project}
            if rows := [
                own | {"picture": index, "digest": each.digest, "example": each.example}
                for index, each in enumerate(examples)
            ]:
                connection.execute(sa.insert(EXAMPLES), rows)

            old = _EXAMPLE.annotation < _oldest(connection, project, model)
            connection.execute(sa.delete(EXAMPLES).where(*locked.own(EXAMPLES), old))
            locked.count_change()
        return True

    def forget(self, annotation: int) -> bool:
        """Delete the examples of an annotation, of all models; return whether there was one."""
        its = _EXAMPLE.annotation == annotation
        places = sa.select(_EXAMPLE.project, _EXAMPLE.model).where(its).distinct()
        found = sorted((row.project, row.model) for row in self._database.rows(places))
        if not found:  # most often, and then no lock is waited for
            return False
        with self._database.write() as connection:
            for project, model in found:
                locked = StateRow.lock(connection, project, model)
                own = sa.delete(EXAMPLES).where(its, *locked.own(EXAMPLES))
                if connection.execute(own).rowcount:
                    locked.count_change()
        return True

    def taught(self, annotations: Collection[int]) -> set[int]:
        """Return those of some annotations that have examples, for any model."""
        found: set[int] = set()
        for some in key_batches(annotations):
            query = sa.select(_EXAMPLE.annotation).where(_EXAMPLE.annotation.in_(some)).distinct()
            found |= {row.annotation for row in self._database.rows(query)}
        return found

    def of_other_models(self) -> dict[int, list[int]]:
        """Return project -> its annotations that other models have learned from."""
        query = sa.select(_EXAMPLE.project, _EXAMPLE.annotation).distinct()
        found: dict[int, list[int]] = {}
        for row in self._database.rows(query.where(_EXAMPLE.model != self._model_key())):
            found.setdefault(row.project, []).append(row.annotation)
        return found

    def is_too_old(self, annotation: int, project: int) -> bool:
        """Whether a project has `MOST_ANNOTATIONS` newer annotations than this one."""
        with self._database.read() as connection:
            return annotation < _oldest(connection, project, self._model_key())

    def examples(self, project: int) -> list[TrainingExample]:
        """Return all examples of a project, ordered by their digests."""
        own = in_project(EXAMPLES, project, self._model_key())
        query = sa.select(EXAMPLES).where(*own).order_by(_EXAMPLE.digest, _EXAMPLE.annotation)
        rows = self._database.rows(query)
        return [TrainingExample(row.digest, row.example, row.annotation) for row in rows]


# ---- making and reading them -----------------------------------------------------------------


def build_examples(
    engine: Engine, read_image: ReadImage, diff: AnnotationDiff
) -> list[TrainingExample]:
    """Build an example of each image of an annotation; waits for the model.

    An image is read and encoded as for a prediction. One that cannot be learned from is left out,
    and the log says why.

    Raises:
        ImageRefused: the storage does not hand out an image now.
        ModelUnavailable: the model is not there.
    """
    made = []
    for image in diff.images:
        if image.evidence.is_empty:
            continue
        engine.segmenter()  # without a model, no image needs to be read
        try:
            source = image.tag.source(diff.task.data, image.item_index)
            rgb = read_annotated_image(read_image, source, diff.task, image.size_hw)
            made.append(_build(engine, diff, image, rgb))
        except ImageRefused:
            raise
        except TaskError as error:
            log.warning("Annotation %d cannot be learned from: %s", diff.annotation, error)
    return made


def _build(
    engine: Engine, diff: AnnotationDiff, image: ImageDiff, rgb: RGBArray
) -> TrainingExample:
    labels = diff.config.labels_of(image.tag.name)
    prepared = engine.segmenter().prepare(rgb)
    encoded = engine.encode(prepared, labels, Priority.BATCH, diff.project)
    example = Example.of(
        encoded.features,
        image.evidence.masks,
        known=[label.name for label in labels],
        picture=prepared.digest,
        annotator=diff.annotator,
        kept=image.evidence.kept,
        removed=image.evidence.removed,
    )
    if not example.is_finite:
        raise TaskError(NOT_FINITE)
    return TrainingExample(example.digest, example.to_bytes())


def read_examples(
    stored: list[TrainingExample], engine: Engine, config: LabelConfig
) -> tuple[list[Example], Callable[[Sequence[str]], torch.Tensor], Vocabulary]:
    """Read stored examples for the labels of today; waits for the model.

    Return what `clearclip_core.adapt` takes: the examples, prompts -> (N, D), and the vocabulary.
    `stored` is empty then: a thousand examples are large, and are in memory once.

    Raises:
        ValueError: damaged bytes, another format, or features of another model.
    """
    engine.embed(config.labels)
    segmenter = engine.segmenter()
    vocabulary = segmenter.vocabulary(config.labels, contrast=True)
    width = int(segmenter.embed(vocabulary.queries).shape[-1])
    read = [Example.from_bytes(stored.pop(0).example, width) for _ in range(len(stored))]
    return read, segmenter.embed, vocabulary


# ---- rows ------------------------------------------------------------------------------------


def in_project(table: sa.Table, project: int, model: str) -> tuple[Any, ...]:
    """Return the conditions on the rows of one project and one model in a table."""
    return table.c.project == project, table.c.model == model


@dataclass(frozen=True)
class StateRow:
    """The row of a project and a model in `STATES`, in a transaction."""

    connection: sa.Connection
    row: sa.Row[Any]

    @classmethod
    def lock(cls, connection: sa.Connection, project: int, model: str) -> "StateRow":
        """Lock the row of a project until the transaction ends; insert it where it is missing."""
        row = insert_on_conflict(connection, STATES).values(project=project, model=model)
        connection.execute(row.on_conflict_do_nothing())
        query = sa.select(STATES).where(*in_project(STATES, project, model)).with_for_update()
        return cls(connection, connection.execute(query).one())

    def own(self, table: sa.Table) -> tuple[Any, ...]:
        """Return the conditions on the project's rows in a table."""
        return in_project(table, self.row.project, self.row.model)

    def change(self, **changes: Any) -> None:
        """Change columns of the row."""
        self.connection.execute(sa.update(STATES).where(*self.own(STATES)).values(changes))

    def count_annotations(self) -> int:
        """Count the annotations that the project has training examples of."""
        count = sa.select(sa.func.count(_EXAMPLE.annotation.distinct()))
        return int(self.connection.execute(count.where(*self.own(EXAMPLES))).scalar_one())

    def count_change(self) -> None:
        """Count a changed annotation; without any example left, return to the words alone."""
        if self.count_annotations():
            self.change(changed=self.row.changed + 1)
        else:
            live = self.row.live if self.row.pinned else None
            self.change(live=live, changed=0, asked=0, **FINISHED)


def _oldest(connection: sa.Connection, project: int, model: str) -> int:
    """Return the id of the oldest annotation that counts in a project; 0 where all do."""
    ids = sa.select(_EXAMPLE.annotation).where(*in_project(EXAMPLES, project, model)).distinct()
    last = ids.order_by(_EXAMPLE.annotation.desc()).offset(MOST_ANNOTATIONS - 1).limit(1)
    return connection.scalar(last) or 0
