"""``clearclip-backend gate``: which predictions need no look."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from backend.cli.options import OUTPUT_FILE, project_option, with_settings, write_text
from backend.cli.signals import stopped_by_signals
from backend.label_studio_services import READ_RETRY_FOR_S, check_token
from backend.settings import Settings
from clearclip_core.quantities import quantity

if TYPE_CHECKING:
    from backend.feedback.gate.gate_report import GateReport
    from backend.services import Services


@click.command()
@project_option
@click.option("--version", help="Model version; by default the one that was corrected most.")
@click.option("--find", is_flag=True, help="Find the tasks without an annotation that pass.")
@click.option(
    "--show", is_flag=True, help="Make views of the data manager with the tasks that were found."
)
@click.option(
    "--accept",
    is_flag=True,
    help="After asking, turn the tasks that were found into annotations, but for the audited ones.",
)
@click.option(
    "--withdraw", is_flag=True, help="Delete the gate's annotations that nobody has changed."
)
@click.option("--reopen", is_flag=True, help="Open a gate that its audit has closed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write all figures to this file.")
@with_settings(
    "label_studio_url",
    "label_studio_api_key",
    "model_dir",
    "database_url",
    "gate_share",
    "gate_confidence",
    "gate_audit_share",
)
def gate(
    settings: Settings,
    project: int,
    version: str | None,
    find: bool,
    show: bool,
    accept: bool,
    withdraw: bool,
    reopen: bool,
    yes: bool,
    json_file: Path | None,
) -> None:
    """Report which predictions of a project need no look, from its corrections.

    The report reads what the backend has read of annotations, and asks Label Studio nothing. Only
    --accept, --withdraw and --show change anything there.
    """
    if sum((accept, withdraw, reopen)) > 1:
        raise click.UsageError("Use one of --accept, --withdraw and --reopen.")
    if find or show or accept or withdraw:
        check_token(settings, "tasks are read")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings, stopping=threading.Event())
    services.database.check()
    services.gates.remakes = False
    report = services.gates.report(project, version)
    if (report.share, report.confidence) != (settings.gate_share, settings.gate_confidence):
        click.echo(
            f"This gate was made for a share of {report.share:g} and a confidence of "
            f"{report.confidence:g}, and stays: only a backend that serves makes it anew for "
            "another GATE_SHARE or GATE_CONFIDENCE.",
            err=True,
        )
    if reopen:
        report = services.gates.reopen(project, version)
    if find or show or accept or withdraw:
        with stopped_by_signals(services.stopping):
            _ask_label_studio(services, report, find, show, accept, withdraw, yes)
        report = services.gates.report(project, version)
    if json_file is not None:
        write_text(json_file, json.dumps(services.gates.describe(report), indent=2) + "\n")
    print_gate(report, Console())
    if services.stopping.is_set():
        raise SystemExit(130)


def _ask_label_studio(
    services: Services,
    report: GateReport,
    find: bool,
    show: bool,
    accept: bool,
    withdraw: bool,
    yes: bool,
) -> None:
    from backend.feedback.gate.gate_runs import describe

    client = services.required_client("tasks are read", retry_for_s=READ_RETRY_FOR_S)
    keeper, asked = services.gate_keeper(client), (report.project, report.version or None)
    with tqdm(unit="task", dynamic_ncols=True, desc=f"Project {report.project}") as bar:

        def advance(done: int) -> bool:
            bar.n = done
            bar.refresh()
            return not services.stopping.is_set()

        if find:
            report = keeper.find(*asked, advance)
        if show:
            for which in ("listed", "audit"):
                keeper.show(report.project, which, report.version or None)
        if accept:
            count = report.tasks["listed"]
            if not yes:
                click.confirm(f"Annotate {quantity(count, 'task')}, unseen?", abort=True)
            click.echo(describe("annotated by the gate", keeper.accept(*asked, advance)))
        if withdraw:
            made = keeper.withdraw(*asked, advance)
            click.echo(describe("without the gate's annotation again", made))


def print_gate(report: GateReport, console: Console) -> None:
    """Print the report on a gate for people."""
    from backend.feedback.gate.gate_report import STATES
    from backend.feedback.report.definitions import percent

    console.print(f"Acceptance gate of project {report.project}, {report.version or 'no version'}")
    console.print(f"{report.state}: {STATES[report.state]}", markup=False)
    if report.next_look is not None:
        console.print(
            f"{quantity(report.annotations, 'annotation')} compared; made anew at "
            f"{report.next_look} tasks."
        )
    if report.unscored:
        console.print(
            f"Read before scores were kept: {quantity(report.unscored, 'task')}. Run "
            f"clearclip-backend report --project {report.project} --backfill"
        )
    if report.gate is None:
        return
    if report.promise is not None:
        console.print(report.promise, markup=False)
    gate = report.gate
    console.print(
        f"{gate.passed} of {gate.checked} checked pictures pass ({percent(gate.coverage)}); "
        f"{gate.changed} of them needed a change."
    )
    if report.order is not None:
        console.print(report.order, markup=False)
    console.print(
        f"Tasks that pass: {report.tasks['listed']}; more to be audited: {report.tasks['audit']}; "
        f"accepted: {report.tasks['accepted']}. Audited: {report.audited}, "
        f"{report.audited_changed} needed a change."
    )
    table = Table(box=None)
    table.add_column("label")
    for name in ("pictures", "no change", "safe by itself from", "of pictures", "the gate asks"):
        table.add_column(name, justify="right")
    for each in gate.labels:
        table.add_row(
            escape(each.label),
            str(each.pictures),
            percent(each.kept / each.pictures if each.pictures else None),
            _score(each.alone),
            f"{each.alone_kept}/{each.alone_pictures}" if each.alone is not None else "–",
            _score(each.asked),
        )
    console.print(table)


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"
