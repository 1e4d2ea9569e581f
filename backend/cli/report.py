"""``clearclip-backend report``: what the prelabels of a project save."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.cli.options import (
    OUTPUT_FILE,
    map_option,
    progress_bar,
    project_option,
    read_renamings,
    stopped_by_signals,
    with_settings,
    write_json,
)
from backend.errors import StudioUnreachable
from backend.feedback.annotation_reader import AnnotationReader
from backend.feedback.report.hours_left import estimate
from backend.feedback.report.statistics import PrelabelReport
from backend.feedback.report.tables import report_text
from backend.label_studio.client import LabelStudioClient
from backend.services import Services
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.learning.learner import Learner


def read_annotations(
    services: Services, client: LabelStudioClient, project: int, learner: "Learner | None" = None
) -> None:
    """Read the annotations of a project that are not as they were read."""
    reader = AnnotationReader(services.annotations, client, learner)
    with progress_bar(f"Project {project}", "annotation") as show:
        services.change_poller.look_through(client, project)
        total = services.annotations.count_open(project)
        reader.read_all(project, services.stopping, lambda done: show(done, max(total, done)))


@click.command()
@project_option
@map_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def report(
    settings: Settings, project: int, renamed: tuple[str, ...], json_file: Path | None
) -> None:
    """Report how much work the prelabels of a project save, and how many hours are left.

    The backend that serves reads annotations as they are submitted. Where LABEL_STUDIO_API_KEY is
    set, the command first reads those that it has not read yet.
    """
    services = Services(settings)
    client, annotations = services.page_client, services.annotations  # somebody waits
    services.database.check()

    is_complete = False
    if client is not None:  # without a token there is nothing to read them with
        with stopped_by_signals(services.stopping):
            try:
                read_annotations(services, client, project)
                is_complete = not services.stopping.is_set()
            except StudioUnreachable as error:
                click.echo(f"{error} The figures are of what was read before.", err=True)

    waiting = annotations.count_open(project)
    sums = annotations.sums(project).renamed(read_renamings(renamed))
    hours_left = estimate(annotations, client, project)
    experiment = services.experiments.find(project)
    savings = PrelabelReport(project, sums, waiting, hours_left, experiment)

    if json_file is not None:
        write_json(json_file, savings.figures())
    click.echo(report_text(savings, is_complete=is_complete))
    if services.stopping.is_set():
        raise SystemExit(130)
