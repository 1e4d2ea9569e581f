"""``clearclip-backend agreement``: where annotators disagree."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from backend.agreement.agreement_report import NOTHING_YET, AgreementReport
from backend.agreement.agreement_view import VIEW_TITLE, make_view
from backend.cli.options import OUTPUT_FILE, project_option, with_settings, write_text
from backend.feedback.report.definitions import percent
from backend.label_studio_services import check_token
from backend.settings import Settings
from clearclip_core.quantities import quantity


@click.command()
@project_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@click.option(
    "--view", is_flag=True, help="After asking, make a view in Label Studio with the tasks listed."
)
@with_settings(
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "model_dir",
    "database_url",
    "max_image_mb",
    "max_image_megapixels",
)
def agreement(settings: Settings, project: int, json_file: Path | None, view: bool) -> None:
    """Measure how far the annotators of a project agree, on tasks that several have annotated.

    The report is kept for the page, which shows the pixels in dispute.
    """
    check_token(settings, "annotations are read")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings)
    client = services.required_client("annotations are read")
    with tqdm(unit="task", dynamic_ncols=True, desc=f"Project {project}") as bar:

        def advance(done: int, total: int) -> None:
            bar.n, bar.total = done, total
            bar.refresh()

        report = services.agreement_meter(client).measure(project, advance)
    # The comparison took long: its figures are told before the database is asked to keep them.
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_json(), indent=2) + "\n")
    _print(report, Console())
    services.agreements.keep(project, report)
    if view and not report.pictures:
        click.echo("There is no view to make yet.")
    elif view and not report.disputes:
        click.echo("Nothing is in dispute: there is no view to make.")
    elif view:
        click.confirm(f"Make the view “{VIEW_TITLE}” in project {project}?", abort=True)
        make_view(client, project, report)
        click.echo(f"Label Studio has the view “{VIEW_TITLE}” now.")


def _print(report: AgreementReport, console: Console) -> None:
    """Print the figures for people; those of few pictures have a star."""
    if not report.pictures:
        console.print(NOTHING_YET, markup=False)
        return
    console.print(
        f"{quantity(report.annotations, 'annotation')} of {quantity(report.tasks, 'task')} in "
        f"{report.seconds:.1f} s; "
        f"in dispute: {percent(report.disputed)} of the pixels of "
        f"{quantity(report.pictures, 'picture')}"
    )
    shared = ("pictures", "IoU", "boundary F")
    labels = _table("label", *shared, "in dispute", "alpha")
    for label in report.labels:
        labels.add_row(
            escape(label.label),
            f"{label.pictures}{'*' if label.is_of_few else ''}",
            percent(label.iou),
            percent(label.boundary_f),
            percent(label.disputed),
            "–" if label.alpha is None else f"{label.alpha:.2f}",
        )
    confusions = Table(box=None)
    confusions.add_column("one person")
    confusions.add_column("another")
    confusions.add_column("pixels", justify="right")
    for pair in report.confusions:
        confusions.add_row(escape(pair.label), escape(pair.other or "nothing"), percent(pair.share))
    annotators = _table("annotator", *shared)
    for each in report.annotators:
        annotators.add_row(
            escape(each.name or f"User {each.annotator}"),
            f"{each.pictures}{'*' if each.is_of_few else ''}",
            percent(each.iou),
            percent(each.boundary_f),
        )
    disputes = _table("task", "picture", "people", "in dispute")
    for dispute in report.disputes:
        item = "" if dispute.item_index is None else str(dispute.item_index + 1)
        disputes.add_row(str(dispute.task), item, str(dispute.people), percent(dispute.disputed))
    for table in (labels, confusions, annotators, disputes):
        console.print(table)
    has_few = [each.is_of_few for each in report.labels]
    if any(has_few) or any(each.is_of_few for each in report.annotators):
        console.print("* of few pictures", markup=False)
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")


def _table(name: str, *numbers: str) -> Table:
    table = Table(box=None)
    table.add_column(name)
    for each in numbers:
        table.add_column(each, justify="right")
    return table
