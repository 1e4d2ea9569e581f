"""Keep the pictures that it helps most to correct next: those whose masks would change most.

They are of one candidate, a version made of all corrections so far that is never used, and replaced
by those of the next one. Each project and model has one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import sqlalchemy as sa

from backend.database.database import METADATA, Database, insert_on_conflict, read_json
from backend.database.leases import is_due
from backend.database.pictures import encode_report, forget_pictures, has_pictures
from backend.feedback.report.statistics import in_percent
from backend.learning.examples import STATES, in_project

#: How long it takes at least from one search to the next one, of all projects, in seconds.
PAUSE_S: Final = 60.0

#: A search rests this many times as long as it took: a candidate of many corrections takes long.
_REST_FACTOR: Final = 4

#: The longest pause, in seconds.
LONGEST_PAUSE_S: Final = 3600.0

NEXT_PICTURES: Final = sa.Table(
    "next_pictures",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("due", sa.Float, nullable=False, default=0.0),  # when any project may be searched
    # as they were in `STATES` when it was searched
    sa.Column("newest", sa.Integer, nullable=False, default=0),
    sa.Column("changed", sa.Integer, nullable=False, default=0),
    sa.Column("pictures", sa.Text, nullable=False, default="{}"),  # `NextPictures`, as JSON
)

_ROW: Final = NEXT_PICTURES.c
_STATE: Final = STATES.c


class NextPicture(msgspec.Struct, frozen=True):
    """A picture that nobody has annotated, and how much of it a candidate changes."""

    task: int  # id of its task
    picture: str  # data URL of a JPEG: grey, with the places that change
    changed: float  # share of the pixels that change

    @property
    def sentence(self) -> str:
        """How much changes, for people.

        >>> NextPicture(3, "", 0.125).sentence
        '12.5 % changes'
        """
        return f"{in_percent(self.changed)} changes"


class NextPictures(msgspec.Struct, frozen=True):
    """The pictures whose masks a candidate changes most, those with the most changes first."""

    pictures: tuple[NextPicture, ...] = ()
    colours: dict[str, str] = {}  # name of each label that they show -> its colour, as in CSS
    annotations: int = 0  # how many annotations the candidate has learned from
    tried: int = 0  # how many pictures were predicted
    at: float = 0.0  # when they were found, in seconds since the epoch; 0: never


class NextPictureStore:
    """The pictures to correct next in a database, of the model in use.

    >>> store = NextPictureStore(Database("sqlite://"), lambda: "demo")
    >>> store.keep(7, NextPictures(tried=24), newest=0, changed=1, took_s=2.0)
    >>> store.read(7).tried, store.read(8).tried
    (24, 0)
    """

    def __init__(
        self, database: Database, model_key: Callable[[], str], *, keeps_pictures: bool = True
    ) -> None:
        self._database = database
        self._keeps_pictures = keeps_pictures
        self._model_key = model_key  # see `backend.learning.versions.model_key`

    def read(self, project: int) -> NextPictures:
        """Return what was found last, or nothing."""
        its = in_project(NEXT_PICTURES, project, self._model_key())
        found = self._database.scalar(sa.select(_ROW.pictures).where(*its))
        return read_json(found or "{}", NextPictures) or NextPictures()

    def keep(
        self, project: int, found: NextPictures, *, newest: int, changed: int, took_s: float
    ) -> None:
        """Keep what was found in place of what was found before.

        Args:
            project: id of the project.
            found: the pictures.
            newest: number of the newest version as the search began.
            changed: how many annotations had changed since that version.
            took_s: how long the search took, in seconds: the next one waits the longer.
        """
        now = self._database.clock()
        kept = msgspec.structs.replace(found, at=now)
        pictures = encode_report(kept, keeps_pictures=self._keeps_pictures)
        due = now + min(LONGEST_PAUSE_S, max(PAUSE_S, _REST_FACTOR * took_s))
        self._write(project, pictures=pictures, newest=newest, changed=changed, due=due)

    def put_off(self, project: int) -> None:
        """Have no project searched for a while, as a search begins."""
        self._write(project, due=self._database.clock() + PAUSE_S)

    def forget_pictures(self, before: float) -> int:
        """Take out the pictures that were found before a time; return of how many projects."""
        query = sa.select(_ROW.project, _ROW.model, _ROW.pictures).where(
            has_pictures(_ROW.pictures)
        )
        old = [
            (row.project, row.model)
            for row in self._database.rows(query)
            if (found := read_json(row.pictures, NextPictures)) is None or found.at < before
        ]
        return forget_pictures(self._database, _ROW.pictures, old)

    def _write(self, project: int, **values: str | float) -> None:
        key = {"project": project, "model": self._model_key()}
        with self._database.write() as connection:
            insert = insert_on_conflict(connection, NEXT_PICTURES).values(**key, **values)
            connection.execute(
                insert.on_conflict_do_update(index_elements=[_ROW.project, _ROW.model], set_=values)
            )


def to_search(now: float) -> sa.Select[tuple[int]]:
    """Select the rows of `STATES` with corrections that no search knows, the longest due first.

    Selects nothing a short while after another search, also one of another project.
    """
    rests = sa.exists().where(sa.not_(is_due(NEXT_PICTURES.alias().c.due, now, LONGEST_PAUSE_S)))
    joined = sa.and_(_ROW.project == _STATE.project, _ROW.model == _STATE.model)
    is_known = sa.and_(_ROW.newest == _STATE.newest, _ROW.changed == _STATE.changed)
    query = sa.select(STATES).outerjoin(NEXT_PICTURES, joined)
    query = query.where(_STATE.changed > 0, ~rests, sa.or_(_ROW.project.is_(None), ~is_known))
    return query.order_by(_ROW.due, _STATE.project)
