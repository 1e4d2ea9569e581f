"""Runs over projects: what was asked for, how a kind makes a report of it, and their table.

All backends of a database share the table: requests, leases and reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from backend.database.database import LOCK, METADATA, Database, read_json, revisions
from backend.database.leases import (
    FINISHED,
    RELEASED,
    Deaths,
    LeaseLost,
    Leases,
    is_hopeless,
    lease_columns,
)
from backend.database.pictures import encode_report, forget_pictures, has_pictures
from backend.errors import Busy, NotFound

if TYPE_CHECKING:
    from backend.inference.engine import Engine
    from backend.label_studio.client import LabelStudioClient
    from backend.label_studio.image_loader import ImageReader
    from backend.learning.examples import ExampleStore
    from backend.learning.versions import VersionStore
    from backend.settings import Settings

MOST_OPEN: Final = 5  # the most runs of a kind that wait or are at work

#: Runs of a kind and project that are kept: done ones, and as many that are not.
MOST_KEPT: Final = 3

RunState = Literal["queued", "running", "done", "failed", "cancelled"]

OVER: Final = ("done", "failed", "cancelled")  # states in which nothing more happens

#: The most that is asked for at once; here, where a command's help loads no torch.
MOST_WORD_IMAGES: Final = 24

MOST_LEFT_OUT: Final = 100  # the most left-out tasks whose reason a report tells

Asked = TypeVar("Asked", bound=msgspec.Struct)
Report = TypeVar("Report", bound=msgspec.Struct)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are in seconds since the epoch."""

    id: int  # its number; 0 for a run of a command, until it is kept
    kind: str
    project: int
    asked: dict[str, Any]  # what was asked for, as JSON
    state: RunState = "queued"  # "running" once a backend works on it; at the end one of `OVER`
    done: int = 0
    total: int | None = None  # steps in all; None where that is not known
    reason: str = ""
    created: float = 0.0
    finished: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state in OVER


class AskedNothing(msgspec.Struct, frozen=True):
    """What is asked of a kind without choices."""


class Progress(Protocol):
    """Is told of steps that are done; what it raises ends the run."""

    def __call__(self, done: int, total: int | None) -> None:
        """Record progress: steps done, of how many."""


@dataclass(frozen=True, eq=False)
class RunParts:
    """What reports are made with."""

    client: LabelStudioClient
    images: ImageReader
    engine: Engine
    settings: Settings
    examples: ExampleStore
    versions: VersionStore
    database: Database


@dataclass(frozen=True, eq=False)
class RunKind(Generic[Asked, Report]):
    """A kind of run."""

    name: str
    title: str  # what people call it; also the title of its view in Label Studio
    use: str  # what Label Studio is needed for, as a sentence without its end
    asked: type[Asked]  # what is asked for; all its fields have defaults
    report: type[Report]
    make: Callable[[RunParts, Run, Asked, Progress], Report]
    tasks: Callable[[Report], Collection[int]] | None = None  # that a view in Label Studio lists
    needs_model: bool = True
    forget: Callable[[Settings, Run], None] = lambda _settings, _run: None  # removes what it left

    def read_asked(self, run: Run) -> Asked:
        """Return what was asked for; raises `ValueError` where another version asked for it."""
        try:
            return msgspec.convert(run.asked, self.asked)
        except msgspec.ValidationError:
            reason = "Another version of the backend was asked for it: ask again."
            raise ValueError(reason) from None


_RUNS: Final = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("project", sa.Integer, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),  # JSON
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("report", sa.Text),  # JSON
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
    # the database's revision that a backend knows which can do what is asked for
    sa.Column("needs", sa.String(8), nullable=False, default="", server_default=""),
    *lease_columns(),
    sa.Index("ix_runs_project_kind", "project", "kind"),
    sqlite_autoincrement=True,
)

#: The columns of a `Run`, which has no report.
_RUN: Final = [_RUNS.c[name] for name in Run.__struct_fields__]


