"""``clearclip-backend words``: try words for a label, or check the words of all labels."""

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
from backend.feedback.report.definitions import percent
from backend.label_studio_services import READ_RETRY_FOR_S, check_token
from backend.settings import Settings
from backend.wording.wording_request import MAX_PICTURES, On, WordingRequest
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.wording.wording_report import WordingReport


@click.command()
@project_option
@click.option("--label", default="", help="The label; without it, the words of all are checked.")
@click.option(
    "--words",
    "wordings",
    multiple=True,
    help="Words to try, separated by commas; several times for several wordings.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1),
    help="Probability from which the label is drawn; several are tried. By default as it is.",
)
@click.option(
    "--try-method", "methods", multiple=True, help="Method to try; several are tried. [METHOD]"
)
@click.option(
    "--pictures",
    default=8,
    show_default=True,
    type=click.IntRange(1, MAX_PICTURES),
    help="Number of pictures.",
)
@click.option(
    "--on",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "corrected", "diverse"]),
    help="Corrected pictures, or ones that differ from each other; auto: the first, if any.",
)
@click.option(
    "--use",
    type=click.IntRange(min=0),
    metavar="ROW",
    help="After asking, write the words of this row into the label config of the project.",
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings(*MODEL_SETTINGS)
def words(
    settings: Settings,
    project: int,
    label: str,
    wordings: tuple[str, ...],
    thresholds: tuple[float, ...],
    methods: tuple[str, ...],
    pictures: int,
    on: On,
    use: int | None,
    json_file: Path | None,
) -> None:
    """Try words for a label on pictures of a project, or check the words of all its labels.

    Where pictures are corrected, wordings are ranked by the paint that they save over all labels.
    Nothing is written to Label Studio but what --use asks for.
    """
    given = {"--use": use is not None, "--words": wordings, "--threshold": thresholds}
    for option in (name for name, is_given in given.items() if is_given and not label):
        raise click.UsageError(f"{option} needs --label.")
    check_token(settings, "pictures are read")
    asked = WordingRequest.parse(  # which imports torch for its methods
        project,
        {
            "label": label,
            "wordings": list(wordings),
            "thresholds": list(thresholds),
            "methods": list(methods),
            "pictures": pictures,
            "on": on,
        },
    )
    if use is not None and use >= len(asked.trials):  # before anything is measured
        raise click.UsageError(f"--use={use}: the rows are 0 to {len(asked.trials) - 1}.")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings)
    client = services.required_client("pictures are read", retry_for_s=READ_RETRY_FOR_S)
    with services.engine:
        report = services.laboratory(client).measure(asked)
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_json(), indent=2) + "\n")
    _print(report, project, Console())
    if use is not None:
        config = report.config_with(use)
        click.confirm(f"Write {report.trials[use].line} into project {project}?", abort=True)
        client.replace_label_config(project, report.config, config)
        click.echo("The label config of the project has these words now.")


def _print(report: WordingReport, project: int, console: Console) -> None:
    kind = "corrected picture" if report.on == "corrected" else "picture"
    what = quantity(report.pictures, kind) + (", not corrected" if kind == "picture" else "")
    console.print(f"{what}; encoded in {report.encoding_s:.1f} s")
    if report.label:
        _print_trials(report, project, console)
    else:
        _print_check(report, console)
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)


def _print_trials(report: WordingReport, project: int, console: Console) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))  # 80 letters wide, whatever the method
    table.add_column("row")
    table.add_column("words", overflow="fold")
    table.add_column("method", no_wrap=True)
    shares = ("saved paint,\nall labels", "saved\npaint", "IoU", "of the\npicture")
    for name in ("thres-\nhold", *shares, "ms a\npicture"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        now = " (now)" if row["is_current"] else ""
        table.add_row(
            str(row["row"]),
            escape(", ".join(row["words"]) + now),
            row["method"],
            f"{row['threshold']:.4g}",
            percent(row["saved_paint_all"]),
            percent(row["saved_paint"]),
            percent(row["iou"]),
            percent(row["share"]),
            f"{row['milliseconds']:.0f}",
        )
    console.print(table)
    best = report.rows[0]
    if best["rank"] is None:
        console.print(
            "Nothing is ranked, since nobody has corrected these pictures: the backend's page "
            f"/projects/{project}/words shows the masks side by side.",
            markup=False,
            soft_wrap=True,
        )
    if best["rank"] is not None and not best["is_current"]:
        line = "" if best["is_in_config"] else f"{best['line']} with "
        console.print(f"Best: {line}METHOD={best['method']}", markup=False, soft_wrap=True)


def _print_check(report: WordingReport, console: Console) -> None:
    table = Table(box=None)
    table.add_column("label")
    for name in ("of the pictures", "goes to another", "highest probability"):
        table.add_column(name, justify="right")
    for each in report.responses:
        shares = (percent(each.share), percent(each.changed))
        table.add_row(escape(each.label), *shares, f"{each.highest:.2f}")
    console.print(table)
    advice = list(report.advice())
    for found in advice:
        console.print(f"\n{found['finding']}\n  {found['try']}", markup=False)
    if not advice:
        console.print("Nothing is found: the words lie apart.")
    if report.check is not None and report.check.unknown_from is None:
        console.print("Whether the model knows a word cannot be told with this model.")
