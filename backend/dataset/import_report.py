"""What an import of masks would do, and what it has done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.dataset.task_matching import Unmatched
from clearclip_core.quantities import quantity

#: Lines of one kind that are shown; the report file has all of them.
_SHOWN: Final = 10


@dataclass(frozen=True)
class ImportPlan:
    """What an import would write.

    Attributes:
        project: id of the project.
        version: name of the import.
        kind: "predictions" or "annotations".
        files: files of masks; of one file with many, the pictures in it.
        matched: those of them that match an image.
        ready: tasks whose masks have no problem and are to be written.
        present: tasks that have this version already, which stays.
        replaced: tasks whose earlier masks of this version are replaced.
        tasks_without: tasks of the project that no mask is for.
        left_out: files of masks that are not to be written, and why.
        problems: sentences about masks that cannot be written.
        classes: class -> its label and control, and number of images that have it; an empty text
            where it has none.
    """

    project: int
    version: str
    kind: str
    files: int
    matched: int
    ready: int
    present: int
    replaced: int
    tasks_without: int
    left_out: Sequence[Unmatched]
    problems: Sequence[str]
    classes: Mapping[str, tuple[str, int]]

    def __str__(self) -> str:
        lines = [
            f'Project {self.project}, {self.kind} of the version "{self.version}":',
            f"{quantity(self.files, 'file')} of masks, {self.matched} for a picture of a task; "
            f"{quantity(self.tasks_without, 'task')} without masks.",
            f"{quantity(self.ready, 'task')} to write; {self.present} with this version already, "
            f"{self.replaced} with it replaced.",
        ]
        if self.classes:
            lines.append("Classes:")
            lines += [
                f"  {name} -> {label or 'no label'}, in {quantity(count, 'picture')}"
                for name, (label, count) in self.classes.items()
            ]
        lines += _listed("Left out:", [f"{each.where}: {each.reason}." for each in self.left_out])
        lines += _listed("Cannot be written:", self.problems)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as `--report` writes it."""
        return {
            "project": self.project,
            "version": self.version,
            "kind": self.kind,
            "files": self.files,
            "matched": self.matched,
            "ready": self.ready,
            "present": self.present,
            "replaced": self.replaced,
            "tasks_without": self.tasks_without,
            "left_out": [{"file": each.where, "reason": each.reason} for each in self.left_out],
            "problems": list(self.problems),
            "classes": {
                name: {"label": label, "pictures": count}
                for name, (label, count) in self.classes.items()
            },
        }


@dataclass(frozen=True)
class ImportReport:
    """What an import has written.

    Attributes:
        written: tasks whose masks Label Studio has stored.
        left: tasks that were not begun, since the import was stopped.
        refused: task -> why Label Studio has refused its masks.
    """

    written: int
    left: int
    refused: Mapping[int, str]

    def __str__(self) -> str:
        written = quantity(self.written, "task")
        lines = [f"{written} written, {len(self.refused)} refused, {self.left} left."]
        lines += _listed("Refused:", [f"task {t}: {why}" for t, why in self.refused.items()])
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as `--report` writes it."""
        refused = {str(task): reason for task, reason in self.refused.items()}
        return {"written": self.written, "left": self.left, "refused": refused}


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    """Return the first sentences as lines under a title; nothing where there are none."""
    lines = [title, *(f"  {each}" for each in sentences[:_SHOWN])] if sentences else []
    more = len(sentences) - _SHOWN
    return [*lines, f"  and {more} more"] if more > 0 else lines
