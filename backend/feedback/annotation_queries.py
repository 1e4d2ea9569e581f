"""Reads what was read of annotations from the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import func, select

from backend.database.database import MAX_KEYS, Database, key_batches
from backend.feedback import sum_store
from backend.feedback.annotation_table import ANNOTATIONS, read_in
from backend.feedback.read_annotation import AnnotationOrigin, ReadAnnotation
from backend.feedback.sums import ProjectSums, Step

_ROW: Final = ANNOTATIONS.c


class AnnotationQueries:
    """Reads what was read of annotations, and changes nothing.

    Args:
        database: where the annotations are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, project: int) -> list[ReadAnnotation]:
        """Return what was read of a project's annotations, in the order of their creation."""
        return list(self.stream(project))

    def stream(self, project: int) -> Iterator[ReadAnnotation]:
        """Yield what was read of a project's annotations one by one: 100,000 at once take 1 GB."""
        query = select(ANNOTATIONS).where(_ROW.project == project, _ROW.kind != "")
        ordered = query.order_by(_ROW.created, _ROW.annotation)
        with self._database.stream() as connection:
            yield from map(
                read_in, connection.execute(ordered.execution_options(yield_per=MAX_KEYS))
            )

    def sums(self, project: int, step: Step | None = None) -> ProjectSums:
        """Return the sums of a project, in a time that does not grow with its annotations.

        Args:
            project: its id.
            step: the length of a period, see `ProjectSums.of`.

        Raises:
            ValueError: `step` is neither day nor week.
        """
        with self._database.read() as connection:
            return sum_store.read_sums(connection, project, step)

    def tasks(self, annotations: Iterable[int]) -> dict[int, int]:
        """Return annotation -> its task, of those among some annotations that were read."""
        found: dict[int, int] = {}
        with self._database.read() as connection:
            for batch in key_batches(sorted(set(annotations))):
                columns = select(_ROW.annotation, _ROW.task)
                query = columns.where(_ROW.annotation.in_(batch), _ROW.task > 0)
                found.update((row.annotation, row.task) for row in connection.execute(query))
        return found

    def project_tasks(self, project: int) -> list[int]:
        """Return the tasks of a project of which anything was read, in ascending order."""
        query = select(_ROW.task).where(_ROW.project == project, _ROW.kind != "", _ROW.task > 0)
        with self._database.read() as connection:
            return sorted(connection.scalars(query.distinct()))

    def newest_times(self, project: int, kind: AnnotationOrigin, limit: int) -> list[float]:
        """Return how long the newest measured annotations of a kind took, in seconds."""
        its = (_ROW.project == project, _ROW.kind == kind, _ROW.seconds > 0)
        newest = select(_ROW.seconds).where(*its).order_by(_ROW.created.desc()).limit(limit)
        with self._database.read() as connection:
            return list(connection.scalars(newest))

    def count_open(self, project: int | None = None) -> int:
        """Return how many annotations are still to be read."""
        query = select(func.count()).where(_ROW.open == 1)
        if project is not None:
            query = query.where(_ROW.project == project)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def projects(self) -> list[int]:
        """Return the projects of which anything was read, in ascending order."""
        with self._database.read() as connection:
            return sum_store.list_projects(connection)
