"""Leases the steps that make new versions from training examples.

A step of a project is due once enough annotations have changed, or once it is asked for::

    example ──> example ──> ... ──> due ──> leased ──> version
                             ^        │                   │
                             └────────┘ failed            └──> live, or not better

One backend at a time holds the lease of a project's step; the lease of a backend that dies ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, update

from backend.database.database import Database
from backend.database.leases import (
    LEASE_S,
    RELEASED,
    is_free,
    is_owned_by,
    leased_to,
    renewed,
)
from backend.feedback.learning.project_state import (
    change_state,
    check_step,
    count_examples,
    lock_state,
    read_state,
)
from backend.feedback.learning.tables import EXAMPLES, STATES, in_project
from backend.feedback.learning.trial_store import keep_fitted_pictures
from backend.feedback.learning.version_rows import delete_old_versions, insert_version
from backend.feedback.learning.versions import LearningState, Promotion, StepLease, Version
from clearclip_core import Adaptation

_STATE: Final = STATES.c


class StepQueue:
    """The steps of all projects in a database, for one backend.

    Args:
        database: where they are kept.
        owner: the name of this backend, see `backend.database.leases.new_owner`.
        model_key: returns the key of the model in use, see
            `backend.feedback.learning.model_key.model_key`.

    >>> StepQueue(Database("sqlite://"), "worker", lambda: "demo").lease_step(10) is None
    True
    """

    def __init__(self, database: Database, owner: str, model_key: Callable[[], str]) -> None:
        self._database = database
        self._owner = owner
        self._model_key = model_key

    def request(self, project: int) -> LearningState:
        """Make the step of a project due, however few annotations have changed.

        Raises:
            LearningRefused: the project is pinned, or it has no training examples.
        """
        model = self._model_key()
        with self._database.write() as connection:
            state = lock_state(connection, project, model)
            _, pictures = count_examples(connection, project, model)
            check_step(state.pinned, pictures, project)
            change_state(connection, project, model, asked=1, due=0.0)
            return read_state(connection, project, model)

    def lease_step(self, every: int, project: int | None = None) -> StepLease | None:
        """Lease a step that is due; None where none is, or where another backend has it.

        Args:
            every: annotations that have changed since the last step, at least; see
                `backend.feedback.learning.versions.due_after`.
            project: lease the step of this project, due or not.
        """
        model, now = self._model_key(), self._database.clock()
        query = select(STATES).where(
            _STATE.model == model, _STATE.pinned == 0, is_free(STATES, now)
        )
        if project is None:
            query = _due_first(query, every, now)
        else:
            query = query.where(_STATE.project == project)
        with self._database.write() as connection:
            if project is not None:
                lock_state(connection, project, model)
            row = connection.execute(query.limit(1).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            self._take_lease(connection, row.project, model, now)
            return StepLease(row.project, row.changed, row.live)

    @contextmanager
    def renewed(self, lease: StepLease) -> Iterator[None]:
        """Renew a lease from a thread while the block runs."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(LEASE_S / 3):
                self.renew(lease)

        keeper = threading.Thread(target=keep, name=f"step-{lease.project}", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def renew(self, lease: StepLease) -> None:
        """Renew a lease for another `LEASE_S`."""
        with self._database.write() as connection:
            connection.execute(
                update(STATES)
                .where(*in_project(STATES, lease.project, self._model_key()))
                .where(is_owned_by(STATES, self._owner))
                .values(renewed(self._database.clock()))
            )

    def commit(
        self,
        lease: StepLease,
        version: Version | None,
        adaptation: Adaptation | None,
        promotion: Promotion,
        pictures: Collection[str] = (),
    ) -> Version | None:
        """End a leased step with its result.

        A version that equals the newest one is not kept again. Where the lease has gone to another
        backend, or the examples are gone, nothing is kept. What somebody has made live meanwhile
        stays live.

        Args:
            lease: from `lease_step`.
            version: the new version; None where there are no examples.
            adaptation: what it adds to scores, where it is better than the words alone.
            promotion: whether the version goes live.
            pictures: keys of the pictures that it was fitted to.

        Returns:
            The version as it is kept; None where none is.
        """
        project, model, now = lease.project, self._model_key(), self._database.clock()
        with self._database.write() as connection:
            state = lock_state(connection, project, model)
            if not self._owns(state):
                return None
            kept = None
            if version is not None:
                kept = insert_version(connection, project, model, version, adaptation, now)
                keep_fitted_pictures(connection, project, model, kept.number, pictures)
            change_state(
                connection,
                project,
                model,
                live=_live_after(lease, state, kept, promotion),
                changed=max(0, state.changed - lease.changed),
                asked=0,
                trouble="",
                **RELEASED,
            )
            delete_old_versions(connection, project, model)
            return kept

    def release(self, lease: StepLease, trouble: str, retry_after_s: float) -> None:
        """Give back the lease of a step that has failed.

        Args:
            lease: from `lease_step`.
            trouble: why it has failed, in a sentence.
            retry_after_s: seconds until the step is due again.
        """
        project, model = lease.project, self._model_key()
        due = self._database.clock() + retry_after_s
        with self._database.write() as connection:
            if self._owns(lock_state(connection, project, model)):
                changes = {"trouble": trouble, "due": due, **RELEASED}
                change_state(connection, project, model, **changes)

    def _take_lease(self, connection: Connection, project: int, model: str, now: float) -> None:
        change_state(connection, project, model, **leased_to(self._owner, now))

    def _owns(self, state: Row[Any]) -> bool:
        return bool(state.owner == self._owner)


def _due_first(query: Select[Any], every: int, now: float) -> Select[Any]:
    """Keep the steps that are due, the longest due first."""
    annotations = (
        select(func.count(EXAMPLES.c.annotation.distinct()))
        .where(EXAMPLES.c.project == _STATE.project, EXAMPLES.c.model == _STATE.model)
        .scalar_subquery()
    )
    enough = and_(_STATE.changed >= every, _STATE.changed >= annotations // 10)
    due = query.where(or_(enough, _STATE.asked == 1), _STATE.due <= now)
    return due.order_by(_STATE.due, _STATE.project)


def _live_after(
    lease: StepLease, state: Row[Any], kept: Version | None, promotion: Promotion
) -> int | None:
    """Return the number of the version that is live after a step; None: the words alone."""
    live: int | None = state.live
    if state.pinned or live != lease.live or promotion == "stays":
        return live
    return kept.number if kept is not None and promotion == "live" else None
