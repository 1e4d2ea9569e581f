"""Say what a run has put into a data set, and what it has skipped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clearclip_core.quantities import quantity

#: Reasons that are shown on a terminal; the file has all.
_SHOWN: Final = 10


@dataclass(frozen=True)
class DatasetReport:
    """The result of a run.

    Attributes:
        parts: name of a part -> number of its pictures.
        regions: regions of all pictures.
        changed: tasks that were read in this run.
        unlabelled: tasks of which nothing counts.
        skipped: ids of tasks that lack a picture in the data set -> the reason.
    """

    parts: Mapping[str, int]
    regions: int
    changed: int
    unlabelled: int
    skipped: Sequence[tuple[int, str]]

    @property
    def pictures(self) -> int:
        """Pictures of all parts."""
        return sum(self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """Return what ``report.json`` holds."""
        return {
            "pictures": self.pictures,
            "parts": dict(self.parts),
            "regions": self.regions,
            "tasks_read": self.changed,
            "tasks_without_annotation": self.unlabelled,
            "skipped": [{"task": task, "reason": reason} for task, reason in self.skipped],
        }

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {part}" for part, count in self.parts.items())
        lines = [
            f"{quantity(self.pictures, 'picture')} ({parts}) with "
            f"{quantity(self.regions, 'region')}; "
            f"{quantity(self.changed, 'task')} read, "
            f"{self.unlabelled} without an annotation that counts, "
            f"{len(self.skipped)} skipped."
        ]
        empty = [part for part, count in self.parts.items() if self.pictures and not count]
        if empty:
            lines.append(
                f"No picture is in {' and '.join(empty)}: parts are drawn by lot, and few pictures "
                "may miss one. Annotate more, or give another split."
            )
        lines += [f"Task {task}: {reason}" for task, reason in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            lines.append(f"… and {len(self.skipped) - _SHOWN} more, in report.json.")
        return "\n".join(lines)
