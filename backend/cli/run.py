"""``clearclip-backend run``: make a report on a project, and keep it for the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click
import msgspec

from backend.cli.evaluate import evaluate_project
from backend.cli.options import (
    IMAGE_SETTINGS,
    MODEL_SETTINGS,
    OUTPUT_FILE,
    STUDIO_SETTINGS,
    check_model,
    progress_bar,
    project_option,
    with_settings,
    write_json,
)
from backend.feedback.report.statistics import in_percent
from backend.feedback.report.tables import text_table
from backend.label_studio.client import LabelStudioClient, required_client
from backend.runs.run_store import MOST_WORD_IMAGES, Run
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.logs import printable
from backend.views.text import with_reasons
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.runs.agreement import Agreement
    from backend.runs.label_errors import LabelErrors
    from backend.runs.models import ModelsReport
    from backend.runs.words import WordsReport

_USE: Final = "The project is read from Label Studio"  # what these commands need Label Studio for
_Show = Callable[[Any], None]  # prints a report


class _ListsLeftOut(Protocol):
    """A report that says which tasks it has not read."""

    left_out: Mapping[int, str]  #: task -> why
    left_out_count: int  #: of all of them; the first ones are listed


_json_option = click.option("--json", "json_file", type=OUTPUT_FILE, help="Write it to a file.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_view_option = click.option(
    "--make-view", is_flag=True, help="After asking, make a view in Label Studio with these tasks."
)


@click.group()
def run() -> None:
    """Make a report on a project. The project's pages show it, too, except that of eval."""


run.add_command(evaluate_project)


def _command(
    name: str, fields: Sequence[str], *options: Callable[..., Any]
) -> Callable[[_Show], _Show]:
    """Make the command of a kind of run from the function that prints its report.

    Its help is the docstring of that function. Its options are what is asked of the kind, by
    their names; `--make-view` is one of all kinds whose reports list tasks.
    """

    def add(show: _Show) -> _Show:
        def command(settings: Settings, **given: Any) -> None:
            services = Services(settings)
            client = required_client(services.client, _USE)
            if "model" in fields:
                check_model(settings)
            _make(services, client, name, show=show, **given)

        command.__doc__ = show.__doc__
        for option in (*options, _json_option, project_option):
            command = option(command)
        run.command(name)(with_settings(*fields)(command))
        return show

    return add


def _make(
    services: Services,
    client: LabelStudioClient,
    name: str,
    *,
    show: _Show,
    project: int,
    json_file: Path | None,
    make_view: bool = False,
    yes: bool = False,
    **asked: Any,
) -> None:
    """Make a report, print it, keep it for the page, and make a view."""
    from backend.runs.runner import KINDS  # and torch with it, which the help does without

    created = time.time()
    kind = next(each for each in KINDS if each.name == name)
    request = kind.asked(**asked)
    begun = Run(id=0, kind=name, project=project, asked=msgspec.to_builtins(request))
    with (
        services.engine if kind.needs_model else nullcontext(),
        progress_bar(f"Project {project}", "step") as show_progress,
    ):
        report = kind.make(services.run_parts(client), begun, request, show_progress)
    # It took long: the report is told before the database is asked to keep it.
    if json_file is not None:
        write_json(json_file, report)
    show(report)
    _print_left_out(report)

    services.runs.add_done(kind, project, request, report, created)
    tasks = kind.tasks(report) if kind.tasks else ()
    if make_view and not tasks:
        click.echo("The report lists no task: there is no view to make.")
    elif make_view:
        if not yes:
            click.confirm(f"Make the view “{kind.title}” in project {project}?", abort=True)
        client.show_tasks(project, kind.title, tasks)
        click.echo(f"Label Studio has the view “{kind.title}” now.")


def _print_left_out(report: _ListsLeftOut) -> None:
    for task, reason in report.left_out.items():
        click.echo(printable(f"Left out: task {task}: {reason}"))
    if report.left_out_count > len(report.left_out):
        click.echo(f"Left out in all: {report.left_out_count} tasks")


def _print_table(rows: Iterable[Any], columns: Mapping[str, Any]) -> None:
    """Print rows as a table; `columns` are heading -> field, or what returns a row's text."""
    cells = ([_cell(row, each) for each in columns.values()] for row in rows)
    click.echo(f"{text_table([*columns], cells)}\n")


def _cell(row: Any, column: Any) -> str:
    value = getattr(row, column) if isinstance(column, str) else column(row)
    return in_percent(value) if isinstance(value, float) or value is None else str(value)


