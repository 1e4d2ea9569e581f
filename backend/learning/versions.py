"""Keep the numbered versions of what projects have learned, and which of them is live.

At most one version of a project is live: predictions use it. Before the first one, and as soon as
the project has no training example left, the words alone decide. While a project is pinned, what is
live stays.

A step makes a version of all training examples. It is due once enough annotations have changed, or
somebody asks for it; one backend at a time leases it. Versions belong to one model, as features do:
those of another model stay beside them.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import METADATA, Database, read_json
from backend.database.leases import (
    FINISHED,
    RELEASED,
    Deaths,
    Leases,
    is_due,
    is_hopeless,
)
from backend.database.pictures import encode_report, forget_pictures, has_pictures
from backend.errors import LearningRefused
from backend.learning.compared_images import BeforeAfter, PropagationTrial
from backend.learning.examples import EXAMPLES, STATES, StateRow, in_project
from backend.learning.next_pictures import NEXT_PICTURES, to_search
from backend.settings import Adapt, Settings
from clearclip_core import Adaptation

log = logging.getLogger(__name__)

VERSIONS: Final = sa.Table(
    "learned_versions",
    METADATA,
    sa.Column("project", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),  # a `Version`, as JSON
    sa.Column("adaptation", sa.LargeBinary),
    sa.Column("pictures", sa.Text, nullable=False),  # a `BeforeAfter`, as JSON: large, so last
)

_CHANGED_OF: Final = 10  # before a step is due, one of this many annotations has changed at least
MOST_VERSIONS: Final = 50  # versions that are kept of a project: the newest, and the live one

#: `STATES.asked` where somebody wants to learn from pictures that nobody has corrected. Below zero:
#: a backend of 0.2 beside this one takes such a step for none that is wanted.
_UNLABELLED: Final = -1

LONGEST_RETRY_S: Final = 600.0  # before a step that has failed is tried again, in seconds

_DEADLY: Final = (
    "The backend has ended each time while it learned: it may need more memory than there is. See "
    "its log, and have it learn again."
)

_GROWS: Final = 1.5  # how many times its area by the words a label has that is to be looked at

_LOST: Final = "Learn now: an earlier version of the backend has made what the project had learned."

_VERSION: Final = VERSIONS.c
_STATE: Final = STATES.c


class Person(msgspec.Struct, frozen=True):
    """An annotator whose work most of their own pictures speak against."""

    key: str  # see `Example.annotator`
    name: str  # as Label Studio has it
    reason: str  # what was found, as a sentence
    is_left_out: bool  # whether the version has learned nothing of theirs

    @property
    def sentence(self) -> str:
        return f"{self.name}: {self.reason}"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has learned from the training examples of a project.

    IoUs are of held-out corrections, in [0, 1], by the name of the label where there are several.
    Labels with little drawn have none.
    """

    annotations: int  # how many annotations it has learned from
    digest: str  # of its adaptation; "" without one
    better: bool  # whether it passed the gate. If not, it has no adaptation and is never live
    text_iou: float = 0.0
    adapted_iou: float = 0.0
    text_ious: dict[str, float] = {}
    adapted_ious: dict[str, float] = {}
    shown: dict[str, int] = {}  # name of the label -> on how many corrected images somebody drew it
    labels: int = 0  # number of labels in use; 0 where an earlier release made the version
    refused: dict[str, str] = {}  # label -> why corrections of it were not taken over
    found: dict[str, float] = {}  # label -> share of what was drawn that the words find, in [0, 1]
    people: tuple[Person, ...] = ()
    unlabelled: int = 0  # different uncorrected pictures that it has learned from, or 0
    areas: dict[str, tuple[float, float]] = {}  # label -> share of all pixels before and after
    #: By how much the version from unlabelled pictures that was in use, if any, is better than the
    #: words on these corrections, in mean IoU.
    unlabelled_gain: float | None = None
    unlabelled_lost: bool = False  # whether it is surely worse, and was taken back
    unlabelled_losing: tuple[str, ...] = ()  # names of labels on which it is surely worse
    propagation_trial: PropagationTrial | None = None  # None: not tried
    created: float = 0.0  # in seconds since the epoch
    number: int = 0  # counts up from 1 in each project, never the same twice; 0 before it is kept

    @property
    def gain(self) -> float | None:
        """By how much the mean IoU over all labels is higher than the words'; None: not measured.

        Labels that have no IoU count as unchanged, see `Fit.gain`.
        """
        if not self.text_ious:
            return None
        return (self.adapted_iou - self.text_iou) * len(self.text_ious) / self.labels_in_use

    @property
    def labels_in_use(self) -> int:
        """Number of labels; of a version that an earlier release made, the known ones."""
        return max(self.labels, len(self.shown), len(self.text_ious))

    @property
    def growing(self) -> tuple[str, ...]:
        """Names of labels that win half as much area again by unlabelled pictures, or more.

        A label that no picture shows may grow so, and so may one that the words hardly found.
        """
        return tuple(name for name, (was, is_) in self.areas.items() if is_ >= _GROWS * was > 0)

    @property
    def unlabelled_summary(self) -> str:
        """What these corrections say of the version from unlabelled pictures; "" without one."""
        if self.unlabelled_gain is None:
            return ""
        points = f"{100 * abs(self.unlabelled_gain):.1f} points"
        told = (
            "On the corrected pictures the version from unlabelled pictures has a mean IoU "
            f"{points} {'below' if self.unlabelled_gain < 0 else 'above'} that of the words"
        )
        told += ": it was taken back." if self.unlabelled_lost else "."
        if self.unlabelled_losing:
            told += f" The words do better on {', '.join(self.unlabelled_losing)}."
        return told


