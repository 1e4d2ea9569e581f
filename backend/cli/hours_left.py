"""``clearclip-backend hours-left``: foretell how long the rest of a project takes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from backend.cli.annotations import read_annotations
from backend.cli.options import (
    OUTPUT_FILE,
    backfill_option,
    project_option,
    with_settings,
    write_text,
)
from backend.cli.signals import stopped_by_signals
from backend.feedback.forecast.hours_left import Hours, HoursLeft, hours
from backend.label_studio_services import READ_RETRY_FOR_S, check_token
from backend.settings import Settings
from clearclip_core.quantities import quantity


@click.command()
@project_option
@backfill_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def hours_left(settings: Settings, project: int, backfill: bool, json_file: Path | None) -> None:
    """Foretell how many hours of annotation a project still takes, with and without prelabels.

    Annotations that the backend has not read yet are read first. The page of the report shows the
    forecast from then on.
    """
    check_token(settings, "tasks are counted")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings, stopping=threading.Event())
    client = services.required_client("tasks are counted", retry_for_s=READ_RETRY_FOR_S)
    services.database.check()
    with stopped_by_signals(services.stopping):
        reader = services.annotation_reader(client)
        read_annotations(reader, project, backfill, services.stopping)
    if services.stopping.is_set():
        raise SystemExit(130)

    def tell(forecast: HoursLeft) -> None:
        if json_file is not None:
            write_text(json_file, json.dumps(forecast.to_json(), indent=2) + "\n")
        print_hours(project, forecast, Console())

    services.forecaster.make(project, tell)


def print_hours(project: int, forecast: HoursLeft, console: Console) -> None:
    """Print a forecast.

    Args:
        project: number of the project.
        forecast: the figures.
        console: the terminal.
    """
    tasks_left = quantity(forecast.tasks_left, "task")
    console.print(f"Project {project}: {tasks_left} without an annotation.")
    table = Table(box=None)
    for name in ("", "expected", "in 9 of 10 cases"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("with prelabels", *_cells(forecast.with_prelabels))
    table.add_row("without prelabels", *_cells(forecast.without_prelabels))
    console.print(table)
    for sentence in forecast.missing:
        console.print(sentence)
    if forecast.left_open:
        left_open = quantity(forecast.left_open, "annotation")
        console.print(f"Left open for long, and not counted: {left_open}.")


def _cells(found: Hours | None) -> tuple[str, str]:
    if found is None:
        return "not known", ""
    return hours(found.expected), f"{hours(found.low)} to {hours(found.high)}"