class RunStore:
    """The runs of a database, which an owner leases, or with "" only looks at."""

    def __init__(self, database: Database, owner: str = "", *, keeps_pictures: bool = True) -> None:
        self.database = database
        self._keeps_pictures = keeps_pictures  # those of the reports
        self.leases = Leases(database, _RUNS, owner)

    # ---- requests of people ----------------------------------------------------------------------

    def request(self, kind: RunKind[Any, Any], project: int, asked: msgspec.Struct) -> Run:
        """Queue a run, or return an equal one that is not over; raises `Busy` where many wait."""
        text = msgspec.json.encode(asked).decode()
        query = sa.select(*_RUN).where(_is_open(), _RUNS.c.kind == kind.name)
        with self.database.write_exclusively(LOCK) as connection:
            rows = connection.execute(query).all()
            for row in rows:
                if (row.project, row.asked) == (project, text):
                    return _run(row)
            if len(rows) >= MOST_OPEN:
                raise Busy(f"{MOST_OPEN} of these wait already: try again when one is done.")
            return _add(connection, kind, project, text, created=self.database.clock())

    def runs(self, kind: RunKind[Any, Any], project: int) -> list[Run]:
        """Return the runs of a project, the newest first."""
        query = sa.select(*_RUN).where(*_of(kind, project)).order_by(_RUNS.c.id.desc())
        return [_run(row) for row in self.database.rows(query)]

    def get(self, kind: RunKind[Any, Any], project: int, number: int) -> Run:
        """Return one run of a project; raises `NotFound` where there is none, or none any more."""
        found = next((each for each in self.runs(kind, project) if each.id == number), None)
        if found is None:
            raise NotFound(
                f"Project {project} has no run {number} of “{kind.title}”; the last {MOST_KEPT} "
                "are kept."
            )
        return found

    def report(self, kind: RunKind[Any, Report], run: Run) -> Report | None:
        """Return the report of a run; None before it is done, or where another version made it."""
        found = self.database.scalar(sa.select(_RUNS.c.report).where(_RUNS.c.id == run.id))
        return None if found is None else read_json(found, kind.report)

    def last(self, kind: RunKind[Any, Report], project: int) -> tuple[Run, Report] | None:
        """Return the last run of a project that is done, and its report; None as in `report`."""
        query = sa.select(_RUNS).where(*_of(kind, project), _RUNS.c.state == "done")
        for row in self.database.rows(query.order_by(_RUNS.c.id.desc()).limit(1)):
            if (report := read_json(row.report, kind.report)) is not None:
                return _run(row), report
        return None

    def at_work(self) -> Run | None:
        """Return the run, of any project, that a backend works on; runs that wait come after it."""
        query = sa.select(*_RUN).where(_RUNS.c.state == "running").order_by(_RUNS.c.id).limit(1)
        return next(map(_run, self.database.rows(query)), None)

    def cancel(self, run: Run) -> None:
        """End a run that waits or is at work: its backend notices. One that is over stays."""
        statement = sa.update(_RUNS).where(_RUNS.c.id == run.id, _is_open())
        self.database.execute(statement.values(state="cancelled", **self._over()))

    def delete(self, run: Run) -> None:
        self.database.execute(sa.delete(_RUNS).where(_RUNS.c.id == run.id))

    # ---- work under a lease ----------------------------------------------------------------------

    def lease(self, kinds: Collection[str]) -> Run | None:
        """Lease the oldest run that waits, or whose owner has died; None where there is none."""
        waiting = sa.select(*_RUN).where(
            _RUNS.c.kind.in_(kinds),
            _RUNS.c.needs <= revisions()[-1],
            _is_open(),
        )
        leased: list[Run] = []

        def begin(row: sa.Row[Any], deaths: Deaths) -> dict[str, Any]:
            if is_hopeless(deaths):
                reason = "The backend has ended each time while it worked on it: see its log."
                return {"state": "failed", "reason": reason, **self._over()}
            leased.append(_run(row, state="running"))
            return {"state": "running"}

        for row in self.leases.take(waiting.order_by(_RUNS.c.id).limit(1), begin):
            if not leased:
                self.leases.let_go(row.id)
        return next(iter(leased), None)

    def advance(self, run: Run, done: int, total: int | None) -> None:
        """Note the progress of a run; raises `LeaseLost` where this owner does not have it."""
        with self.database.write() as connection:
            self._change(connection, run, done=done, total=total)

    def release(self, run: Run) -> None:
        """Let a run wait again, for another backend or for later."""
        self.leases.let_go(run.id)
        with self.database.write() as connection:
            self.leases.change(connection, run.id, state="queued", **RELEASED)

    def finish(self, run: Run, report: msgspec.Struct | None = None, reason: str = "") -> list[Run]:
        """Finish a run: done where there is a report, else failed; return those to be forgotten.

        Raises:
            LeaseLost: it was cancelled or deleted, or another owner has it.
        """
        values: dict[str, Any] = {"state": "failed", "reason": reason}
        if report is not None:
            values = {"state": "done", "report": self._encode(report)}
        with self.database.write_exclusively(LOCK) as connection:
            self._change(connection, run, **values, **self._over())
            return _forget(connection, run.kind, run.project)

    def _change(self, connection: sa.Connection, run: Run, **values: Any) -> None:
        if not self.leases.change(connection, run.id, **values):
            raise LeaseLost(f"Run {run.id} was cancelled, or another backend has it.")

    def add_done(
        self,
        kind: RunKind[Any, Any],
        project: int,
        asked: msgspec.Struct,
        report: msgspec.Struct,
        created: float,
    ) -> list[Run]:
        """Add a run that a command has done, see `finish`."""
        text = msgspec.json.encode(asked).decode()
        values = {
            "state": "done",
            "report": self._encode(report),
            "created": created,
            **self._over(),
        }
        with self.database.write_exclusively(LOCK) as connection:
            _add(connection, kind, project, text, **values)
            return _forget(connection, kind.name, project)

    def forget_pictures(self, before: float) -> int:
        """Take the pictures out of reports that were finished before a time; return how many."""
        old = sa.select(_RUNS.c.id).where(_RUNS.c.finished < before, has_pictures(_RUNS.c.report))
        return forget_pictures(self.database, _RUNS.c.report, self.database.rows(old))

    def _encode(self, report: msgspec.Struct) -> str:
        return encode_report(report, keeps_pictures=self._keeps_pictures)

    def _over(self) -> dict[str, Any]:
        return {"finished": self.database.clock(), **FINISHED}


