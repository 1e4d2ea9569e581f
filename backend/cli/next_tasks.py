"""``clearclip-backend next-tasks``: different pictures first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from backend.cli.options import (
    MODEL_SETTINGS,
    OUTPUT_FILE,
    project_option,
    with_settings,
    write_text,
)
from backend.label_studio_services import check_token
from backend.settings import Settings
from backend.task_order.next_tasks import DEFAULT_COUNT, MOST_TASKS
from backend.task_order.next_tasks_view import VIEW_TITLE, make_view
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.task_order.next_tasks import NextTasks

_COUNT: Final = click.IntRange(1, MOST_TASKS)


@click.command("next-tasks")
@project_option
@click.option(
    "--count", type=_COUNT, default=DEFAULT_COUNT, show_default=True, help="How many tasks."
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the tasks to this file.")
@click.option(
    "--view", is_flag=True, help="After asking, make a view in Label Studio with these tasks."
)
@with_settings(*MODEL_SETTINGS)
def next_tasks(
    settings: Settings, project: int, count: int, json_file: Path | None, view: bool
) -> None:
    """Choose tasks to correct next: at random, and no picture nearly like another.

    Tasks without an annotation or a draft are drawn by lot. Passed over are pictures that look
    nearly as one that was chosen, or like one that the project has learned from. The choice is kept
    for the page.
    """
    check_token(settings, "tasks are read")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings)
    client = services.required_client("tasks are read")
    with (
        services.engine,
        tqdm(unit="picture", dynamic_ncols=True, desc=f"Project {project}") as bar,
    ):

        def advance(done: int, total: int) -> None:
            bar.n, bar.total = done, total
            bar.refresh()

        report = services.task_picker(client).pick(project, count, advance)
    # The search took long: its tasks are told before the database is asked to keep them.
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_json(), indent=2) + "\n")
    _print(report, Console(), lambda task: services.files.task_url(project, task))
    services.next_tasks.keep(project, report)
    if view and not report.tasks:
        click.echo("There is no view to make.")
    elif view:
        click.confirm(f"Make the view “{VIEW_TITLE}” in project {project}?", abort=True)
        make_view(client, project, report)
        click.echo(f"Label Studio has the view “{VIEW_TITLE}” now.")


def _print(report: NextTasks, console: Console, address: Callable[[int], str | None]) -> None:
    console.print(
        f"{quantity(len(report.tasks), 'task')} of {report.unlabeled} without an annotation or a "
        f"draft: {quantity(report.looked_at, 'picture')} looked at in {report.seconds:.1f} s, "
        f"{quantity(report.near_duplicates, 'near-duplicate')} passed over; compared with "
        f"{quantity(report.examples, 'corrected picture')} too"
    )
    table = Table(box=None)
    table.add_column("task", justify="right")
    table.add_column("address", overflow="fold")
    for each in report.tasks:
        table.add_row(str(each.task), address(each.task) or "")
    console.print(table)
    if report.shortage:
        console.print(report.shortage, markup=False)
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")
