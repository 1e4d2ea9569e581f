"""``clearclip-backend run``: make a report on a project, and keep it for the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from backend.cli.evaluate import evaluate_project
from backend.cli.options import (
    MODEL_SETTINGS,
    OUTPUT_FILE,
    Command,
    project_option,
    with_settings,
    write_bytes,
    yes_option,
)
from backend.feedback.report.definitions import in_percent
from backend.label_studio_services import check_token
from backend.runs.run import MOST_NEXT_TASKS, MOST_WORD_PICTURES, AskedNothing, Run, RunKind
from backend.settings import Settings
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.runs.agreement import Agreement
    from backend.runs.label_errors import LabelErrors
    from backend.runs.next_tasks import NextTasks
    from backend.runs.words import WordsReport
    from backend.services import Services


def _report_options(command: Command) -> Command:
    """Add the options that all these commands have."""
    view = click.option(
        "--make-view",
        "view",
        is_flag=True,
        help="After asking, make a view in Label Studio with these tasks.",
    )
    file = click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the report to a file.")
    return project_option(file(view(yes_option(command))))


def _run(
    services: Services,
    kind: RunKind[Any, Any],
    project: int,
    asked: msgspec.Struct,
    json_file: Path | None,
    show: Callable[[Any, Console], None],
    *,
    view: bool = False,
    yes: bool = False,
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
        if not yes:
            click.confirm(f"Make the view “{kind.title}” in project {project}?", abort=True)
        client.show_tasks(project, kind.title, tasks)
        click.echo(f"Label Studio has the view “{kind.title}” now.")
    return report


def _show_left_out(report: Any, console: Console) -> None:
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")


@click.group()
def run() -> None:
    """Make a report on a project. The project's pages show it, too, except that of eval."""


run.add_command(evaluate_project)

# ---- label errors --------------------------------------------------------------------------------