class LearningState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a project stands."""

    project: int
    live: int | None = None  # number of the version that predictions use; None: the words alone
    pinned: bool = False  # whether the live version stays live
    #: Number of the version that has passed the gate and waits for somebody to decide: the newest;
    #: where somebody decides on each, the newest that has passed.
    waits: int | None = None
    adapt: Adapt | None = None  # who decides, as the last step found it; None before the first
    as_words: tuple[str, ...] = ()  # names of the labels that keep the scores of their words
    left_out: dict[str, str] = {}  # people whose annotations teach nothing: key -> name
    changed: int = 0  # annotations that were added, changed or deleted since the last step
    asked: bool = False  # whether somebody has asked for a step
    annotations: int = 0  # how many annotations it has training examples of
    trouble: str = ""  # why the last step has failed; empty where it has not

    def due_after(self, every: int) -> int:
        """Return after how many changes a step is due; see `VersionStore.lease_step`."""
        return max(every, self.annotations // _CHANGED_OF)


@dataclass(frozen=True)
class StepLease:
    """A leased step of a project, with the columns of its row as they were then."""

    project: int
    changed: int
    live: int | None = None
    as_words: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # keys of people, sorted
    unlabelled: bool = False  # whether to learn from pictures that nobody has corrected
    newest: int = 0  # number of the newest version


@dataclass(frozen=True, eq=False)
class ActiveModel:
    """What predictions of a project use beside the words: an adaptation, and its version."""

    annotations: int
    number: int
    adaptation: Adaptation


class VersionStore:
    """The versions in a database, of the model in use.

    >>> store = VersionStore(Database("sqlite://"), "worker", lambda: "demo")
    >>> store.lease_step(10) is None, store.use(7, 0).pinned
    (True, True)
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        model_key: Callable[[], str],
        *,
        keeps_pictures: bool = True,
    ) -> None:
        self._database = database
        self._keeps_pictures = keeps_pictures
        self._owner = owner
        self.leases = Leases(database, STATES, owner)
        self._model_key = model_key  # asked each time: weights may be downloaded later

    # ---- what is live ------------------------------------------------------------------------

    def unpin(self, project: int) -> LearningState:
        """Let new versions of a project go live again."""
        with self._locked(project) as locked:
            locked.change(pinned=0, due=0.0)
        return self.state(project)

    def use(self, project: int, number: int, pin: bool = True) -> LearningState:
        """Make a version live, or with 0 the words alone; a pinned one stays, whatever is learned.

        Raises:
            LearningRefused: there is no such version.
        """
        with self._locked(project) as locked:
            is_usable = sa.and_(_VERSION.number == number, _VERSION.adaptation.is_not(None))
            usable = sa.select(_VERSION.number).where(*locked.own(VERSIONS), is_usable)
            if number and locked.connection.scalar(usable) is None:
                raise LearningRefused(
                    f"Project {project} has no version {number} that was better than the words."
                )
            locked.change(live=number or None, pinned=int(pin), decided=locked.row.newest)
        return self.state(project)

    def keep_words(self, project: int, label: str, kept: bool = True) -> LearningState:
        """Let a label keep the scores of its words, or learn it again; the next step follows."""
        with self._locked(project) as locked:
            labels = {*json.loads(locked.row.as_words)} - {label} | ({label} if kept else set())
            asked = int(locked.count_annotations() > 0)
            locked.change(as_words=json.dumps(sorted(labels)), asked=asked, due=0.0)
        return self.state(project)

    def leave_out(self, project: int, person: str, left_out: bool = True) -> LearningState:
        """Learn without somebody's annotations, or with them again; the next step follows.

        Args:
            project: id of the project.
            person: name or key of somebody whom a version names, or who is left out already.
            left_out: whether to learn without them.

        Raises:
            LearningRefused: no version names such a person.
        """
        named = [each for version in self.versions(project) for each in version.people]
        with self._locked(project) as locked:
            people: dict[str, str] = json.loads(locked.row.left_out)
            known = {each.key: each.name for each in named} | people
            key = next((key for key, name in known.items() if person in (key, name)), None)
            if key is None:
                raise LearningRefused(f"No version of project {project} names {person!r}.")
            if left_out:
                people[key] = known[key]
            else:
                people.pop(key, None)
            asked = int(locked.count_annotations() > 0)
            locked.change(left_out=json.dumps(people), asked=asked, due=0.0)
        return self.state(project)

    def reset(self, project: int) -> LearningState:
        """Delete a project's versions, its examples, and what people have decided.

        Examples of other models go too: else they would be learned from again. So does what is in
        use with other models: else the next version would take its place by itself.
        """
        of_others = sa.and_(_STATE.project == project, _STATE.model != self._model_key())
        with self._locked(project) as locked:
            locked.connection.execute(sa.update(STATES).where(of_others).values(live=None))
            locked.connection.execute(sa.delete(VERSIONS).where(*locked.own(VERSIONS)))
            for table in (EXAMPLES, NEXT_PICTURES):
                locked.connection.execute(sa.delete(table).where(table.c.project == project))
            fresh = {"live": None, "pinned": 0, "as_words": "[]", "left_out": "{}"}
            fresh |= {"asked": 0, "adapt": None}
            locked.change(changed=0, decided=0, trouble="", due=0.0, **fresh, **FINISHED)
        return self.state(project)

    # ---- steps -------------------------------------------------------------------------------

    def request_step(
        self, project: int, may_have_none: bool = False, unlabelled: bool = False
    ) -> LearningState:
        """Make the step of a project due, however few annotations have changed.

        `may_have_none` where its training examples may still be to come; `unlabelled` to learn from
        pictures that nobody has corrected, until there are corrections.

        Raises:
            LearningRefused: the project is pinned, or it has no training examples.
        """
        with self._locked(project) as locked:
            if locked.row.pinned and not may_have_none:
                raise LearningRefused(
                    f"What project {project} uses was chosen by hand: let it learn again first."
                )
            if not (may_have_none or unlabelled or locked.count_annotations()):
                raise LearningRefused(
                    f"Project {project} has no corrections to learn from yet: submit annotations."
                )
            locked.change(asked=_UNLABELLED if unlabelled else 1, trouble="", due=0.0)
        return self.state(project)

    def lease_step(self, every: int, project: int | None = None) -> StepLease | None:
        """Lease a step that is due, of a project or of any; None where all wait or are leased.

        At least `every` annotations have changed since the last one; a tenth of all if that is
        more.
        """
        query = _due_first(every, self._database.clock())
        query = query.where(_STATE.model == self._model_key()).limit(1)
        if project is not None:
            query = query.where(_STATE.project == project)
        return self._lease(query, {"trouble": _DEADLY, "changed": 0, "asked": 0, **FINISHED})

    def lease_search(self, every: int) -> StepLease | None:
        """Lease a project whose pictures to correct next are to be found; None: there is none.

        One whose step is due is left to that. Predictions use a version then, or will do.
        """
        query = to_search(self._database.clock()).where(
            _STATE.model == self._model_key(), _STATE.pinned == 0, ~_is_step_wanted(every)
        )
        return self._lease(query.limit(1), dict(RELEASED))

    def end_search(self, lease: StepLease) -> None:
        """End the lease of a search; deaths of its owners stay, until a step is made."""
        self.leases.let_go(lease.project, self._model_key())
        with self._locked(lease.project) as locked:
            if locked.row.owner == self._owner:
                locked.change(**RELEASED)

    def _lease(self, query: sa.Select[Any], hopeless: dict[str, Any]) -> StepLease | None:
        """Lease the row of a query, if there is one; one that is hopeless gets those values."""
        leased: list[StepLease] = []

        def begin(row: sa.Row[Any], deaths: Deaths) -> dict[str, Any]:
            if is_hopeless(deaths):
                return hopeless
            lease = StepLease(
                project=row.project,
                changed=row.changed,
                live=row.live,
                as_words=tuple(json.loads(row.as_words)),
                left_out=_left_out(row),
                unlabelled=row.asked == _UNLABELLED,
                newest=row.newest,
            )
            leased.append(lease)
            return {}

        for row in self.leases.take(query, begin):
            if not leased:
                self.leases.let_go(row.project, row.model)
        return next(iter(leased), None)

    def begin(self, lease: StepLease, task: int) -> None:
        """Note the task that a step is at, see `Leases.begin`; raises `TaskDeadly`."""
        self.leases.begin(task, lease.project, self._model_key())

    def commit(
        self,
        lease: StepLease,
        version: Version | None,
        adaptation: Adaptation | None,
        adapt: Adapt = "auto",
        pictures: BeforeAfter | None = None,
    ) -> Version | None:
        """End a leased step with its result: what it adds to scores, or None if it failed the gate.

        Return the version as it is kept; None if nothing is, the lease has gone to another backend,
        or the examples are gone. One that changes predictions as the newest one does is not kept
        again. What somebody has made live meanwhile stays live.

        With `adapt` "auto" it goes live, or the words alone where it has not passed the gate. The
        first version of a project waits for somebody to decide, who sees its pictures; where one of
        another model is in use, they have decided. One from unlabelled pictures waits, too, and one
        in use that has lost is taken back.
        """
        self.leases.let_go(lease.project, self._model_key())

        with self._locked(lease.project) as locked:
            row, kept = locked.row, None
            if row.owner != self._owner:
                return None
            live = row.live
            if version is not None:
                kept = self._insert(locked, version, adaptation, pictures or BeforeAfter())
                if not row.pinned and live == lease.live:
                    live = self._live_after(locked, kept, adapt)

            wanted = tuple(json.loads(row.as_words)), _left_out(row)
            left = {
                "changed": max(0, row.changed - lease.changed),
                "asked": int(wanted != (lease.as_words, lease.left_out)),
            }
            locked.change(live=live, adapt=adapt, trouble="", **left, **FINISHED)
            _delete_old_versions(locked, live)
        return kept

    def _live_after(self, locked: StateRow, kept: Version, adapt: Adapt) -> int | None:
        """Return the version that is to be live, where nobody has chosen one meanwhile."""
        if adapt == "auto" and not kept.unlabelled and self._is_decided(locked):
            return kept.number if kept.better else None
        return None if kept.unlabelled_lost else locked.row.live

    def release(
        self, lease: StepLease, trouble: str, retry_after_s: float = LONGEST_RETRY_S
    ) -> None:
        """Give back the lease of a step that has failed, with the reason as a sentence."""
        self.leases.let_go(lease.project, self._model_key())
        due = self._database.clock() + retry_after_s
        with self._locked(lease.project) as locked:
            if locked.row.owner == self._owner:
                locked.change(trouble=trouble, due=due, **RELEASED)

    def only_other_models_have_seen(self) -> list[int]:
        """Return the projects that use a version from uncorrected pictures, of another model."""
        joined = sa.and_(_VERSION.project == _STATE.project, _VERSION.model == _STATE.model)
        used = sa.select(_STATE.project, _VERSION.version).join(VERSIONS, joined)
        own = sa.select(_STATE.project).where(_STATE.model == self._model_key())
        used = used.where(_VERSION.number == _STATE.live, _STATE.project.not_in(own)).distinct()
        read = ((project, read_json(text, Version)) for project, text in self._database.rows(used))
        return sorted({project for project, version in read if version and version.unlabelled})

    def made_again(self) -> set[int]:
        """Return the projects that used a version of another model, until this one's first step.

        `Learner.take_due_step` asks for that step by itself. A step that has failed, and one that
        somebody keeps from being made, is waited for no longer.
        """
        key = self._model_key()
        own = STATES.alias()
        its = sa.and_(own.c.project == _STATE.project, own.c.model == key)
        of_project = EXAMPLES.c.project == _STATE.project

        is_made = sa.or_(own.c.newest > 0, own.c.adapt.is_not(None))
        is_given_up = sa.or_(own.c.pinned != 0, own.c.trouble != "")
        has_ended = sa.exists().where(its, sa.or_(is_made, is_given_up))

        is_asked = sa.exists().where(its, own.c.asked != 0)
        has_examples = sa.exists().where(of_project, EXAMPLES.c.model != key)
        # a pinned version may have lost all that it was made of
        will_be_made = sa.or_(_STATE.pinned == 0, is_asked, has_examples)

        was_used = sa.and_(_STATE.model != key, _STATE.live.is_not(None))
        query = sa.select(_STATE.project).where(was_used, ~has_ended, will_be_made)
        return {row.project for row in self._database.rows(query)}

    # ---- what predictions use ------------------------------------------------------------------

    def active(self, project: int | None, mode: Adapt) -> ActiveModel | None:
        """Return what predictions of a project use now.

        None for the words alone, also while the database cannot be reached.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        if project is None or mode == "off":
            return None
        live = sa.select(_STATE.live).where(*in_project(STATES, project, self._model_key()))
        try:
            number = self._database.scalar(live)
            return None if number is None else self._load(project, number)
        except (SQLAlchemyError, LearningRefused, ValueError) as error:  # away, deleted or damaged
            log.warning("What project %d has learned cannot be used: %s", project, error)
            return None

    def earlier(self, project: int | None, mode: Adapt) -> Iterator[ActiveModel | None]:
        """Yield what predictions of a project may have used: the newest first, None for the words.

        Yields nothing where the words alone decide now.
        """
        if project is None or self.active(project, mode) is None:
            return
        for version in self.versions(project):
            yield self._load(project, version.number)  # None: it has not passed
        yield None

    def _load(self, project: int, number: int) -> ActiveModel | None:
        version, adaptation = self.version(project, number)
        return None if adaptation is None else ActiveModel(version.annotations, number, adaptation)

    # ---- what there is -----------------------------------------------------------------------

    def state(self, project: int) -> LearningState:
        """Return where a project stands; one without a row has learned nothing."""
        model = self._model_key()
        query = sa.select(STATES).where(*in_project(STATES, project, model))
        with self._database.read() as connection:
            row = connection.execute(query).first()
            if row is None:
                return LearningState(project=project)

            found = StateRow(connection, row)
            annotations = found.count_annotations()

            undecided = max(row.decided, row.live or 0) + 1
            first = undecided if row.adapt == "ask" else max(undecided, row.newest)
            passed = sa.and_(_VERSION.number >= first, _VERSION.adaptation.is_not(None))
            newest = sa.select(sa.func.max(_VERSION.number)).where(*found.own(VERSIONS), passed)
            waits = connection.scalar(newest)
            its = sa.select(_VERSION.version).where(*found.own(VERSIONS))
            live = connection.scalar(its.where(_VERSION.number == row.live))

        is_lost = live is not None and read_json(live, Version) is None
        return LearningState(
            project=project,
            live=None if is_lost else row.live,
            pinned=bool(row.pinned),
            waits=waits,
            adapt=row.adapt,
            as_words=tuple(json.loads(row.as_words)),
            left_out=json.loads(row.left_out),
            changed=row.changed,
            asked=bool(row.asked),
            annotations=annotations,
            trouble=row.trouble or (_LOST if is_lost else ""),
        )

    def versions(self, project: int) -> list[Version]:
        """Return the versions of a project, the newest first, but those it cannot read."""
        query = sa.select(_VERSION.version).where(*in_project(VERSIONS, project, self._model_key()))
        rows = self._database.rows(query.order_by(_VERSION.number.desc()))
        return [each for (text,) in rows if (each := read_json(text, Version)) is not None]

    def version(self, project: int, number: int) -> tuple[Version, Adaptation | None]:
        """Return one version and its adaptation.

        Raises:
            LearningRefused: the project has no version of that number that can be read.
            ValueError: the adaptation is damaged.
        """
        query = sa.select(_VERSION.version, _VERSION.adaptation)
        query = query.where(*self._numbered(project, number))
        for text, adaptation in self._database.rows(query):
            if (version := read_json(text, Version)) is not None:
                return version, None if adaptation is None else Adaptation.from_bytes(adaptation)
        raise LearningRefused(f"Project {project} has no version {number} that can be read.")

    def _numbered(self, project: int, number: int) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of a version of the model that is in use."""
        return [*in_project(VERSIONS, project, self._model_key()), _VERSION.number == number]

    def before_after(self, project: int, number: int) -> BeforeAfter:
        """Return the pictures of what a version changes, if there are any."""
        query = sa.select(_VERSION.pictures).where(*self._numbered(project, number))
        pictures = self._database.scalar(query)
        return read_json(pictures or "{}", BeforeAfter) or BeforeAfter()

    # ---- rows --------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, project: int) -> Iterator[StateRow]:
        model = self._model_key()
        with self._database.write() as connection:
            yield StateRow.lock(connection, project, model)

    def _is_decided(self, locked: StateRow) -> bool:
        """Whether somebody has decided on a version that was made of corrections.

        Where such a version of another model is in use, they have: on the project's corrections.
        """
        return self._is_decided_here(locked) or self._is_used_with_another_model(locked)

    def _is_decided_here(self, locked: StateRow) -> bool:
        last = max(locked.row.decided, locked.row.live or 0)
        its = sa.select(_VERSION.version).where(*locked.own(VERSIONS), _VERSION.number <= last)
        read = [read_json(row, Version) for row in locked.connection.scalars(its)]
        return last > 0 and not (read and all(each and each.unlabelled for each in read))

    def _is_used_with_another_model(self, locked: StateRow) -> bool:
        is_others = sa.and_(_STATE.project == locked.row.project, _STATE.model != locked.row.model)
        is_live = _VERSION.number == _STATE.live
        joined = sa.and_(_VERSION.project == _STATE.project, _VERSION.model == _STATE.model)
        used = sa.select(_VERSION.version).where(is_others, joined, is_live)
        read = [read_json(row, Version) for row in locked.connection.scalars(used)]
        return any(each is not None and not each.unlabelled for each in read)

    def forget_pictures(self, before: float) -> int:
        """Take the pictures out of versions that were made before a time; return how many."""
        query = sa.select(
            _VERSION.project, _VERSION.model, _VERSION.number, _VERSION.version
        ).where(has_pictures(_VERSION.pictures))
        old = [
            (row.project, row.model, row.number)
            for row in self._database.rows(query)
            if (version := read_json(row.version, Version)) is None or version.created < before
        ]
        return forget_pictures(self._database, _VERSION.pictures, old)

    def _insert(
        self,
        locked: StateRow,
        version: Version,
        adaptation: Adaptation | None,
        pictures: BeforeAfter,
    ) -> Version:
        """Insert a version under the next number, unless it does and says as the newest one."""
        query = sa.select(_VERSION.version).where(*locked.own(VERSIONS))
        newest = locked.connection.scalar(query.where(_VERSION.number == locked.row.newest))
        if newest is not None and version.better:
            same = read_json(newest, Version)
            is_same = same is not None and same.digest == version.digest
            if same is not None and is_same and same.people == version.people:
                return same

        number = locked.row.newest + 1
        kept = msgspec.structs.replace(version, number=number, created=self._database.clock())
        row = {
            "project": locked.row.project,
            "model": locked.row.model,
            "number": number,
            "version": msgspec.json.encode(kept).decode(),
            "adaptation": None if adaptation is None else adaptation.to_bytes(),
            "pictures": encode_report(pictures, keeps_pictures=self._keeps_pictures),
        }
        locked.connection.execute(sa.insert(VERSIONS).values(row))
        locked.change(newest=number)
        return kept


