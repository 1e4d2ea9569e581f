"""``clearclip-backend report``: what the prelabels of a project save."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import click
from rich.console import Console

from backend.cli.options import (
    OUTPUT_FILE,
    backfill_option,
    map_option,
    progress_bar,
    project_option,
    read_renamings,
    stopped_by_signals,
    with_settings,
    write_text,
)
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.report.hours_left import estimate
from backend.feedback.report.statistics import PrelabelReport
from backend.feedback.report.tables import print_report
from backend.label_studio.client import required_client
from backend.services import Services
from backend.settings import Settings


def read_annotations(
    reader: AnnotationReader, project: int, backfill: bool, stopping: threading.Event
) -> None:
    """Read the pending annotations of a project."""
    with progress_bar(f"Project {project}", "annotation") as show:
        total = reader.mark_project(project) if backfill else None
        reader.read_all(project, stopping, lambda done: show(done, total))


@click.command()
@project_option
@backfill_option
@map_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def report(
    settings: Settings,
    project: int,
    backfill: bool,
    renamed: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Report how much work the prelabels of a project save, and how many hours are left.

    The backend that serves reads annotations as they are submitted. Where LABEL_STUDIO_API_KEY is
    set, the command first reads those that it has not read yet.
    """
    services = Services(settings)
    client = services.page_client  # somebody waits
    if backfill:
        client = required_client(services.client, "Annotations are read from Label Studio")
    services.database.check()
    if client is not None:  # without a token there is nothing to read them with
        with stopped_by_signals(services.stopping):
            reader = AnnotationReader(services.annotations, client)
            read_annotations(reader, project, backfill, services.stopping)
    annotations = services.annotations
    waiting = annotations.count_open(project)
    sums = annotations.sums(project).renamed(read_renamings(renamed))
    savings = PrelabelReport(project, sums, waiting, estimate(annotations, client, project))
    if json_file is not None:
        write_text(json_file, json.dumps(savings.figures(), indent=2) + "\n")
    is_complete = backfill and not services.stopping.is_set()
    print_report(savings, Console(), is_complete=is_complete)
    if services.stopping.is_set():
        raise SystemExit(130)
