"""Keeps what versions do after they went live: their trials, and what was rolled back.

A trial begins when the live version of a project is first asked for. What was on trial before it
is the version that it is compared with, where that has a lower number. Backends that share a
database share the trials; each picture counts once for a version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from backend.database.database import Database
from backend.feedback.learning.project_state import change_state, lock_state
from backend.feedback.learning.tables import (
    FITTED_PICTURES,
    ROLLBACKS,
    TRIAL_PICTURES,
    TRIALS,
    VERSIONS,
    in_project,
)
from backend.feedback.learning.trials import Rollback, Trial, TrialPicture, find_rollback

_PICTURE: Final = TRIAL_PICTURES.c


class TrialStore:
    """The trials in a database, of the model in use.

    Args:
        database: where they are kept.
        model_key: returns the key of the model in use, see
            `backend.feedback.learning.model_key.model_key`.

    >>> TrialStore(Database("sqlite://"), lambda: "demo").current(7) is None
    True
    """

    def __init__(self, database: Database, model_key: Callable[[], str]) -> None:
        self._database = database
        self._model_key = model_key

    def current(self, project: int) -> Trial | None:
        """Return the trial of the live version, begun now where it is new; None: none is live."""
        model, now = self._model_key(), self._database.clock()
        its = in_project(TRIALS, project, model)
        with self._database.write() as connection:
            live = lock_state(connection, project, model).live
            row = connection.execute(select(TRIALS).where(*its)).first()
            last = None if row is None else _trial(row)
            if live is None:
                _end(connection, project, model)
                return None
            if last is not None and last.number == live:
                return last
            begun = _begin(connection, project, model, live, last, now)
            _replace(connection, project, model, begun)
            return begun

    def fitted_pictures(self, project: int, number: int) -> frozenset[str] | None:
        """Return the keys of the pictures that a version was fitted to; None: nobody knows."""
        its = in_project(FITTED_PICTURES, project, self._model_key())
        query = select(FITTED_PICTURES.c.pictures)
        with self._database.read() as connection:
            found = connection.execute(query.where(*its, FITTED_PICTURES.c.number == number))
            text = found.scalar()
        return None if text is None else frozenset(json.loads(text))

    def pictures(self, project: int) -> list[TrialPicture]:
        """Return the pictures of a project's trials, in the order in which they came."""
        with self._database.read() as connection:
            return _pictures(connection, project, self._model_key())

    def add(self, project: int, pictures: Sequence[TrialPicture], digest: str) -> Rollback | None:
        """Keep pictures of a trial, and roll the version back where they ask for it.

        A picture that is there already does not count again. Nothing is kept where another version
        is live by now. While the project is pinned, what is live stays.

        Args:
            project: its id.
            pictures: of one version.
            digest: of its adaptation.

        Returns:
            What was rolled back; None where nothing was.
        """
        model, now = self._model_key(), self._database.clock()
        with self._database.write() as connection:
            state = lock_state(connection, project, model)
            its = in_project(TRIALS, project, model)
            row = connection.execute(select(TRIALS).where(*its)).first()
            if row is None or state.live != row.number:
                return None
            trial = _trial(row)
            _insert_new(connection, project, model, trial.number, pictures, now)
            found = find_rollback(trial, _pictures(connection, project, model), digest)
            if found is None or state.pinned:
                return None
            return _roll_back(connection, project, model, replace(found, at=now))

    def rollbacks(self, project: int | None = None, limit: int = 20) -> list[tuple[int, Rollback]]:
        """Return projects with what was rolled back in them, the newest first.

        Args:
            project: of this project only.
            limit: at most so many.
        """
        with self._database.read() as connection:
            return read_rollbacks(connection, self._model_key(), project, limit)


