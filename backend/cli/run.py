"""``clearclip-backend run``: make a report on a project, and keep it for the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.cli.evaluate import evaluate_project
from backend.cli.options import (
    MODEL_SETTINGS,
    OUTPUT_FILE,
    Command,
    progress_bar,
    project_option,
    with_settings,
    write_bytes,
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


#: What these commands need Label Studio for.
_USE: Final = "the project is read"


@dataclass(frozen=True)
class _Given:
    """The options that all these commands have."""

    project: int
    json_file: Path | None = None
    yes: bool = False
    view: bool = False


def _report_options(command: Command) -> Command:
    """Add the options that all these commands have, as a `_Given`."""

    @wraps(command)
    def run(
        settings: Settings, project: int, json_file: Path | None, yes: bool, **own: Any
    ) -> None:
        given = _Given(project, json_file, yes, own.pop("view", False))
        command(settings, given, **own)

    file = click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the report to a file.")
    return project_option(file(click.option("--yes", is_flag=True, help="Do not ask.")(run)))


_view_option = click.option(
    "--make-view",
    "view",
    is_flag=True,
    help="After asking, make a view in Label Studio with these tasks.",
)


def _begin(settings: Settings, name: str) -> tuple[Services, RunKind[Any, Any]]:
    """Refuse settings without a token; else return the kind of run, and what makes it."""
    check_token(settings, _USE)
    from backend.runs.kinds import KINDS  # and torch with it, which the help does without
    from backend.services import Services

    return Services(settings), next(kind for kind in KINDS if kind.name == name)


def _run(
    services: Services,
    kind: RunKind[Any, Any],
    asked: msgspec.Struct,
    given: _Given,
    show: Callable[[Any, Console], None],
) -> Any:
    """Make a report, tell it, keep it for the page, and make a view; return the report."""
    client, created = services.required_client(_USE), time.time()
    run = Run(id=0, kind=kind.name, project=given.project, asked=msgspec.to_builtins(asked))
    with (
        services.engine if kind.needs_model else nullcontext(),
        progress_bar(f"Project {given.project}", "step") as show_progress,
    ):
        report = kind.make(services.run_parts(client), run, asked, show_progress)
    # It took long: the report is told before the database is asked to keep it.
    if given.json_file is not None:
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
        write_bytes(given.json_file, encoded + b"\n")
    console = Console()
    show(report, console)
    for task, reason in report.left_out.items():
        console.print(f"Left out: task {task}: {reason}", markup=False)
    if report.left_out_count > len(report.left_out):
        console.print(f"Left out in all: {report.left_out_count} tasks")
    services.runs.add_done(kind, given.project, asked, report, created)
    tasks = kind.tasks(report) if kind.tasks else ()
    if given.view and not tasks:
        click.echo("The report lists no task: there is no view to make.")
    elif given.view:
        _ask(given, f"Make the view “{kind.title}” in project {given.project}?")
        client.show_tasks(given.project, kind.title, tasks)
        click.echo(f"Label Studio has the view “{kind.title}” now.")
    return report


def _ask(given: _Given, question: str) -> None:
    if not given.yes:
        click.confirm(question, abort=True)


def _print_table(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], **layout: Any
) -> None:
    """Print a table; a column whose name begins with ">" is of numbers."""
    table = Table(box=None, **layout)
    for name in columns:
        is_number = name.startswith(">")
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(
            name.lstrip(">"), justify=justify, no_wrap=is_number and bool(layout), overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(str(each)) for each in row))
    console.print(table)


@click.group()
def run() -> None:
    """Make a report on a project. The project's pages show it, too, except that of eval."""


run.add_command(evaluate_project)


# ---- label errors --------------------------------------------------------------------------------


@run.command("label-errors", short_help="Find annotations to check again.")
@with_settings(*MODEL_SETTINGS)
@_view_option
@_report_options
def label_errors(settings: Settings, given: _Given) -> None:
    """List the annotations of a project that disagree most with what the others teach.

    The project's page shows them with pictures. Those that were confirmed there are left out.
    """
    _run(*_begin(settings, "label-errors"), AskedNothing(), given, _show_label_errors)


def _show_label_errors(report: LabelErrors, console: Console) -> None:
    examples = f"{quantity(report.examples, 'training example')}, in folds"
    console.print(
        f"{quantity(report.annotations, 'annotation')} of "
        f"{quantity(report.pictures, 'picture')} in {report.seconds:.1f} s; "
        f"scores of {examples if report.examples else 'the words'}"
    )
    found = enumerate(report.suspicions, 1)
    rows = [(rank, each.task, each.annotation, each.sentence) for rank, each in found]
    _print_table(console, (">rank", ">task", ">annotation", "what is found"), rows)


# ---- agreement -----------------------------------------------------------------------------------


@run.command(short_help="Compare what several annotators drew.")
@with_settings(
    *("label_studio_url", "label_studio_api_key", "allowed_hosts", "model_dir", "database_url"),
    *("max_image_mb", "max_image_megapixels"),
)
@_view_option
@_report_options
def agreement(settings: Settings, given: _Given) -> None:
    """Measure how far the annotators of a project agree, on tasks that several have annotated.

    The project's page shows the pixels in dispute.
    """
    _run(*_begin(settings, "agreement"), AskedNothing(), given, _show_agreement)


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
        f"{quantity(report.annotations, 'annotation')} of {quantity(report.tasks, 'task')}; "
        f"in dispute: {in_percent(report.disputed)} of the pixels of "
        f"{quantity(report.pictures, 'picture')}"
    )
    labels = [
        (
            each.label,
            _starred(each.pictures),
            in_percent(each.iou),
            in_percent(each.disputed),
        )
        for each in report.labels
    ]
    shared = (">pictures", ">IoU")
    _print_table(console, ("label", *shared, ">in dispute"), labels)
    pairs = [(e.label, e.other or "nothing", in_percent(e.share)) for e in report.confusions]
    _print_table(console, ("one person", "another", ">pixels"), pairs)
    people = [
        (
            each.name or f"User {each.annotator}",
            _starred(each.pictures),
            in_percent(each.iou),
        )
        for each in report.annotators
    ]
    _print_table(console, ("annotator", *shared), people)
    disputes = [
        (
            each.task,
            "" if each.item_index is None else each.item_index + 1,
            each.people,
            in_percent(each.disputed),
        )
        for each in report.disputes
    ]
    _print_table(console, ("task", ">picture", ">people", ">in dispute"), disputes)
    if any(str(row[1]).endswith("*") for row in (*labels, *people)):
        console.print("* of few pictures", markup=False)


