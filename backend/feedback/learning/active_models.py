"""Finds what predictions of a project use: the live version, in the mode of the label config."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Final

from cachetools import LRUCache
from sqlalchemy import Connection, and_, select
from sqlalchemy.exc import SQLAlchemyError

from backend.database.database import Database
from backend.feedback.learning.tables import STATES, VERSIONS, in_project
from backend.feedback.learning.version_registry import VersionRegistry
from backend.feedback.learning.version_rows import adaptation_from_row, version_from_row
from backend.feedback.learning.versions import ActiveModel, Version, use
from backend.settings import Adapt
from clearclip_core import Adaptation

log = logging.getLogger(__name__)

#: Projects whose live version is kept in memory.
_CACHED_PROJECTS: Final = 256

_VERSION: Final = VERSIONS.c

_Live = tuple[Version, Adaptation | None]


class ActiveModels:
    """The active models of all projects; the live version of each is cached.

    Args:
        database: the one of the registry.
        registry: the versions.
    """

    def __init__(self, database: Database, registry: VersionRegistry) -> None:
        self._database = database
        self._registry = registry
        self._lock = threading.Lock()
        self._cache: LRUCache[tuple[int, str], _Live | None] = LRUCache(_CACHED_PROJECTS)

    def get(self, project: int | None, mode: Adapt) -> ActiveModel | None:
        """Return what predictions of a project use now; None: the words alone.

        While the database cannot be reached, the last answer for the project counts.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        if project is None or mode == "off":
            return None
        key = project, self._registry.model_key
        try:
            live = self._read_live(*key)
        except SQLAlchemyError as error:
            log.warning("The database of what projects have learned: %s", error)
            live = self._cached(*key)
        except ValueError as error:  # another release wrote it
            log.warning("What project %d has learned cannot be used: %s", project, error)
            live = None
        else:
            with self._lock:
                self._cache[key] = live
        return None if live is None else use(*live, mode)

    def earlier(self, project: int | None, mode: Adapt) -> Iterator[ActiveModel | None]:
        """Yield what predictions of a project may have used: the newest version first, then None.

        Yields nothing where the words alone decide now.
        """
        if project is None or self.get(project, mode) is None:
            return
        for version in self._registry.versions(project):
            yield use(*self._registry.version(project, version.number), mode)
        yield None

    def _cached(self, project: int, model: str) -> _Live | None:
        with self._lock:
            return self._cache.get((project, model))

    def _read_live(self, project: int, model: str) -> _Live | None:
        """Read the live version; its adaptation only where the cache has another version."""
        with self._database.read() as connection:
            key = _live_key(connection, project, model)
            if key is None:
                return None
            cached = self._cached(project, model)
            if cached and (cached[0].number, cached[0].digest, cached[0].created) == key:
                return cached
            of_project = in_project(VERSIONS, project, model)
            whole = select(VERSIONS).where(*of_project, _VERSION.number == key[0])
            found = connection.execute(whole).first()
        return None if found is None else (version_from_row(found), adaptation_from_row(found))


def _live_key(connection: Connection, project: int, model: str) -> tuple[int, str, float] | None:
    """Read number, digest and time of the live version of a project."""
    is_live = and_(
        STATES.c.project == _VERSION.project,
        STATES.c.model == _VERSION.model,
        STATES.c.live == _VERSION.number,
    )
    query = select(_VERSION.number, _VERSION.digest, _VERSION.created).join(STATES, is_live)
    row = connection.execute(query.where(*in_project(VERSIONS, project, model))).first()
    return None if row is None else (row.number, row.digest, row.created)
