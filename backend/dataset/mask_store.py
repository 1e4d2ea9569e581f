"""Store masks in a project as predictions or annotations, once for each task and version."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.dataset.import_options import ImportOptions
from backend.errors import BadRequest
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.prediction_list import UNLISTED, list_to_change
from backend.label_studio.task_filter import TaskFilter

#: Regions as entries of a result of Label Studio.
Result = Sequence[Mapping[str, Any]]

_CHANGED: Final = "somebody has changed the annotation of this import, or begun to"


@dataclass
class StoredMasks:
    """Tasks that have masks or annotations already, by their ids.

    Attributes:
        present: those with masks of this version.
        changed: those of `present` whose annotation somebody has changed since, or begun to.
        others: those without masks of this version that have other annotations, and those whose
            annotations are too large to be read; none where masks are predictions.
    """

    present: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)

    def kept(self) -> dict[int, str]:
        """Return why masks of tasks are not replaced."""
        return {task: f"task {task}: {_CHANGED}" for task in sorted(self.changed)}


class MaskStore:
    """Stores the masks of one import in one project.

    Args:
        client: Label Studio.
        project: id of the project.
        options: the version, and whether it is one of predictions or of annotations.
    """

    def __init__(self, client: LabelStudioClient, project: int, options: ImportOptions) -> None:
        self._client = client
        self._project = project
        self._version = options.version
        self._predicts = options.kind == "predictions"

    def find(self, tasks: Sequence[int]) -> StoredMasks:
        """Find the tasks that have masks already.

        Args:
            tasks: ids to choose from, in ascending order.

        Raises:
            StudioRefused: there is no such project for this token.
            StudioUnreachable: Label Studio does not answer.
        """
        if self._predicts:
            wanted = TaskFilter(with_version=self._version)
            return StoredMasks(set(self._client.ids(self._project, wanted, tasks)))
        stored = StoredMasks()
        for task in self._client.ids(self._project, TaskFilter(labeled=True), tasks):
            try:
                found = self._client.annotation_writer.find_imported(task, self._version)
            except BadRequest:  # too many to be read
                stored.others.add(task)
                continue
            if found.changed:
                stored.changed.add(task)
            if found.changed or found.unchanged:
                stored.present.add(task)
            elif found.others:
                stored.others.add(task)
        stored.changed |= stored.present & self._drafted(sorted(stored.present))
        return stored

    def write(self, results: Mapping[int, Result], replaced: Container[int]) -> dict[int, str]:
        """Store the masks of tasks, but not of those that have masks of this version.

        Args:
            results: id of a task -> its regions.
            replaced: tasks whose masks of this version are removed before.

        Returns:
            Id of each task whose masks Label Studio refuses -> the reason.

        Raises:
            StudioRefused: the token may not write there.
            StudioUnreachable: Label Studio does not answer.
        """
        unread: dict[int, str] = {}
        for task in results:
            if task in replaced:
                try:
                    self._remove(task)
                except BadRequest as error:
                    unread[task] = str(error)
        return unread | self._write({t: each for t, each in results.items() if t not in unread})

    def _write(self, results: Mapping[int, Result]) -> dict[int, str]:
        if self._predicts:
            entries = {task: self._prediction(result) for task, result in results.items()}
            return self._client.write(self._project, self._version, entries)
        reasons = {
            task: self._client.annotation_writer.write(
                task, self._version, [*map(_as_drawn, result)]
            )
            for task, result in results.items()
        }
        return {task: reason for task, reason in reasons.items() if reason}

    def _prediction(self, result: Result) -> dict[str, Any]:
        scores = [float(entry["score"]) for entry in result]
        score = round(sum(scores) / len(scores), 6) if scores else 0.0
        return {"model_version": self._version, "score": score, "result": list(result)}

    def _remove(self, task: int) -> None:
        """Remove the masks of this version from a task.

        Raises:
            BadRequest: the annotations or predictions of the task are too large to be read, or
                somebody has changed its annotation of this version.
        """
        if not self._predicts:
            annotations = self._client.annotation_writer.find_imported(task, self._version)
            if annotations.changed or self._drafted([task]):  # meanwhile
                raise BadRequest(_CHANGED)
            for annotation in annotations.unchanged:
                self._client.annotation_writer.delete(annotation)
            return
        found = list_to_change(self._client, task)
        if found is None:
            raise BadRequest(UNLISTED)
        for stored in found:
            if stored.version == self._version:
                self._client.delete(stored.id)

    def _drafted(self, tasks: Sequence[int]) -> set[int]:
        """Return those of some tasks with a draft, which is deleted with its annotation."""
        if not tasks:
            return set()
        return set(self._client.ids(self._project, TaskFilter(drafted=True), tasks))


def _as_drawn(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a region as an annotator leaves one: without a score, which only models give."""
    return {key: value for key, value in entry.items() if key != "score"} | {"origin": "manual"}
