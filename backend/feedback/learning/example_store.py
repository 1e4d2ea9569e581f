"""What projects learn: what each annotation teaches, and numbered versions of what came of it.

Lessons are rows, one for each corrected picture, so that one that was changed or deleted is
replaced or gone, whoever has learned it. Of all lessons of a project somebody makes a new version
now and then::

    lesson ──> lesson ──> ... ──> enough changed, or asked for ──> leased ──> version
                                                                       │
                                                                       └──> live, or not better

At most one version of a project is live: predictions use that one. None is live before the first
one, and as soon as no lesson is left. Where a project is pinned, what is live stays.

Backends that share a database share all of it. Lessons and versions are of one model, as its
features are: those of another model lie beside them, and are not used.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from cachetools import LRUCache
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import METADATA, Database
from backend.database.leases import LEASE_S
from backend.errors import LearningRefused
from backend.feedback.learning.versions import (
    ActiveModel,
    LearningState,
    Promotion,
    StepLease,
    Summary,
    TrainingExample,
    Version,
    use,
)
from backend.settings import Adapt
from clearclip_core import Adaptation

log = logging.getLogger(__name__)

#: Annotations of a project that are learned from, the newest.
MOST_ANNOTATIONS: Final = 1000

#: Versions that are kept, the newest, and what is live.
MOST_VERSIONS: Final = 50

#: Projects whose live version is kept in memory.
_PROJECTS_KEPT: Final = 256

_LESSONS: Final = Table(
    "lessons",
    METADATA,
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String(64), primary_key=True),
    Column("picture", Integer, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("paint", Text, nullable=False),
    Column("learned", Float, nullable=False),
    Column("example", LargeBinary, nullable=False),  # last: SQLite reads all that comes before
)

_VERSIONS: Final = Table(
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

_LEARNERS: Final = Table(
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
    Column("owner", String(128), nullable=False, default=""),
    Column("leased_until", Float, nullable=False, default=0.0),
)

_LESSON, _VERSION, _STATE = _LESSONS.c, _VERSIONS.c, _LEARNERS.c


class ExampleStore:
    """Lessons and versions in a store, for one backend.

    Args:
        store: the database.
        owner: who this is, see `backend.database.leases.new_owner`.
        model: what the features of the model in use are known by; asked at each call, since
            weights may be brought later.

    >>> lessons = ExampleStore(Database("sqlite://"), "worker", lambda: "demo")
    >>> lessons.replace(3, 7, [TrainingExample("a", b"...", "{}")]), lessons.state(7).annotations
    (True, 1)
    >>> lessons.forget(3), lessons.state(7).annotations
    (True, 0)
    """

    def __init__(self, store: Database, owner: str, model: Callable[[], str]) -> None:
        self._store = store
        self._owner = owner
        self._model = model
        self._lock = threading.Lock()
        self._kept: LRUCache[tuple[int, str], tuple[Version, Adaptation | None] | None]
        self._kept = LRUCache(_PROJECTS_KEPT)

    @property
    def model(self) -> str:
        """What features are known by now.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        return self._model()

    # ---- lessons -----------------------------------------------------------------------------

    def replace(self, annotation: int, project: int, lessons: Sequence[TrainingExample]) -> bool:
        """Keep what an annotation teaches in place of what it has taught; whether that differs.

        Args:
            annotation: its id.
            project: its project's.
            lessons: one for each picture; none: it teaches nothing any more.
        """
        model = self.model
        ours = (_LESSON.annotation == annotation, _LESSON.model == model)
        with self._store.write() as connection:
            state = self._lock_state(connection, project, model)
            columns = (_LESSON.project, _LESSON.digest, _LESSON.paint, _LESSON.learned)
            query = select(*columns).where(*ours).order_by(_LESSON.picture)
            before = connection.execute(query).all()
            if [tuple(row[:3]) for row in before] == [
                (project, lesson.digest, lesson.paint) for lesson in lessons
            ]:
                return False
            connection.execute(delete(_LESSONS).where(*ours))
            first = min((row.learned for row in before), default=self._store.clock())
            rows = [
                {
                    "annotation": annotation,
                    "model": model,
                    "picture": picture,
                    "project": project,
                    "digest": lesson.digest,
                    "example": lesson.example,
                    "paint": lesson.paint,
                    "learned": first,
                }
                for picture, lesson in enumerate(lessons)
            ]
            if rows:
                connection.execute(insert(_LESSONS), rows)
                self._drop_oldest(connection, project, model)
            self._change(connection, project, model, changed=state.changed + 1)
            for other in {row.project for row in before} | {project}:
                self._end_without_lessons(connection, other, model)
        return True

    def forget(self, annotation: int) -> bool:
        """Forget what an annotation has taught, of all models; whether it had taught anything."""
        its = _LESSON.annotation == annotation
        query = (
            select(_LESSON.project, _LESSON.model)
            .where(its)
            .distinct()
            .order_by(_LESSON.project, _LESSON.model)
        )
        with self._store.read() as connection:
            places = connection.execute(query).all()
        if not places:  # most often, and nobody waits
            return False
        forgotten = False
        with self._store.write() as connection:
            for project, model in places:
                state = self._lock_state(connection, project, model)
                mine = (its, _LESSON.project == project, _LESSON.model == model)
                if connection.execute(delete(_LESSONS).where(*mine)).rowcount:
                    forgotten = True
                    self._change(connection, project, model, changed=state.changed + 1)
                    self._end_without_lessons(connection, project, model)
        return forgotten

    def is_too_old(self, annotation: int, project: int) -> bool:
        """Whether a project has so many lessons of newer annotations that this one cannot count."""
        with self._store.read() as connection:
            oldest = connection.execute(
                self._newest(project, self.model, MOST_ANNOTATIONS)
            ).scalar()
        return oldest is not None and annotation < oldest

    def annotations(self, project: int) -> list[int]:
        """The annotations that a project has lessons of, in ascending order."""
        query = select(_LESSON.annotation).where(
            _LESSON.project == project, _LESSON.model == self.model
        )
        with self._store.read() as connection:
            return list(connection.scalars(query.distinct().order_by(_LESSON.annotation)))

    def lessons(self, project: int) -> list[TrainingExample]:
        """All lessons of a project, in the order of their digests."""
        query = select(_LESSONS).where(_LESSON.project == project, _LESSON.model == self.model)
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(_LESSON.digest, _LESSON.paint))
            return [
                TrainingExample(row.digest, row.example, row.paint, row.learned, row.annotation)
                for row in rows
            ]

    def paints(self, project: int) -> list[str]:
        """`TrainingExample.paint` of all lessons of a project."""
        query = select(_LESSON.paint).where(_LESSON.project == project, _LESSON.model == self.model)
        with self._store.read() as connection:
            return list(connection.scalars(query.order_by(_LESSON.digest, _LESSON.paint)))

    # ---- steps -------------------------------------------------------------------------------

    def take_step(self, every: int, project: int | None = None) -> StepLease | None:
        """Lease a step that is due; None where none is, or another has it.

        Args:
            every: annotations that have changed since the last step, at least; see
                `backend.feedback.learning.versions.due_after`.
            project: the step of this one, due or not.
        """
        model, now = self.model, self._store.clock()
        query = select(_LEARNERS).where(
            _STATE.model == model, _STATE.pinned == 0, _STATE.leased_until < now
        )
        if project is None:
            known = select(func.count(_LESSON.annotation.distinct())).where(
                _LESSON.project == _STATE.project, _LESSON.model == model
            )
            enough = and_(_STATE.changed >= every, _STATE.changed >= known.scalar_subquery() // 10)
            query = query.where(or_(enough, _STATE.asked == 1), _STATE.due <= now)
            query = query.order_by(_STATE.due, _STATE.project)
        else:
            query = query.where(_STATE.project == project)
        with self._store.write() as connection:
            if project is not None:
                self._lock_state(connection, project, model)
            row = connection.execute(query.limit(1).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            self._change(
                connection, row.project, model, owner=self._owner, leased_until=now + LEASE_S
            )
            return StepLease(row.project, row.changed, row.live)

    def renew(self, turn: StepLease) -> None:
        """Keep a leased step for another while."""
        until = self._store.clock() + LEASE_S
        with self._store.write() as connection:
            connection.execute(
                update(_LEARNERS)
                .where(*self._ours(turn.project, self.model), _STATE.owner == self._owner)
                .values(leased_until=until)
            )

    def settle(
        self, turn: StepLease, made: Version | None, adaptation: Adaptation | None, then: Promotion
    ) -> Version | None:
        """End a leased step.

        What equals the newest version is no new one. Where the lease was another's by now, or
        what it has learned from is forgotten, nothing is kept. What somebody has made live
        meanwhile stays.

        Args:
            turn: as `take_step` gave it.
            made: what came of it; None: nothing, since there are no lessons.
            adaptation: its scores, where they are better.
            then: what becomes of it.

        Returns:
            The version as it is kept; None where there is none.
        """
        model = self.model
        with self._store.write() as connection:
            state = self._lock_state(connection, turn.project, model)
            if state.owner != self._owner:
                return None
            kept = self._keep(connection, turn.project, model, made, adaptation) if made else None
            live = {
                "live": kept.number if kept else None,
                "stays": state.live,
                "words": None,
            }[then]
            self._change(
                connection,
                turn.project,
                model,
                live=state.live if state.pinned or state.live != turn.live else live,
                changed=max(0, state.changed - turn.changed),
                asked=0,
                trouble="",
                owner="",
                leased_until=0.0,
            )
            self._drop_old_versions(connection, turn.project, model)
            return kept

    def give_up(self, turn: StepLease, trouble: str, later_s: float) -> None:
        """Give a leased step back that has failed, to be tried again after a while."""
        model = self.model
        with self._store.write() as connection:
            if self._lock_state(connection, turn.project, model).owner == self._owner:
                self._change(
                    connection,
                    turn.project,
                    model,
                    trouble=trouble,
                    due=self._store.clock() + later_s,
                    owner="",
                    leased_until=0.0,
                )

    # ---- who steers --------------------------------------------------------------------------

    def ask(self, project: int) -> LearningState:
        """Ask for a step, which somebody takes soon.

        Raises:
            LearningRefused: the project is pinned, or there is nothing to learn from.
        """
        with self._store.write() as connection:
            state = self._lock_state(connection, project, self.model)
            _, pictures = self._count(connection, project, self.model)
            self.check_step(state.pinned, pictures, project)
            self._change(connection, project, self.model, asked=1, due=0.0)
        return self.state(project)

    @staticmethod
    def check_step(pinned: bool, pictures: int, project: int) -> None:
        """Refuse a step that cannot be.

        Raises:
            LearningRefused: see `ask`.
        """
        if pinned:
            raise LearningRefused(f"Project {project} is pinned: unpin it to let it learn.")
        if not pictures:
            raise LearningRefused(
                f"Project {project} has no corrections to learn from yet: submit annotations, or "
                "have those that are there read."
            )

    def pin(self, project: int, pinned: bool = True) -> LearningState:
        """Let what is live stay as it is, or let it move again."""
        with self._store.write() as connection:
            self._lock_state(connection, project, self.model)
            self._change(connection, project, self.model, pinned=int(pinned), due=0.0)
        return self.state(project)

    def roll_back(
        self, project: int, number: int | None = None, mode: Adapt = "scores"
    ) -> LearningState:
        """Go back to an earlier version, and pin that.

        One that was not better than the words counts where thresholds are used: where the mode
        says so, or where such a one is live.

        Args:
            project: its id.
            number: which one; 0 for the words alone; by default the last one before the one that
                is live, and where there is none, the words.
            mode: what follows corrections, as far as it is known.

        Raises:
            LearningRefused: there is no such version, or nothing is live to go back from.
        """
        model = self.model
        with self._store.write() as connection:
            state = self._lock_state(connection, project, model)
            known = select(_VERSION.number, _VERSION.better).where(*self._of(project, model))
            better = {row.number: bool(row.better) for row in connection.execute(known)}
            by_thresholds = mode in ("thresholds", "all") or not better.get(state.live, True)
            usable = [each for each in better if better[each] or by_thresholds]
            if number is None:
                if state.live is None:
                    raise LearningRefused(
                        f"Project {project} uses the words alone: there is nothing to go back from."
                    )
                live = max((each for each in usable if each < state.live), default=None)
            elif number and number not in usable:
                raise LearningRefused(
                    f"Project {project} has no version {number}"
                    + ("." if by_thresholds else " that was better than the words.")
                )
            else:
                live = number or None
            self._change(connection, project, model, live=live, pinned=1)
        return self.state(project)

    def reset(self, project: int, keep_lessons: bool = False) -> LearningState:
        """Forget all versions, the pin, and the lessons too unless they are to be kept."""
        model = self.model
        with self._store.write() as connection:
            self._lock_state(connection, project, model)
            connection.execute(delete(_VERSIONS).where(*self._of(project, model)))
            if not keep_lessons:
                mine = (_LESSON.project == project, _LESSON.model == model)
                connection.execute(delete(_LESSONS).where(*mine))
            self._change(
                connection,
                project,
                model,
                live=None,
                pinned=0,
                changed=self._count(connection, project, model)[0],
                asked=0,
                trouble="",
                due=0.0,
                owner="",
                leased_until=0.0,
            )
        return self.state(project)

    def bring(self, project: int, version: Version, adaptation: Adaptation | None) -> Version:
        """Keep a version that comes from elsewhere, and let it be live.

        Raises:
            LearningRefused: the project is pinned.
        """
        model = self.model
        with self._store.write() as connection:
            if self._lock_state(connection, project, model).pinned:
                raise LearningRefused(f"Project {project} is pinned: unpin it to let it learn.")
            kept = self._keep(connection, project, model, version, adaptation)
            self._change(connection, project, model, live=kept.number)
        return kept

    # ---- who looks ---------------------------------------------------------------------------

    def state(self, project: int) -> LearningState:
        """Where a project stands."""
        with self._store.read() as connection:
            query = select(_LEARNERS).where(*self._ours(project, self.model))
            row = connection.execute(query).first()
            annotations, pictures = self._count(connection, project, self.model)
        if row is None:
            return LearningState(project)
        return LearningState(
            project,
            row.live,
            bool(row.pinned),
            row.changed,
            bool(row.asked),
            annotations,
            pictures,
            row.trouble,
        )

    def projects(self) -> list[int]:
        """The projects that have lessons or versions, in ascending order."""
        query = select(_STATE.project).where(_STATE.model == self.model).order_by(_STATE.project)
        with self._store.read() as connection:
            return list(connection.scalars(query))

    def summary(self) -> Summary:
        """Counts over all projects."""
        model = self.model
        live = select(func.count()).where(_STATE.model == model, _STATE.live.is_not(None))
        pictures = select(func.count()).where(_LESSON.model == model)
        newest = select(_VERSIONS).where(_VERSION.model == model, _VERSION.origin == "step")
        with self._store.read() as connection:
            row = connection.execute(newest.order_by(_VERSION.created.desc()).limit(1)).first()
            return Summary(
                int(connection.execute(live).scalar_one()),
                int(connection.execute(pictures).scalar_one()),
                None if row is None else _version(row),
            )

    def versions(self, project: int) -> list[Version]:
        """The versions of a project, the newest first."""
        columns = [column for column in _VERSIONS.columns if column.name != "adaptation"]
        query = select(*columns).where(*self._of(project, self.model))
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(_VERSION.number.desc()))
            return [_version(row) for row in rows]

    def version(self, project: int, number: int) -> tuple[Version, Adaptation | None]:
        """One version and its scores.

        Raises:
            LearningRefused: there is none of that number.
        """
        query = select(_VERSIONS).where(*self._of(project, self.model), _VERSION.number == number)
        with self._store.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise LearningRefused(f"Project {project} has no version {number}.")
        return _version(row), _adaptation(row)

    def learned(self, project: int | None, mode: Adapt) -> ActiveModel | None:
        """What predictions of a project use now; None: the words alone.

        Where the database is away, what it has said last.
        """
        if project is None or mode == "off":
            return None
        key = project, self.model
        try:
            found = self._find_live(*key)
        except SQLAlchemyError as error:
            log.warning("The database of what projects have learned: %s", error)
            with self._lock:
                found = self._kept.get(key)
        except ValueError as error:  # kept by another release
            log.warning("What project %d has learned cannot be used: %s", project, error)
            found = None
        else:
            with self._lock:
                self._kept[key] = found
        return None if found is None else use(*found, mode)

    def earlier(self, project: int | None, mode: Adapt) -> Iterator[ActiveModel | None]:
        """What predictions of a project have used, or could have: the newest first, then nothing.

        Nothing comes where the words alone decide now.
        """
        if project is None or self.learned(project, mode) is None:
            return
        for version in self.versions(project):
            yield use(*self.version(project, version.number), mode)
        yield None

    # ---- inside ------------------------------------------------------------------------------

    def _find_live(self, project: int, model: str) -> tuple[Version, Adaptation | None] | None:
        live = (
            select(_VERSION.number, _VERSION.digest, _VERSION.created)
            .join(
                _LEARNERS,
                (_STATE.project == _VERSION.project)
                & (_STATE.model == _VERSION.model)
                & (_STATE.live == _VERSION.number),
            )
            .where(*self._of(project, model))
        )
        with self._store.read() as connection:
            row = connection.execute(live).first()
            if row is None:
                return None
            with self._lock:
                kept = self._kept.get((project, model))
            if kept and (kept[0].number, kept[0].digest, kept[0].created) == tuple(row):
                return kept
            whole = select(_VERSIONS).where(
                *self._of(project, model), _VERSION.number == row.number
            )
            found = connection.execute(whole).first()
        return None if found is None else (_version(found), _adaptation(found))

    def _ours(self, project: int, model: str) -> tuple[Any, ...]:
        return _STATE.project == project, _STATE.model == model

    def _of(self, project: int, model: str) -> tuple[Any, ...]:
        return _VERSION.project == project, _VERSION.model == model

    def _lock_state(self, connection: Connection, project: int, model: str) -> Row[Any]:
        """The row of a project, made where there is none; nobody else changes it meanwhile."""
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as insert_or_leave
        else:
            from sqlalchemy.dialects.sqlite import (  # type: ignore[assignment]
                insert as insert_or_leave,
            )
        row = {"project": project, "model": model}
        connection.execute(insert_or_leave(_LEARNERS).values(row).on_conflict_do_nothing())
        query = select(_LEARNERS).where(*self._ours(project, model)).with_for_update()
        return connection.execute(query).one()

    def _change(self, connection: Connection, project: int, model: str, **changes: Any) -> None:
        query = update(_LEARNERS).where(*self._ours(project, model))
        connection.execute(query.values(changes))

    def _count(self, connection: Connection, project: int, model: str) -> tuple[int, int]:
        """Annotations and pictures that a project has lessons of."""
        counts = select(func.count(_LESSON.annotation.distinct()), func.count()).where(
            _LESSON.project == project, _LESSON.model == model
        )
        annotations, pictures = connection.execute(counts).one()
        return int(annotations), int(pictures)

    def _end_without_lessons(self, connection: Connection, project: int, model: str) -> None:
        """Back to the words at once, where the last lesson of a version made here is gone."""
        if self._count(connection, project, model)[1]:
            return
        imported = (
            select(_VERSION.number)
            .where(*self._of(project, model), _VERSION.origin == "import")
            .scalar_subquery()
        )
        connection.execute(
            update(_LEARNERS)
            .where(*self._ours(project, model), _STATE.pinned == 0)
            .where(or_(_STATE.live.is_(None), _STATE.live.not_in(imported)))
            .values(live=None)
        )
        idle = {"changed": 0, "asked": 0, "owner": "", "leased_until": 0.0}
        self._change(connection, project, model, **idle)

    def _keep(
        self,
        connection: Connection,
        project: int,
        model: str,
        made: Version,
        adaptation: Adaptation | None,
    ) -> Version:
        """Keep a version under the next number, unless it is what the newest one is already."""
        newest = (
            select(_VERSIONS)
            .where(*self._of(project, model))
            .order_by(_VERSION.number.desc())
            .limit(1)
        )
        row = connection.execute(newest).first()
        if row is not None and (row.digest, row.origin) == (made.digest, made.origin):
            return _version(row)
        number = 1 if row is None else row.number + 1
        kept = replace(made, number=number, created=self._store.clock())
        connection.execute(
            insert(_VERSIONS).values(
                project=project,
                model=model,
                number=kept.number,
                origin=kept.origin,
                digest=kept.digest,
                adaptation=None if adaptation is None else adaptation.to_bytes(),
                better=int(kept.better),
                annotations=kept.annotations,
                pictures=kept.pictures,
                facts=json.dumps(kept.facts),
                created=kept.created,
            )
        )
        return kept

    def _drop_oldest(self, connection: Connection, project: int, model: str) -> None:
        """Drop the lessons of the oldest annotations where there are too many."""
        mine = (_LESSON.project == project, _LESSON.model == model)
        dropped = connection.execute(self._newest(project, model, MOST_ANNOTATIONS + 1)).scalar()
        if dropped is not None:
            connection.execute(delete(_LESSONS).where(*mine, _LESSON.annotation <= dropped))

    def _newest(self, project: int, model: str, count: int) -> Select[Any]:
        """The id of the so manieth newest annotation that there are lessons of."""
        mine = (_LESSON.project == project, _LESSON.model == model)
        ids = select(_LESSON.annotation).where(*mine).distinct()
        return ids.order_by(_LESSON.annotation.desc()).offset(count - 1).limit(1)

    def _drop_old_versions(self, connection: Connection, project: int, model: str) -> None:
        newest = select(_VERSION.number).where(*self._of(project, model))
        newest = newest.order_by(_VERSION.number.desc()).offset(MOST_VERSIONS).limit(1)
        last = connection.execute(newest).scalar()
        if last is not None:
            live = select(_STATE.live).where(*self._ours(project, model)).scalar_subquery()
            connection.execute(
                delete(_VERSIONS).where(
                    *self._of(project, model),
                    _VERSION.number <= last,
                    _VERSION.number != func.coalesce(live, 0),
                )
            )


def _version(row: Row[Any]) -> Version:
    facts = json.loads(row.facts)
    return Version(
        annotations=row.annotations,
        pictures=row.pictures,
        digest=row.digest,
        better=bool(row.better),
        origin=row.origin,
        created=row.created,
        number=row.number,
        text_iou=facts.get("text_iou"),
        adapted_iou=facts.get("adapted_iou"),
        text_ious=facts.get("text_ious", {}),
        adapted_ious=facts.get("adapted_ious", {}),
        thresholds=facts.get("thresholds", {}),
        adapted_thresholds=facts.get("adapted_thresholds", {}),
    )


def _adaptation(row: Row[Any]) -> Adaptation | None:
    return None if row.adaptation is None else Adaptation.from_bytes(row.adaptation)
