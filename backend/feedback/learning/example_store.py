"""Keeps the training examples of projects: one row for each corrected image.

Replacing or deleting an annotation replaces or deletes its rows, whichever backend wrote them. Each
change is counted in the project's state, so that a step becomes due, see
`backend.feedback.learning.step_queue`. Where the last example of a project is gone, the version
that was learned from its examples is live no more.

Whoever trusts an annotation trusts what is painted there: painted otherwise, it is judged anew. So
it is where the model in use has no example of it, which could tell.

Backends that share a database share the examples. Examples belong to one model, as features do:
those of another model stay beside them and are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, insert, or_, select, update

from backend.database.database import Database, key_batches
from backend.database.leases import RELEASED
from backend.errors import LearningRefused
from backend.feedback.learning.project_state import (
    change_state,
    count_examples,
    lock_state,
)
from backend.feedback.learning.tables import EXAMPLES, STATES, TRUSTED, VERSIONS, in_project
from backend.feedback.learning.threshold_sums import (
    change_threshold_sums,
    read_threshold_sums,
    recount_threshold_sums,
)
from backend.feedback.learning.versions import TrainingExample
from clearclip_core import Example

#: Annotations of a project that are learned from, the newest.
MOST_ANNOTATIONS: Final = 1000

_EXAMPLE: Final = EXAMPLES.c


class ExampleStore:
    """The training examples in a database, of the model in use.

    Args:
        database: where they are kept.
        model_key: returns the key of the model in use, see
            `backend.feedback.learning.model_key.model_key`; called each time, since weights may be
            downloaded later.

    >>> examples = ExampleStore(Database("sqlite://"), lambda: "demo")
    >>> examples.replace(3, 7, [TrainingExample("a", b"...", "{}")]), examples.annotations(7)
    (True, [3])
    >>> examples.forget(3), examples.annotations(7)
    (True, [])
    """

    def __init__(self, database: Database, model_key: Callable[[], str]) -> None:
        self._database = database
        self._model_key = model_key

    def replace(self, annotation: int, project: int, examples: Sequence[TrainingExample]) -> bool:
        """Replace the examples of an annotation; return whether they differ from those before.

        Args:
            annotation: its id.
            project: the id of its project.
            examples: one for each image; empty where the annotation gives none any more.

        Raises:
            ModelUnavailable: the weights are not there.
        """
        model = self._model_key()
        its = (_EXAMPLE.annotation == annotation, _EXAMPLE.model == model)
        with self._database.write() as connection:
            state = lock_state(connection, project, model)
            columns = (_EXAMPLE.project, _EXAMPLE.digest, _EXAMPLE.paint, _EXAMPLE.learned)
            query = select(*columns).where(*its).order_by(_EXAMPLE.picture)
            before = connection.execute(query).all()
            if [tuple(row[:3]) for row in before] == [
                (project, example.digest, example.threshold_counts) for example in examples
            ]:
                return False
            _end_trust_in_other_paint(connection, annotation, its, examples)
            connection.execute(delete(EXAMPLES).where(*its))
            removed: dict[int, list[str]] = {project: []}
            for row in before:
                removed.setdefault(row.project, []).append(row.paint)
            if examples:
                first = min((row.learned for row in before), default=self._database.clock())
                rows = _rows(annotation, project, model, examples, first)
                connection.execute(insert(EXAMPLES), rows)
                removed[project] += _delete_oldest(connection, project, model)
            change_state(connection, project, model, changed=state.changed + 1)
            for other, gone in sorted(removed.items()):
                new = [each.threshold_counts for each in examples] if other == project else []
                change_threshold_sums(connection, other, model, gone, new)
                _end_without_examples(connection, other, model)
        return True

    def forget(self, annotation: int) -> bool:
        """Delete the examples of an annotation, of all models; return whether there was one."""
        places = self._places(annotation)
        if not places:  # most often, and then no lock is waited for
            return False
        forgotten = False
        with self._database.write() as connection:
            for project, model in places:
                state = lock_state(connection, project, model)
                its = (_EXAMPLE.annotation == annotation, *in_project(EXAMPLES, project, model))
                gone = _delete(connection, its)
                if gone:
                    forgotten = True
                    change_state(connection, project, model, changed=state.changed + 1)
                    change_threshold_sums(connection, project, model, gone, ())
                    _end_without_examples(connection, project, model)
            connection.execute(delete(TRUSTED).where(TRUSTED.c.annotation == annotation))
        return forgotten

    def trust(self, project: int, annotation: int, trusted: bool = True) -> None:
        """Trust an annotation, so that no version sets it aside; or trust it no more.

        It is trusted as it is painted now.

        Raises:
            LearningRefused: the project has no example of it.
        """
        if trusted and annotation not in self.annotations(project):
            raise LearningRefused(f"Project {project} does not learn from annotation {annotation}.")
        row = {"project": project, "annotation": annotation}
        its = (TRUSTED.c.project == project, TRUSTED.c.annotation == annotation)
        model = self._model_key()
        with self._database.write() as connection:
            state = lock_state(connection, project, model)
            there = connection.execute(select(TRUSTED).where(*its)).first() is not None
            if there == trusted:
                return
            change = insert(TRUSTED).values(row) if trusted else delete(TRUSTED).where(*its)
            connection.execute(change)
            change_state(connection, project, model, changed=state.changed + 1)

    def trusted(self, project: int) -> list[int]:
        """Return the annotations of a project that are trusted, in ascending order."""
        query = select(TRUSTED.c.annotation).where(TRUSTED.c.project == project)
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(TRUSTED.c.annotation)))

    def is_too_old(self, annotation: int, project: int) -> bool:
        """Whether a project has `MOST_ANNOTATIONS` newer annotations than this one."""
        query = _nth_newest(project, self._model_key(), MOST_ANNOTATIONS)
        with self._database.read() as connection:
            oldest = connection.execute(query).scalar()
        return oldest is not None and annotation < oldest

    def annotations(self, project: int) -> list[int]:
        """Return the annotations that a project has examples of, in ascending order."""
        query = select(_EXAMPLE.annotation).where(*self._in(project))
        with self._database.read() as connection:
            return list(connection.scalars(query.distinct().order_by(_EXAMPLE.annotation)))

    def examples(self, project: int) -> list[TrainingExample]:
        """Return all examples of a project, ordered by their digests."""
        query = select(EXAMPLES).where(*self._in(project))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_EXAMPLE.digest, _EXAMPLE.paint))
            return [
                TrainingExample(row.digest, row.example, row.paint, row.learned, row.annotation)
                for row in rows
            ]

    def bytes_of(self, project: int, annotations: Collection[int]) -> list[bytes]:
        """Return the bytes of the examples of some annotations, in no particular order."""
        found: list[bytes] = []
        with self._database.read() as connection:
            for batch in key_batches(sorted(set(annotations))):
                query = select(_EXAMPLE.example).where(_EXAMPLE.annotation.in_(batch))
                found.extend(connection.scalars(query.where(*self._in(project))))
        return found

    def threshold_sums(self, project: int) -> str:
        """Return the sums of `TrainingExample.threshold_counts` over all examples of a project.

        Returns:
            JSON: name of the label -> its counts, of the same form as those of an example.
        """
        model = self._model_key()
        with self._database.read() as connection:
            sums = read_threshold_sums(connection, project, model)
        if sums is not None:
            return sums
        with self._database.write() as connection:
            lock_state(connection, project, model)
            return recount_threshold_sums(connection, project, model)

    def _in(self, project: int) -> tuple[Any, ...]:
        return in_project(EXAMPLES, project, self._model_key())

    def _places(self, annotation: int) -> list[tuple[int, str]]:
        """The projects and models that have examples of an annotation."""
        columns = (_EXAMPLE.project, _EXAMPLE.model)
        query = select(*columns).where(_EXAMPLE.annotation == annotation).distinct()
        ordered = query.order_by(*columns)
        with self._database.read() as connection:
            return [(row.project, row.model) for row in connection.execute(ordered)]


def _rows(
    annotation: int, project: int, model: str, examples: Sequence[TrainingExample], learned: float
) -> list[dict[str, Any]]:
    return [
        {
            "annotation": annotation,
            "model": model,
            "picture": index,
            "project": project,
            "digest": example.digest,
            "example": example.example,
            "paint": example.threshold_counts,
            "learned": learned,
        }
        for index, example in enumerate(examples)
    ]


def _delete_oldest(connection: Connection, project: int, model: str) -> list[str]:
    """Delete the examples of the oldest annotations beyond `MOST_ANNOTATIONS`, and trust in them.

    Returns:
        Their `TrainingExample.threshold_counts`.
    """
    last = connection.execute(_nth_newest(project, model, MOST_ANNOTATIONS + 1)).scalar()
    if last is None:
        return []
    of_oldest = (TRUSTED.c.project == project, TRUSTED.c.annotation <= last)
    connection.execute(delete(TRUSTED).where(*of_oldest))
    examples = in_project(EXAMPLES, project, model)
    return _delete(connection, (*examples, _EXAMPLE.annotation <= last))


def _delete(connection: Connection, which: Sequence[Any]) -> list[str]:
    """Delete examples; return their `TrainingExample.threshold_counts`."""
    gone = list(connection.scalars(select(_EXAMPLE.paint).where(*which)))
    connection.execute(delete(EXAMPLES).where(*which))
    return gone


def _nth_newest(project: int, model: str, n: int) -> Select[Any]:
    """Select the id of the n-th newest annotation that a project has examples of."""
    ids = select(_EXAMPLE.annotation).where(*in_project(EXAMPLES, project, model)).distinct()
    return ids.order_by(_EXAMPLE.annotation.desc()).offset(n - 1).limit(1)


def _end_trust_in_other_paint(
    connection: Connection, annotation: int, its: Sequence[Any], examples: Sequence[TrainingExample]
) -> None:
    """Trust an annotation no more that gets examples of other paint, or none to compare it with.

    Args:
        connection: of the transaction that replaces them.
        annotation: its id.
        its: the conditions that choose the examples it has.
        examples: those that it gets.
    """
    of_it = TRUSTED.c.annotation == annotation
    if connection.execute(select(TRUSTED).where(of_it)).first() is None:
        return
    before = list(connection.scalars(select(_EXAMPLE.example).where(*its)))
    if not before or _paint(before) != _paint([each.example for each in examples]):
        connection.execute(delete(TRUSTED).where(of_it))


def _paint(examples: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Return what is painted in examples, whatever features their images have."""
    painted: list[tuple[Any, ...]] = []
    for data in examples:
        try:
            read = Example.from_bytes(data)
        except ValueError:  # damaged
            painted.append((data,))
        else:
            covered = read.areas.tobytes(), read.coverage.tobytes()
            painted.append((read.picture.encode(), *read.names, *covered))
    return sorted(painted, key=repr)


def _end_without_examples(connection: Connection, project: int, model: str) -> None:
    """Return to the words alone where a project has no examples left.

    A version from a file stays live, and so does what is pinned.
    """
    if count_examples(connection, project, model)[1]:
        return
    imported = (
        select(VERSIONS.c.number)
        .where(*in_project(VERSIONS, project, model), VERSIONS.c.origin == "import")
        .scalar_subquery()
    )
    connection.execute(
        update(STATES)
        .where(*in_project(STATES, project, model), STATES.c.pinned == 0)
        .where(or_(STATES.c.live.is_(None), STATES.c.live.not_in(imported)))
        .values(live=None)
    )
    change_state(connection, project, model, changed=0, asked=0, **RELEASED)
