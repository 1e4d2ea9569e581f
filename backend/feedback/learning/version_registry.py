"""Keeps the numbered versions of what projects have learned, and which of them is live.

At most one version of a project is live: predictions use it. None is live before the first one, and
as soon as the project has no training example left. While a project is pinned, what is live stays.

Backends that share a database share the versions. Versions belong to one model, as features do:
those of another model stay beside them and are not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, func, select

from backend.database.database import Database
from backend.database.leases import RELEASED
from backend.errors import LearningRefused
from backend.feedback.learning.project_state import (
    change_state,
    check_not_pinned,
    count_examples,
    lock_state,
    read_state,
)
from backend.feedback.learning.tables import (
    EXAMPLES,
    OF_TRIALS,
    STATES,
    TRUSTED,
    VERSIONS,
    in_project,
)
from backend.feedback.learning.threshold_sums import THRESHOLD_SUMS
from backend.feedback.learning.trial_store import read_rollbacks
from backend.feedback.learning.version_rows import (
    adaptation_from_row,
    insert_version,
    version_from_row,
)
from backend.feedback.learning.versions import LearningState, Summary, Version
from backend.settings import Adapt
from clearclip_core import Adaptation

_VERSION: Final = VERSIONS.c

#: Rollbacks of all projects that a summary names.
_ROLLBACKS_SHOWN: Final = 5


class VersionRegistry:
    """The versions in a database, of the model in use.

    Args:
        database: where they are kept.
        model_key: returns the key of the model in use, see
            `backend.feedback.learning.model_key.model_key`; called each time, since weights may be
            downloaded later.

    >>> registry = VersionRegistry(Database("sqlite://"), lambda: "demo")
    >>> registry.import_version(7, Version(20, 21, "a", better=False), None).number
    1
    >>> registry.state(7).live, registry.pin(7).pinned
    (1, True)
    """

    def __init__(self, database: Database, model_key: Callable[[], str]) -> None:
        self._database = database
        self._model_key = model_key

    @property
    def model_key(self) -> str:
        """The key of the model in use.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        return self._model_key()

    # ---- what is live ------------------------------------------------------------------------

    def pin(self, project: int, pinned: bool = True) -> LearningState:
        """Pin what is live in a project, or unpin it."""
        model = self.model_key
        with self._database.write() as connection:
            lock_state(connection, project, model)
            change_state(connection, project, model, pinned=int(pinned), due=0.0)
        return self.state(project)

    def roll_back(
        self, project: int, number: int | None = None, mode: Adapt = "scores"
    ) -> LearningState:
        """Make an earlier version live, and pin it.

        A version that was not better than the words counts where thresholds are used: where the
        mode says so, or where such a version is live.

        Args:
            project: its id.
            number: of the version; 0 for the words alone; by default the last version before the
                live one, and the words alone where there is none.
            mode: what follows corrections, as far as it is known.

        Raises:
            LearningRefused: there is no such version, or nothing is live to go back from.
        """
        model = self.model_key
        with self._database.write() as connection:
            live = lock_state(connection, project, model).live
            known = select(_VERSION.number, _VERSION.better)
            rows = connection.execute(known.where(*in_project(VERSIONS, project, model)))
            better = {row.number: bool(row.better) for row in rows}
            by_thresholds = mode in ("thresholds", "all") or not better.get(live, True)
            usable = [each for each in better if better[each] or by_thresholds]
            if number is None:
                target = _version_before(live, usable, project)
            elif number and number not in usable:
                end = "." if by_thresholds else " that was better than the words."
                raise LearningRefused(f"Project {project} has no version {number}{end}")
            else:
                target = number or None
            change_state(connection, project, model, live=target, pinned=1)
        return self.state(project)

    def import_version(
        self, project: int, version: Version, adaptation: Adaptation | None
    ) -> Version:
        """Keep a version from elsewhere, and make it live.

        Raises:
            LearningRefused: the project is pinned.
        """
        model, now = self.model_key, self._database.clock()
        with self._database.write() as connection:
            check_not_pinned(lock_state(connection, project, model).pinned, project)
            kept = insert_version(connection, project, model, version, adaptation, now)
            change_state(connection, project, model, live=kept.number)
        return kept

    def reset(self, project: int, keep_examples: bool = False) -> LearningState:
        """Delete all versions of a project, what they did, and the pin.

        The examples, and which annotations are trusted, are deleted too unless they are kept.
        """
        model = self.model_key
        with self._database.write() as connection:
            lock_state(connection, project, model)
            of_examples = () if keep_examples else (EXAMPLES, THRESHOLD_SUMS)
            deleted = (VERSIONS, *OF_TRIALS, *of_examples)
            for table in deleted:
                connection.execute(delete(table).where(*in_project(table, project, model)))
            if not keep_examples:
                connection.execute(delete(TRUSTED).where(TRUSTED.c.project == project))
            _reset_state(connection, project, model)
        return self.state(project)

    # ---- what there is -----------------------------------------------------------------------

    def state(self, project: int) -> LearningState:
        """Return where a project stands."""
        with self._database.read() as connection:
            return read_state(connection, project, self.model_key)

    def projects(self) -> list[int]:
        """Return the projects that have ever had examples or versions, in ascending order."""
        query = select(STATES.c.project).where(STATES.c.model == self.model_key)
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(STATES.c.project)))

    def summary(self) -> Summary:
        """Return counts over all projects, and the version of the last step."""
        model = self.model_key
        live = select(func.count()).where(STATES.c.model == model, STATES.c.live.is_not(None))
        pictures = select(func.count()).where(EXAMPLES.c.model == model)
        steps = select(VERSIONS).where(_VERSION.model == model, _VERSION.origin == "step")
        with self._database.read() as connection:
            newest = connection.execute(steps.order_by(_VERSION.created.desc()).limit(1)).first()
            return Summary(
                int(connection.execute(live).scalar_one()),
                int(connection.execute(pictures).scalar_one()),
                None if newest is None else version_from_row(newest),
                tuple(read_rollbacks(connection, model, limit=_ROLLBACKS_SHOWN)),
            )

    def versions(self, project: int) -> list[Version]:
        """Return the versions of a project, the newest first."""
        columns = [column for column in VERSIONS.columns if column.name != "adaptation"]
        query = select(*columns).where(*in_project(VERSIONS, project, self.model_key))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_VERSION.number.desc()))
            return [version_from_row(row) for row in rows]

    def version(self, project: int, number: int) -> tuple[Version, Adaptation | None]:
        """Return one version and its adaptation.

        Raises:
            LearningRefused: the project has no version of that number.
        """
        of_project = in_project(VERSIONS, project, self.model_key)
        query = select(VERSIONS).where(*of_project, _VERSION.number == number)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise LearningRefused(f"Project {project} has no version {number}.")
        return version_from_row(row), adaptation_from_row(row)

    def live_version(self, project: int) -> tuple[Version, Adaptation | None]:
        """Return the live version and its adaptation, to export it.

        Raises:
            LearningRefused: none is live.
        """
        live = self.state(project).live
        if live is None:
            raise LearningRefused(
                f"Project {project} uses the words alone: there is nothing to export."
            )
        return self.version(project, live)


def _version_before(live: int | None, usable: list[int], project: int) -> int | None:
    """Return the last usable version before the live one; None: the words alone."""
    if live is None:
        raise LearningRefused(
            f"Project {project} uses the words alone: there is nothing to go back from."
        )
    return max((each for each in usable if each < live), default=None)


def _reset_state(connection: Connection, project: int, model: str) -> None:
    """Set a project's row to that of a project without versions."""
    change_state(
        connection,
        project,
        model,
        live=None,
        pinned=0,
        changed=count_examples(connection, project, model)[0],
        asked=0,
        trouble="",
        due=0.0,
        **RELEASED,
    )
