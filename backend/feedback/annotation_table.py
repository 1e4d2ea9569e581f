"""The table of annotations: its columns, and what was read of an annotation in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text

from backend.database.database import METADATA
from backend.database.leases import lease_columns
from backend.feedback.comparison import LabelDiff

#: How an annotation began, or why there is nothing to compare; see `ReadAnnotation`.
AnnotationOrigin = Literal[
    "compared", "unchecked", "scratch", "copy", "converted", "foreign", "lost", "skipped", "broken"
]

#: Those that began with a prediction of this backend.
PRELABELLED: Final = ("compared", "unchecked")


@dataclass(frozen=True)
class ReadAnnotation:
    """What was read of an annotation. Times are in seconds since the epoch."""

    annotation: int
    project: int
    task: int
    kind: AnnotationOrigin  # of "broken", see `reason`
    version: str = ""  # the ``model_version`` of the prediction that it was compared with
    annotator: int | None = None
    seconds: float | None = None  # how long it took in all, as Label Studio has measured it
    created: float = 0.0  # when it was submitted first
    updated: float = 0.0  # when it was changed last
    changes: tuple[LabelDiff, ...] = ()
    reason: str = ""
    predicted: float = 0.0  # when that prediction was stored; 0 where there is none


ANNOTATIONS: Final = Table(
    "annotations",
    METADATA,
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False),
    # how often it was marked, and how often it had been when it was read
    Column("marked", Integer, nullable=False, default=0),
    Column("seen", Integer, nullable=False, default=0),
    Column("open", Integer, nullable=False, default=1),
    Column("untaught", Integer, nullable=False, default=1),
    Column("due", Float, nullable=False, default=0.0),
    Column("tries", Integer, nullable=False, default=0),
    *lease_columns(),
    # what was read
    Column("kind", String(16), nullable=False, default=""),
    Column("task", BigInteger, nullable=False, default=0),
    Column("version", Text, nullable=False, default=""),
    Column("annotator", Integer),
    Column("seconds", Float),
    Column("created", Float, nullable=False, default=0.0),
    Column("updated", Float, nullable=False, default=0.0),
    Column("changes", Text, nullable=False, default="[]"),
    Column("reason", Text, nullable=False, default=""),
    Column("predicted", Float, nullable=False, default=0.0),
    Index("ix_annotations_task_project", "task", "project", "leased_until"),
    # one for all that asks for a kind: of two, a planner without statistics may take the wrong one
    Index("ix_annotations_kind_version", "project", "kind", "version", "created"),
    Index("ix_annotations_updated", "project", "updated", "kind", "task"),
)

# These indexes hold the rows of all projects, and of one, in the order in which they are leased.
for _flag in (ANNOTATIONS.c.open, ANNOTATIONS.c.untaught):
    _order = (ANNOTATIONS.c.due, ANNOTATIONS.c.annotation.desc())
    Index(f"ix_annotations_{_flag.name}_due", _flag, *_order)
    Index(f"ix_annotations_{_flag.name}_project", _flag, ANNOTATIONS.c.project, *_order)