@_command("label-errors", MODEL_SETTINGS, _yes_option, _view_option)
def show_label_errors(report: LabelErrors) -> None:
    """Find annotations to check again.

    They disagree most with what the other annotations of the project teach. The project's page
    shows them with pictures. Those that were confirmed there are left out.
    """
    examples = f"{quantity(report.examples, 'training example')}, in folds"
    click.echo(
        f"{quantity(report.annotations, 'annotation')} of "
        f"{quantity(report.pictures, 'picture')}; "
        f"scores of {examples if report.examples else 'the words'}"
    )
    click.echo(report.notes)
    columns = {">task": "task", ">annotation": "annotation", "what is found": "sentence"}
    _print_table(report.suspicions, columns)


@_command(
    "agreement",
    (*STUDIO_SETTINGS, "model_dir", "database_url", *IMAGE_SETTINGS),
    _yes_option,
    _view_option,
)
def show_agreement(report: Agreement) -> None:
    """Compare what several annotators drew.

    On tasks that several people have annotated. The project's page shows the pixels in dispute.
    """
    if not report.pictures:
        click.echo(
            "There is nothing to compare yet: no task has annotations of several people with a "
            "region of a label."
        )
        return

    click.echo(
        f"{quantity(report.annotations, 'annotation')} of {quantity(report.tasks, 'task')}; in "
        f"dispute: {in_percent(report.disputed)} of the pixels of "
        f"{quantity(report.pictures, 'picture')}"
    )

    agreed = {">pictures": "pictures", ">IoU": "iou"}
    label = {"label": "label"} | agreed | {">in dispute": "disputed"}
    _print_table(report.labels, label)

    pair = {"one person": "label", "another": lambda row: row.other or "nothing"}
    _print_table(report.confusions, pair | {">pixels": "share"})

    person = {"annotator": lambda row: row.name or f"User {row.annotator}"}
    _print_table(report.annotators, person | agreed)

    disputes = {">task": "task", ">people": "people", ">in dispute": "disputed"}
    _print_table(report.disputes, disputes)


@_command("models", MODEL_SETTINGS)
def show_models(report: ModelsReport) -> None:
    """Compare the settings in use with others.

    With other methods, second encoders and sizes, one thing at a time, on annotated pictures: by
    the words, and by what the other pictures teach. The project's page shows the same table.
    """
    from backend.views.runs import MODEL_COLUMNS, model_rows, model_verdict  # torch

    click.echo(f"{quantity(report.pictures, 'picture')}, {quantity(report.labels, 'label')}")
    click.echo(f"{text_table(MODEL_COLUMNS, model_rows(report))}\n")
    click.echo(model_verdict(report))
    for line in report.best.lines if report.is_sure else ():
        click.echo(f"  {line}")
    for refusal in with_reasons(report.refused):
        click.echo(printable(f"Not compared: {refusal}"))


@_command(
    "words",
    MODEL_SETTINGS,
    click.option("--label", default="", help="The label; else the words of all are checked."),
    click.option(
        "--words",
        "wordings",
        multiple=True,
        help="Words to try, separated by commas; several times for several wordings.",
    ),
    click.option(
        "--pictures",
        default=8,
        show_default=True,
        type=click.IntRange(1, MOST_WORD_IMAGES),
        help="Number of pictures.",
    ),
)
def show_words(report: WordsReport) -> None:
    """Check the words of labels, or try others.

    On corrected pictures, words are ranked by the paint that they save over all labels. Nothing is
    written to Label Studio: the project's page has a button for it.
    """
    pictures = quantity(report.pictures, "corrected picture" if report.is_corrected else "picture")
    click.echo(pictures + ("" if report.is_corrected else ", not corrected"))
    if report.label:
        _print_trials(report)
    else:
        _print_check(report)


def _print_trials(report: WordsReport) -> None:
    columns = {
        "words": lambda row: ", ".join(row.words) + ("" if row.row else " (now)"),
        ">saved paint,\nall labels": "saved_paint",
        ">IoU": "iou",
        ">of the\npicture": "share",
    }
    _print_table(report.trials, columns)
    best = report.trials[0]
    if not report.is_corrected:
        click.echo(
            "Nothing is ranked, since nobody has corrected these pictures: the project's page "
            "shows the masks side by side."
        )
    elif best.row:
        click.echo(printable(f"Best: {best.line}"))


def _print_check(report: WordsReport) -> None:
    cells = [(label, in_percent(share)) for label, share in report.shares.items()]
    click.echo(f"{text_table(['label', '>of the pictures'], cells)}\n")
    for found in report.advice:
        click.echo(f"{printable(found.finding)}\n  {printable(found.remedy)}")
    if not report.advice:
        click.echo("Nothing is found: the words lie apart.")