def _starred(pictures: int) -> str:
    from backend.runs.agreement import FEW_PICTURES

    return f"{pictures}*" if pictures < FEW_PICTURES else str(pictures)


# ---- next tasks ----------------------------------------------------------------------------------


@run.command("next-tasks", short_help="Choose tasks to correct next.")
@click.option(
    "--count",
    type=click.IntRange(1, MOST_NEXT_TASKS),
    default=20,
    show_default=True,
    help="How many tasks.",
)
@with_settings(*MODEL_SETTINGS)
@_view_option
@_report_options
def next_tasks(settings: Settings, given: _Given, count: int) -> None:
    """Choose tasks to correct next: at random, and no picture nearly like another.

    They have no annotation and no draft. Pictures are skipped that look nearly like one that
    was chosen, or like one that the project has learned from.
    """
    services, kind = _begin(settings, "next-tasks")
    show = partial(_show_next_tasks, address=partial(services.files.task_url, given.project))
    _run(services, kind, kind.asked(count), given, show)


def _show_next_tasks(
    report: NextTasks, console: Console, address: Callable[[int], str | None]
) -> None:
    console.print(
        f"{quantity(len(report.tasks), 'task')} of {report.unlabeled} without an annotation or a "
        f"draft: {quantity(report.compared, 'picture')} compared in {report.seconds:.1f} s, "
        f"{quantity(report.near_duplicates, 'near-duplicate')} skipped; compared with "
        f"{quantity(report.examples, 'corrected picture')} too"
    )
    rows = [(each.task, address(each.task) or "") for each in report.tasks]
    _print_table(console, (">task", "address"), rows)
    if report.shortage:
        console.print(report.shortage, markup=False)


# ---- words ---------------------------------------------------------------------------------------


@run.command(short_help="Check the words of labels, or try others.")
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
@with_settings(*MODEL_SETTINGS)
@_report_options
def words(
    settings: Settings,
    given: _Given,
    label: str,
    wordings: tuple[str, ...],
    thresholds: tuple[float, ...],
    methods: tuple[str, ...],
    pictures: int,
    on: Literal["auto", "corrected", "diverse"],
    use: int | None,
) -> None:
    """Try words for a label on pictures of a project, or check the words of all its labels.

    On corrected pictures, words are ranked by the paint that they save over all labels. Only --use
    writes to Label Studio.
    """
    of_label = {"--use": use is not None, "--words": wordings, "--threshold": thresholds}
    for option in (name for name, is_given in of_label.items() if is_given and not label):
        raise click.UsageError(f"{option} needs --label.")
    services, kind = _begin(settings, "words")
    asked = kind.asked(label, wordings, thresholds, methods, pictures, on)
    if use is not None and use >= len(asked.trials):  # before anything is measured
        raise click.UsageError(f"--use={use}: the rows are 0 to {len(asked.trials) - 1}.")
    show = partial(_show_words, project=given.project)
    report: WordsReport = _run(services, kind, asked, given, show)
    if use is not None:
        _ask(given, f"Write {report.row(use).line} into project {given.project}?")
        client = services.required_client(_USE)
        client.replace_label_config(given.project, report.config, report.config_with(use))
        click.echo("The label config of the project has these words now.")


def _show_words(report: WordsReport, console: Console, project: int) -> None:
    kind = "corrected picture" if report.on == "corrected" else "picture"
    what = quantity(report.pictures, kind) + (", not corrected" if kind == "picture" else "")
    console.print(what)
    if report.label:
        _print_trials(report, project, console)
    else:
        _print_check(report, console)


def _print_trials(report: WordsReport, project: int, console: Console) -> None:
    shares = (">saved paint,\nall labels", ">saved\npaint", ">IoU", ">of the\npicture")
    columns = ("row", "words", "method", ">thres-\nhold", *shares, ">ms a\npicture")
    rows = [
        (
            *(row.row, ", ".join(row.words) + (" (now)" if row.is_current else ""), row.method),
            f"{row.threshold:.4g}",
            *map(in_percent, (row.saved_paint_all, row.saved_paint, row.iou, row.share)),
            f"{row.milliseconds:.0f}",
        )
        for row in report.trials
    ]
    _print_table(console, columns, rows, padding=(0, 1, 0, 0))  # at most 80 letters wide
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
    columns = ("label", ">of the pictures", ">goes to another", ">highest probability")
    rows = [
        (each.label, in_percent(each.share), in_percent(each.changed), f"{each.highest:.2f}")
        for each in report.responses
    ]
    _print_table(console, columns, rows)
    for found in report.advice:
        console.print(f"\n{found.finding}\n  {found.remedy}", markup=False)
    if not report.advice:
        console.print("Nothing is found: the words lie apart.")
    if report.check is not None and report.check.unknown_from is None:
        console.print("Whether the model knows a word cannot be told with this model.")
