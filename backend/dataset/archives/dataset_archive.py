"""A data set that was asked for on the page, with its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from backend.dataset.archives.archive_request import ArchiveRequest

ArchiveState = Literal["queued", "running", "done", "failed"]

#: States in which nothing more happens.
OVER: Final = ("done", "failed")


@dataclass(frozen=True)
class DatasetArchive:
    """An archive. Times are in seconds since the epoch.

    Attributes:
        id: its number.
        request: what is in it.
        state: "queued" until a backend makes it, "running", and at the end "done" or "failed".
        folder: name of its folder in the folder of archives.
        owner: who makes or has made it.
        done: tasks that were read.
        total: tasks of the project; None where it is not known.
        reason: why it has failed; empty otherwise.
        report: counts, and the first tasks that were skipped, see `DatasetReport.to_json`.
        size_bytes: of the file.
        created: when it was asked for.
        started: when it was begun; None before.
        finished: when it was done or had failed; None before.
    """

    id: int
    request: ArchiveRequest
    state: ArchiveState
    folder: str
    owner: str = ""
    done: int = 0
    total: int | None = None
    reason: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    created: float = 0.0
    started: float | None = None
    finished: float | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in OVER

    @property
    def file_name(self) -> str:
        """Name under which a browser saves it."""
        formats = "-".join(self.request.formats)
        return f"project-{self.request.project}-{formats}-{self.id}.zip"
