"""``clearclip-backend run``: make a report on a whole project, and keep it for the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from backend.cli.options import (
    MODEL_SETTINGS,
    OUTPUT_FILE,
    Command,
    project_option,
    with_settings,
    write_bytes,
)
from backend.label_studio_services import check_token
from backend.runs.run import AskedNothing, Run, RunKind
from backend.settings import Settings
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.runs.label_errors import LabelErrors
    from backend.services import Services


def _report_options(command: Command) -> Command:
    """Add the options that all these commands have."""
    view = click.option(
        "--view", is_flag=True, help="After asking, make a view in Label Studio with these tasks."
    )
    file = click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the report to a file.")
    return project_option(file(view(command)))


def _run(
    services: Services,
    kind: RunKind[Any, Any],
    project: int,
    asked: msgspec.Struct,
    json_file: Path | None,
    show: Callable[[Any, Console], None],
    *,
    view: bool = False,
) -> Any:
    """Make a report, tell it, keep it for the page, and make a view; return the report."""
    client, created = services.required_client("the project is read"), time.time()
    run = Run(id=0, kind=kind.name, project=project, asked=msgspec.to_builtins(asked))
    with (
        services.engine if kind.needs_model else nullcontext(),
        tqdm(dynamic_ncols=True, desc=f"Project {project}") as bar,
    ):

        def advance(done: int, total: int | None) -> None:
            bar.n, bar.total = done, total
            bar.refresh()

        report = kind.make(services.run_parts(client), run, asked, advance)
    # It took long: the report is told before the database is asked to keep it.
    if json_file is not None:
        write_bytes(json_file, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    show(report, Console())
    services.runs.add_done(kind, project, asked, report, created)
    tasks = kind.tasks(report) if kind.tasks else ()
    if view and not tasks:
        click.echo("The report lists no task: there is no view to make.")
    elif view:
        click.confirm(f"Make the view “{kind.title}” in project {project}?", abort=True)
        client.views.show(project, kind.title, tasks)
        click.echo(f"Label Studio has the view “{kind.title}” now.")
    return report


def _show_left_out(report: Any, console: Console) -> None:
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")


@click.group()
def run() -> None:
    """Make a report on a whole project, and keep it for the page."""


# ---- label errors --------------------------------------------------------------------------------


@run.command("label-errors")
@_report_options
@with_settings(*MODEL_SETTINGS)
def label_errors(settings: Settings, project: int, json_file: Path | None, view: bool) -> None:
    """List the annotations of a project that disagree most with what the others teach.

    The report is kept for the page, which shows it with pictures. Annotations that were confirmed
    there are left out.
    """
    check_token(settings, "annotations are read")
    from backend.runs.label_errors import LABEL_ERRORS  # and torch with it, see the help
    from backend.services import Services

    _run(
        Services(settings),
        LABEL_ERRORS,
        project,
        AskedNothing(),
        json_file,
        _show_label_errors,
        view=view,
    )


def _show_label_errors(report: LabelErrors, console: Console) -> None:
    examples = f"{quantity(report.examples, 'training example')}, in folds"
    console.print(
        f"{quantity(report.annotations, 'annotation')} of "
        f"{quantity(report.pictures, 'picture')} in {report.seconds:.1f} s; "
        f"scores of {examples if report.examples else 'the words'}"
    )
    table = Table(box=None)
    for name in ("rank", "task", "annotation"):
        table.add_column(name, justify="right")
    table.add_column("what is found")
    for place, each in enumerate(report.suspicions, 1):
        numbers = (str(number) for number in (place, each.task, each.annotation))
        table.add_row(*numbers, escape(each.sentence))
    console.print(table)
    _show_left_out(report, console)
