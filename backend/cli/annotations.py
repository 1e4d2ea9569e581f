"""Read the annotations of a project with a progress bar, for `report` and `adapt`."""

from __future__ import annotations

import threading

from tqdm import tqdm

from backend.feedback.annotation_reader import AnnotationReader, read_all


def read_annotations(
    reader: AnnotationReader, project: int, backfill: bool, stopping: threading.Event
) -> None:
    """Read the pending annotations of a project.

    Args:
        reader: reads them.
        project: number of the project.
        backfill: first mark all annotations that the project has.
        stopping: once it is set, no further annotation is read.
    """
    with tqdm(unit="annotation", dynamic_ncols=True, desc=f"Project {project}") as bar:

        def show(count: int) -> None:
            bar.n = count
            bar.refresh()

        if backfill:
            bar.total = reader.mark_project(project)
        read_all(reader, project, stopping, show)
