"""``clearclip-backend label-errors``: annotations that disagree with what the others teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.cli.options import (
    MODEL_SETTINGS,
    OUTPUT_FILE,
    project_option,
    with_settings,
    write_text,
)
from backend.label_errors.review_view import VIEW_TITLE, make_view
from backend.label_studio_services import check_token
from backend.settings import Settings
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.label_errors.review_report import ReviewReport


@click.command("label-errors")
@project_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all findings to this file.")
@click.option(
    "--view",
    is_flag=True,
    help="After asking, make a view in Label Studio with the tasks of these annotations.",
)
@with_settings(*MODEL_SETTINGS)
def label_errors(settings: Settings, project: int, json_file: Path | None, view: bool) -> None:
    """List the annotations of a project that disagree most with what the others teach.

    The review is kept for the page, which shows it with pictures. Annotations that were confirmed
    there are left out, unless that was while the review ran.
    """
    check_token(settings, "annotations are read")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings)
    client = services.required_client("annotations are read")
    store = services.reviews
    with services.engine:
        report = services.reviewer(client).review(project)
    # The review took long: its findings are told before the database is asked to keep them.
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_json(), indent=2) + "\n")
    _print(report, Console())
    store.keep(project, report)
    report = report.without(store.confirmed(project))
    if view and report.suspicions:
        click.confirm(f"Make the view “{VIEW_TITLE}” in project {project}?", abort=True)
        make_view(client, project, report)
        click.echo(f"Label Studio has the view “{VIEW_TITLE}” now.")


def _print(report: ReviewReport, console: Console) -> None:
    examples = f"{quantity(report.examples, 'training example')}, in folds"
    console.print(
        f"{quantity(report.annotations or 0, 'annotation')} of "
        f"{quantity(report.pictures or 0, 'picture')} in {report.seconds:.1f} s; "
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
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")