def model_key(settings: Settings, model_id: str) -> str:
    """Return the key of what can be learned from together: weights, method, sizes, templates.

    >>> one, other = (model_key(Settings(method=m), "w1") for m in ("clearclip", "clip"))
    >>> one == other, one == model_key(Settings(method="clearclip"), "w1")
    (False, True)
    """
    parts = [model_id, settings.method, settings.resized_px, settings.templates]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def _left_out(row: sa.Row[Any]) -> tuple[str, ...]:
    """Return the keys of the people who are left out, by a row of `STATES`."""
    return tuple(sorted(json.loads(row.left_out)))


def _delete_old_versions(locked: StateRow, live: int | None) -> None:
    """Delete the oldest versions of a project beyond `MOST_VERSIONS`, but not the live one."""
    own = locked.own(VERSIONS)
    newest = sa.select(_VERSION.number).where(*own).order_by(_VERSION.number.desc())
    last = locked.connection.execute(newest.offset(MOST_VERSIONS).limit(1)).scalar()
    if last is not None:
        old = sa.delete(VERSIONS).where(
            *own, _VERSION.number <= last, _VERSION.number != (live or 0)
        )
        locked.connection.execute(old)


def _due_first(every: int, now: float) -> sa.Select[Any]:
    """Select the steps that are due and free, the longest due first."""
    has_come = is_due(_STATE.due, now, LONGEST_RETRY_S)
    query = sa.select(STATES).where(_is_step_wanted(every), has_come, _STATE.pinned == 0)
    return query.order_by(_STATE.due, _STATE.project)


def _is_step_wanted(every: int) -> sa.ColumnElement[bool]:
    """Match rows with enough changes for a step, and those for which somebody has asked."""
    annotations = (
        sa.select(sa.func.count(EXAMPLES.c.annotation.distinct()))
        .where(EXAMPLES.c.project == _STATE.project, EXAMPLES.c.model == _STATE.model)
        .scalar_subquery()
    )
    enough = sa.and_(_STATE.changed >= every, _STATE.changed >= annotations // _CHANGED_OF)
    return sa.or_(enough, _STATE.asked != 0)
