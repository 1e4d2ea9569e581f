"""Describe the last report on a project, and the run that makes the next one."""

from __future__ import annotations

from typing import Any, Protocol

from backend.database.project_reports import Report, StoredReport


class DescribedRun(Protocol):
    """A run over a project, such as `ProjectRun`."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it will change any more."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""


def describe_last(
    project: int, last: StoredReport[Report] | None, run: DescribedRun | None, *, pictures: bool
) -> dict[str, Any]:
    """Return what a page shows, as JSON; while a run waits or runs, without pictures.

    Args:
        project: its id.
        last: the last report; None where there is none.
        run: the run that was asked for last; None where there is none.
        pictures: with the pictures of the report.
    """
    pictures = pictures and (run is None or run.is_over)  # the page loads itself all the time
    return {
        "project": project,
        "run": None if run is None else run.to_json(),
        "finished": None if last is None else last.finished,
        "report": None if last is None else last.report.to_json(pictures=pictures),
    }
