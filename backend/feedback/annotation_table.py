"""The table of annotations: its columns, and what was read of an annotation in a row."""

from dataclasses import dataclass, field
from typing import Final, Literal

import sqlalchemy as sa

from backend.database.database import METADATA
from backend.database.leases import lease_columns
from backend.feedback.comparison import LabelDiff
from backend.label_studio.records import RegionCounts

#: How an annotation began, or why there is nothing to compare; see `ReadAnnotation`.
AnnotationOrigin = Literal[
    "compared", "unchecked", "reviewed", "repaired", "scratch", "copy", "converted", "foreign",
    "lost", "skipped", "broken",
]  # fmt: skip

PRELABELLED: Final = ("compared", "unchecked")  # those that began with a prediction of this backend


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
    predicted: float = 0.0  # when that prediction was stored
    regions: RegionCounts = field(default_factory=dict)  # that it has, also of unknown labels


ANNOTATIONS: Final = sa.Table(
    "annotations",
    METADATA,
    sa.Column("annotation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("project", sa.Integer, nullable=False),
    # how often it was marked, and how often it had been when it was read
    sa.Column("marked", sa.Integer, nullable=False, default=0),
    sa.Column("seen", sa.Integer, nullable=False, default=0),
    sa.Column("open", sa.Integer, nullable=False, default=1),
    sa.Column("untaught", sa.Integer, nullable=False, default=1),
    sa.Column("due", sa.Float, nullable=False, default=0.0),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    *lease_columns(),
    # what was read
    sa.Column("kind", sa.String(16), nullable=False, default=""),
    sa.Column("task", sa.BigInteger, nullable=False, default=0),
    sa.Column("version", sa.Text, nullable=False, default=""),
    sa.Column("annotator", sa.Integer),
    sa.Column("seconds", sa.Float),
    sa.Column("created", sa.Float, nullable=False, default=0.0),
    sa.Column("updated", sa.Float, nullable=False, default=0.0),
    sa.Column("changes", sa.Text, nullable=False, default="[]"),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("predicted", sa.Float, nullable=False, default=0.0),
    sa.Column("regions", sa.Text, nullable=False, default="{}", server_default="{}"),
    sa.Index("ix_annotations_task_project", "task", "project", "leased_until"),
    # one for all that asks for a kind: of two, a planner without statistics may take the wrong one
    sa.Index("ix_annotations_kind_version", "project", "kind", "version", "created"),
    sa.Index("ix_annotations_updated", "project", "updated", "kind", "task"),
)

# These indexes hold the rows of all projects, and of one, in the order in which they are leased.
for _flag in (ANNOTATIONS.c.open, ANNOTATIONS.c.untaught):
    _order = (ANNOTATIONS.c.due, ANNOTATIONS.c.annotation.desc())
    sa.Index(f"ix_annotations_{_flag.name}_due", _flag, *_order)
    sa.Index(f"ix_annotations_{_flag.name}_project", _flag, ANNOTATIONS.c.project, *_order)
