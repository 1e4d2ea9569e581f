"""Store annotations in Label Studio, each once."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.errors import StudioRefused
from backend.label_studio.connection import Connection
from backend.label_studio.records import AnnotationRow, IdRow, read_annotation

_NAMESPACE: Final = uuid.UUID("6d1b6c52-3d0f-5b6e-9a53-0c5b9d3c6f1e")

#: Label Studio writes both times of a new annotation one after the other: so many seconds at most.
_WRITTEN_WITHIN_S: Final = 2.0


@dataclass
class ImportedAnnotations:
    """The annotations of a task, by their ids.

    Attributes:
        unchanged: those of an import that nobody has changed since.
        changed: those of the import that somebody has changed, or saved in the editor, and those
            without a time of their last change.
        others: all others.
    """

    unchanged: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


class AnnotationWriter:
    """Stores annotations that were made elsewhere.

    Label Studio keeps a number with each, by which those of one import are found again, and a
    unique id, by which it refuses to store one twice.

    Args:
        connection: Label Studio.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, task: int, version: str, result: Sequence[Any]) -> str:
        """Store an annotation of a task; one that an import of that version has is no error.

        Args:
            task: id of the task.
            version: what the import is called.
            result: its regions.

        Returns:
            The reason where Label Studio refuses it, else nothing.

        Raises:
            StudioUnreachable: Label Studio does not answer.
        """
        unique = str(uuid.uuid5(_NAMESPACE, f"{task}/{version}"))
        try:
            self._connection.call(
                "POST",
                f"/api/tasks/{task}/annotations/",
                IdRow,
                {"result": list(result), "import_id": import_id(version), "unique_id": unique},
            )
        except StudioRefused as error:
            # A request whose answer was lost may have been stored.
            return "" if error.status == 409 else str(error)
        return ""

    def find_imported(self, task: int, version: str) -> ImportedAnnotations:
        """Return a task's annotations of an import, those that were changed since apart.

        Raises:
            BadRequest: the annotations are too large to be read.
            StudioUnreachable: Label Studio does not answer.
        """
        place = f"/api/tasks/{task}/annotations/"
        listed = self._connection.find(place, list[AnnotationRow], whose="annotations")
        found = ImportedAnnotations()
        for each in map(read_annotation, listed or ()):
            if each.import_id != import_id(version):
                found.others.append(each.id)
            elif each.seconds is None and 0 < each.updated <= each.created + _WRITTEN_WITHIN_S:
                found.unchanged.append(each.id)
            else:
                found.changed.append(each.id)
        return found

    def delete(self, annotation: int) -> None:
        """Delete an annotation; one that is gone already is no error.

        Raises:
            StudioRefused: the token may not remove it.
            StudioUnreachable: Label Studio does not answer.
        """
        self._connection.find(f"/api/annotations/{annotation}/", IdRow, method="DELETE")


def import_id(version: str) -> int:
    """Return the number by which the annotations of an import are found: 53 bits of a digest.

    >>> import_id("masks") == import_id("masks") < 1 << 53
    True
    """
    digest = hashlib.blake2b(version.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11  # JavaScript reads such numbers exactly
