"""Tables of training examples, of learned versions, and of where each project stands.

The names of the tables and columns are those of earlier releases; they stay.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, Text

from backend.database.database import METADATA
from backend.database.leases import lease_columns

EXAMPLES: Final = Table(
    "lessons",
    METADATA,
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("picture", Integer, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("paint", Text, nullable=False),
    Column("learned", Float, nullable=False),
    Column("example", LargeBinary, nullable=False),  # last: SQLite reads all that comes before
    # examples are counted without a look at their rows, which are large
    Index("ix_lessons_annotation", "project", "model", "annotation"),
)

VERSIONS: Final = Table(
    "learned_versions",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("origin", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("better", Integer, nullable=False),
    Column("annotations", Integer, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("facts", Text, nullable=False),  # the rest of a `Version`, as JSON
    Column("created", Float, nullable=False),
    Column("adaptation", LargeBinary),
)

STATES: Final = Table(
    "learners",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("live", Integer),
    Column("pinned", Integer, nullable=False, default=0),
    Column("changed", Integer, nullable=False, default=0),
    Column("asked", Integer, nullable=False, default=0),
    Column("trouble", Text, nullable=False, default=""),
    Column("due", Float, nullable=False, default=0.0),
    *lease_columns(),
)


#: The pictures that a version was fitted to.
FITTED_PICTURES: Final = Table(
    "fitted_pictures",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("pictures", Text, nullable=False),  # keys of pictures, as JSON
)

#: The version that is live and on trial, and what it is compared with.
TRIALS: Final = Table(
    "trials",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("before", Integer),
    Column("since", Float, nullable=False),
)

#: The pictures on which versions were compared with the one before and with the words.
TRIAL_PICTURES: Final = Table(
    "trial_pictures",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("picture", String(64), primary_key=True),
    Column("annotation", BigInteger, nullable=False),
    Column("from_before", Float),
    Column("from_words", Float, nullable=False),
    Column("at", Float, nullable=False),
)

ROLLBACKS: Final = Table(
    "rollbacks",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", Integer, nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("target", Integer),
    Column("at", Float, nullable=False),
    Column("facts", Text, nullable=False),  # the rest of a `Rollback`, as JSON
    sqlite_autoincrement=True,
)

TRUSTED: Final = Table(
    "trusted_annotations",
    METADATA,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
)

#: All that is kept of what versions did after they went live.
OF_TRIALS: Final = (FITTED_PICTURES, TRIALS, TRIAL_PICTURES, ROLLBACKS)


def in_project(table: Table, project: int, model: str) -> tuple[Any, ...]:
    """Return the conditions on the rows of one project and one model in a table."""
    return table.c.project == project, table.c.model == model