@run.command("label-errors", short_help="Find annotations to check again.")
@_report_options
@with_settings(*MODEL_SETTINGS)
def label_errors(
    settings: Settings, project: int, json_file: Path | None, view: bool, yes: bool
) -> None:
    """List the annotations of a project that disagree most with what the others teach.

    The project's page shows them with pictures. Those that were confirmed there are left out.
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
        yes=yes,
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


# ---- agreement -----------------------------------------------------------------------------------


@run.command(short_help="Compare what several annotators drew.")
@_report_options
@with_settings(
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "model_dir",
    "database_url",
    "max_image_mb",
    "max_image_megapixels",
)
def agreement(
    settings: Settings, project: int, json_file: Path | None, view: bool, yes: bool
) -> None:
    """Measure how far the annotators of a project agree, on tasks that several have annotated.

    The project's page shows the pixels in dispute.
    """
    check_token(settings, "annotations are read")
    from backend.runs.agreement import AGREEMENT  # and torch with it, see the help
    from backend.services import Services

    _run(
        Services(settings),
        AGREEMENT,
        project,
        AskedNothing(),
        json_file,
        _show_agreement,
        view=view,
        yes=yes,
    )


def _show_agreement(report: Agreement, console: Console) -> None:
    """Print the figures for people; those of few pictures have a star."""
    if not report.pictures:
        console.print(
            "There is nothing to compare yet: no task has annotations of several people with a "
            "region of a label.",
            markup=False,
            soft_wrap=True,
        )
        return
    console.print(
        f"{quantity(report.annotations, 'annotation')} of {quantity(report.tasks, 'task')} in "
        f"{report.seconds:.1f} s; "
        f"in dispute: {in_percent(report.disputed)} of the pixels of "
        f"{quantity(report.pictures, 'picture')}"
    )
    shared = ("pictures", "IoU", "boundary F")
    labels = _table("label", *shared, "in dispute", "alpha")
    for label in report.labels:
        labels.add_row(
            escape(label.label),
            f"{label.pictures}{_star(label.pictures)}",
            in_percent(label.iou),
            in_percent(label.boundary_f),
            in_percent(label.disputed),
            "–" if label.alpha is None else f"{label.alpha:.2f}",
        )
    confusions = Table(box=None)
    confusions.add_column("one person")
    confusions.add_column("another")
    confusions.add_column("pixels", justify="right")
    for pair in report.confusions:
        confusions.add_row(
            escape(pair.label), escape(pair.other or "nothing"), in_percent(pair.share)
        )
    annotators = _table("annotator", *shared)
    for each in report.annotators:
        annotators.add_row(
            escape(each.name or f"User {each.annotator}"),
            f"{each.pictures}{_star(each.pictures)}",
            in_percent(each.iou),
            in_percent(each.boundary_f),
        )
    disputes = _table("task", "picture", "people", "in dispute")
    for dispute in report.disputes:
        item = "" if dispute.item_index is None else str(dispute.item_index + 1)
        disputes.add_row(str(dispute.task), item, str(dispute.people), in_percent(dispute.disputed))
    for table in (labels, confusions, annotators, disputes):
        console.print(table)
    counts = [label.pictures for label in report.labels]
    if any(map(_star, [*counts, *(each.pictures for each in report.annotators)])):
        console.print("* of few pictures", markup=False)
    _show_left_out(report, console)


def _table(name: str, *numbers: str) -> Table:
    table = Table(box=None)
    table.add_column(name)
    for each in numbers:
        table.add_column(each, justify="right")
    return table


def _star(pictures: int) -> str:
    from backend.runs.agreement import FEW_PICTURES

    return "*" if pictures < FEW_PICTURES else ""


# ---- next tasks ----------------------------------------------------------------------------------


@run.command("next-tasks", short_help="Choose tasks to correct next.")
@click.option(
    "--count",
    type=click.IntRange(1, MOST_NEXT_TASKS),
    default=20,
    show_default=True,
    help="How many tasks.",
)
@_report_options
@with_settings(*MODEL_SETTINGS)
def next_tasks(
    settings: Settings, project: int, count: int, json_file: Path | None, view: bool, yes: bool
) -> None:
    """Choose tasks to correct next: at random, and no picture nearly like another.

    They have no annotation and no draft. Pictures are skipped that look nearly like one that
    was chosen, or like one that the project has learned from.
    """
    check_token(settings, "tasks are read")
    from backend.runs.next_tasks import NEXT_TASKS, AskedTasks  # and torch with it, see the help
    from backend.services import Services

    services = Services(settings)
    address = partial(services.files.task_url, project)
    show = partial(_show_next_tasks, address=address)
    _run(services, NEXT_TASKS, project, AskedTasks(count), json_file, show, view=view, yes=yes)


def _show_next_tasks(
    report: NextTasks, console: Console, address: Callable[[int], str | None]
) -> None:
    console.print(
        f"{quantity(len(report.tasks), 'task')} of {report.unlabeled} without an annotation or a "
        f"draft: {quantity(report.compared, 'picture')} compared in {report.seconds:.1f} s, "
        f"{quantity(report.near_duplicates, 'near-duplicate')} skipped; compared with "
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
    _show_left_out(report, console)


# ---- words ---------------------------------------------------------------------------------------


@run.command(short_help="Check the words of labels, or try others.")
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
    type=click.IntRange(1, MOST_WORD_PICTURES),
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
@yes_option
@with_settings(*MODEL_SETTINGS)
def words(
    settings: Settings,
    project: int,
    label: str,
    wordings: tuple[str, ...],
    thresholds: tuple[float, ...],
    methods: tuple[str, ...],
    pictures: int,
    on: Literal["auto", "corrected", "diverse"],
    use: int | None,
    json_file: Path | None,
    yes: bool,
) -> None:
    """Try words for a label on pictures of a project, or check the words of all its labels.

    On corrected pictures, words are ranked by the paint that they save over all labels. Only --use
    writes to Label Studio.
    """
    given = {"--use": use is not None, "--words": wordings, "--threshold": thresholds}
    for option in (name for name, is_given in given.items() if is_given and not label):
        raise click.UsageError(f"{option} needs --label.")
    check_token(settings, "pictures are read")
    from backend.runs.words import WORDS, AskedWords  # and torch with it, see the help
    from backend.services import Services

    asked = AskedWords(label, wordings, thresholds, methods, pictures, on)
    if use is not None and use >= len(asked.trials):  # before anything is measured
        raise click.UsageError(f"--use={use}: the rows are 0 to {len(asked.trials) - 1}.")
    services = Services(settings)
    show = partial(_show_words, project=project)
    report: WordsReport = _run(services, WORDS, project, asked, json_file, show)
    if use is not None:
        row = report.row(use)
        if not yes:
            click.confirm(f"Write {row.line} into project {project}?", abort=True)
        client = services.required_client("words are written")
        client.replace_label_config(project, report.config, report.config_with(use))
        click.echo("The label config of the project has these words now.")


def _show_words(report: WordsReport, console: Console, project: int) -> None:
    kind = "corrected picture" if report.on == "corrected" else "picture"
    what = quantity(report.pictures, kind) + (", not corrected" if kind == "picture" else "")
    console.print(f"{what}; encoded in {report.encoding_s:.1f} s")
    if report.label:
        _print_trials(report, project, console)
    else:
        _print_check(report, console)
    _show_left_out(report, console)


def _print_trials(report: WordsReport, project: int, console: Console) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))  # 80 letters wide, whatever the method
    table.add_column("row")
    table.add_column("words", overflow="fold")
    table.add_column("method", no_wrap=True)
    shares = ("saved paint,\nall labels", "saved\npaint", "IoU", "of the\npicture")
    for name in ("thres-\nhold", *shares, "ms a\npicture"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.trials:
        now = " (now)" if row.is_current else ""
        table.add_row(
            str(row.row),
            escape(", ".join(row.words) + now),
            row.method,
            f"{row.threshold:.4g}",
            in_percent(row.saved_paint_all),
            in_percent(row.saved_paint),
            in_percent(row.iou),
            in_percent(row.share),
            f"{row.milliseconds:.0f}",
        )
    console.print(table)
    best = report.trials[0]
    if best.rank is None:
        console.print(
            "Nothing is ranked, since nobody has corrected these pictures: the backend's page "
            f"/projects/{project}/words shows the masks side by side.",
            markup=False,
            soft_wrap=True,
        )
    if best.rank is not None and not best.is_current:
        line = "" if best.is_in_config else f"{best.line} with "
        console.print(f"Best: {line}METHOD={best.method}", markup=False, soft_wrap=True)


def _print_check(report: WordsReport, console: Console) -> None:
    table = Table(box=None)
    table.add_column("label")
    for name in ("of the pictures", "goes to another", "highest probability"):
        table.add_column(name, justify="right")
    for each in report.responses:
        shares = (in_percent(each.share), in_percent(each.changed))
        table.add_row(escape(each.label), *shares, f"{each.highest:.2f}")
    console.print(table)
    for found in report.advice:
        console.print(f"\n{found.finding}\n  {found.remedy}", markup=False)
    if not report.advice:
        console.print("Nothing is found: the words lie apart.")
    if report.check is not None and report.check.unknown_from is None:
        console.print("Whether the model knows a word cannot be told with this model.")