def read_rollbacks(
    connection: Connection, model: str, project: int | None = None, limit: int = 20
) -> list[tuple[int, Rollback]]:
    """Return projects with what was rolled back in them, the newest first; at most `limit`."""
    query = select(ROLLBACKS).where(ROLLBACKS.c.model == model)
    if project is not None:
        query = query.where(ROLLBACKS.c.project == project)
    rows = connection.execute(query.order_by(ROLLBACKS.c.id.desc()).limit(limit))
    return [
        (row.project, Rollback.from_facts(row.number, row.target, row.at, row.facts))
        for row in rows
    ]


def keep_fitted_pictures(
    connection: Connection, project: int, model: str, number: int, pictures: Collection[str]
) -> None:
    """Keep the pictures that a version was fitted to, in place of those that are kept of it."""
    its = in_project(FITTED_PICTURES, project, model)
    connection.execute(delete(FITTED_PICTURES).where(*its, FITTED_PICTURES.c.number == number))
    row = {"project": project, "model": model, "number": number}
    row["pictures"] = json.dumps(sorted(set(pictures)))
    connection.execute(insert(FITTED_PICTURES).values(row))


def _trial(row: Row[Any]) -> Trial:
    return Trial(row.number, row.before, row.since)


def _begin(
    connection: Connection, project: int, model: str, live: int, last: Trial | None, now: float
) -> Trial:
    """Begin the trial of a version; the one on trial before it must be there and be older."""
    if last is None:
        return Trial(live, None, now)
    query = select(VERSIONS.c.number).where(*in_project(VERSIONS, project, model))
    is_there = connection.execute(query.where(VERSIONS.c.number == last.number)).first() is not None
    before = last.number if is_there and last.number < live else None
    return Trial(live, before, now)


def _end(connection: Connection, project: int, model: str) -> None:
    """Delete the trial of a project and its pictures."""
    for table in (TRIALS, TRIAL_PICTURES):
        connection.execute(delete(table).where(*in_project(table, project, model)))


def _replace(connection: Connection, project: int, model: str, trial: Trial) -> None:
    connection.execute(delete(TRIALS).where(*in_project(TRIALS, project, model)))
    row = {
        "project": project,
        "model": model,
        "number": trial.number,
        "before": trial.before,
        "since": trial.since,
    }
    connection.execute(insert(TRIALS).values(row))


def _pictures(connection: Connection, project: int, model: str) -> list[TrialPicture]:
    query = select(TRIAL_PICTURES).where(*in_project(TRIAL_PICTURES, project, model))
    rows = connection.execute(query.order_by(_PICTURE.at, _PICTURE.number, _PICTURE.picture))
    return [
        TrialPicture(
            row.number, row.picture, row.annotation, row.from_before, row.from_words, row.at
        )
        for row in rows
    ]


def _insert_new(
    connection: Connection,
    project: int,
    model: str,
    number: int,
    pictures: Sequence[TrialPicture],
    now: float,
) -> None:
    its = (*in_project(TRIAL_PICTURES, project, model), _PICTURE.number == number)
    known = set(connection.scalars(select(_PICTURE.picture).where(*its)))
    for each in pictures:
        if each.number == number and each.picture not in known:
            known.add(each.picture)
            row = {
                "project": project,
                "model": model,
                "number": number,
                "picture": each.picture,
                "annotation": each.annotation,
                "from_before": each.from_before,
                "from_words": each.from_words,
                "at": now,
            }
            connection.execute(insert(TRIAL_PICTURES).values(row))


def _roll_back(connection: Connection, project: int, model: str, rollback: Rollback) -> Rollback:
    """Make the target live, and begin its trial anew, against the words alone."""
    change_state(connection, project, model, live=rollback.target)
    _end(connection, project, model)
    if rollback.target is not None:
        _replace(connection, project, model, Trial(rollback.target, None, rollback.at))
    connection.execute(
        insert(ROLLBACKS).values(
            project=project,
            model=model,
            number=rollback.number,
            target=rollback.target,
            at=rollback.at,
            facts=rollback.facts,
        )
    )
    return rollback
