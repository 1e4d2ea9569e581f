"""``clearclip-backend task``: all that is known of a task."""

import click

from backend.cli.options import with_settings
from backend.label_studio.client import required_client
from backend.services import Services
from backend.settings import Settings

_USE = "The project of a task is read from Label Studio"


@click.command()
@click.argument("task", type=click.IntRange(min=1))
@click.option("--project", type=click.IntRange(min=1), help="Its project; else Label Studio says.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def task(settings: Settings, task: int, project: int | None) -> None:
    """Say what has happened to a task: predictions, failures, reviews, annotations, data sets."""
    from backend.views.task_record import task_record  # torch

    services = Services(settings)
    services.database.check()
    if project is None:
        contents = required_client(services.page_client, _USE).contents(task)
        if contents is None:
            raise click.ClickException(f"Label Studio has no task {task}, or does not show it.")
        project = contents.project
    record = task_record(services, project, task)
    if record is None:
        raise click.ClickException(f"Project {project} has no task {task}, or has it no more.")
    click.echo(record.text)