def _is_open() -> Any:
    return _RUNS.c.state.not_in(OVER)


def _of(kind: RunKind[Any, Any], project: int) -> tuple[Any, Any]:
    return _RUNS.c.project == project, _RUNS.c.kind == kind.name


def _add(
    connection: sa.Connection, kind: RunKind[Any, Any], project: int, asked: str, **values: Any
) -> Run:
    row = {"kind": kind.name, "project": project, "asked": asked, "needs": revisions()[-1]}
    row |= {"state": "queued"} | values
    key = connection.execute(sa.insert(_RUNS).values(row)).inserted_primary_key
    assert key is not None
    return _run(connection.execute(sa.select(*_RUN).where(_RUNS.c.id == key[0])).one())


def _forget(connection: sa.Connection, kind: str, project: int) -> list[Run]:
    """Delete the runs of a kind and project that are over and too old; return them."""
    query = sa.select(*_RUN).where(
        _RUNS.c.project == project, _RUNS.c.kind == kind, _RUNS.c.state.in_(OVER)
    )
    runs = [_run(row) for row in connection.execute(query.order_by(_RUNS.c.id.desc()))]
    done = [run for run in runs if run.state == "done"]
    others = [run for run in runs if run.state != "done"]
    gone = [*done[MOST_KEPT:], *others[MOST_KEPT:]]
    connection.execute(sa.delete(_RUNS).where(_RUNS.c.id.in_([run.id for run in gone])))
    return gone


def _run(row: Any, **changed: Any) -> Run:
    values = {name: row._mapping[name] for name in Run.__struct_fields__}
    return Run(**values | {"asked": json.loads(row.asked)} | changed)
