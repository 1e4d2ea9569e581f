"""``clearclip-backend prelabel``: predict a whole project without a server."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from backend.cli.options import MODEL_SETTINGS, OUTPUT_FILE, with_settings, write_text
from backend.cli.signals import stopped_by_signals
from backend.database.database import error_message
from backend.database.leases import LeaseLost, has_died
from backend.errors import JobOver
from backend.jobs.job import Job, Only
from backend.jobs.job_report import JobReport
from backend.jobs.prelabeler import Prelabeler
from backend.services import Services
from backend.settings import Settings

#: How often a job that another process works on is looked at, in seconds.
_POLL_S = 0.5


@click.command()
@click.option("--project", type=int, required=True, help="Number of the project.")
@click.option(
    "--filter",
    "only",
    type=click.Choice(["unlabeled", "all"]),
    default="unlabeled",
    show_default=True,
    help="Tasks without annotations, or all. Those with a prediction of this version are skipped.",
)
@click.option("--view", type=int, help="Number of a view of the data manager: its tasks only.")
@click.option("--limit", type=click.IntRange(min=1), help="Predict at most this many tasks.")
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option(
    "--engine",
    "where",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Predict on this machine; or on the Ray cluster of RAY_ADDRESS, else on one made here.",
)
@click.option(
    "--actors", type=click.IntRange(min=1), help="With --engine ray: how many copies of the model."
)
@click.option(
    "--report",
    "report_file",
    type=OUTPUT_FILE,
    help="Write the counts, and the reason of each task that failed, to this file as JSON.",
)
@with_settings(*MODEL_SETTINGS)
def prelabel(
    settings: Settings,
    project: int,
    only: Only,
    view: int | None,
    limit: int | None,
    dry_run: bool,
    where: str,
    actors: int | None,
    report_file: Path | None,
) -> None:
    """Predict all tasks of a project and write the predictions to Label Studio.

    Beside a backend that serves, give the command the settings of that backend, its database
    included. Either of them may take the job. With other settings the predictions have a version
    that Label Studio does not ask for.

    A run that was interrupted continues when the same command is given again. The exit status is 0
    when every task has its prediction, 1 when some have failed or the run could not continue, and
    130 after Ctrl-C or where the job was paused.
    """
    services = Services(settings, stopping=threading.Event())
    try:
        with ExitStack() as stack:
            prelabeler = make_prelabeler(services, stack, where, actors)
            if dry_run:
                click.echo(prelabeler.plan(project, only=only, view=view, limit=limit))
                return
            job = services.store.start_job(project, only=only, view=view, limit=limit)
            report = run_job(services, prelabeler, job)
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database is away ({error_message(error)}): the same command goes on from here."
        ) from None
    except LeaseLost as error:
        raise click.ClickException(str(error)) from None
    if report_file:
        write_text(report_file, json.dumps(report.to_json(), indent=2) + "\n")
    click.echo(report)
    if not report.job.over:
        raise SystemExit(130)
    raise SystemExit(0 if report.complete else 1)


def make_prelabeler(
    services: Services, stack: ExitStack, where: str, actors: int | None
) -> Prelabeler:
    """Make the prelabeler for this machine or for a Ray cluster.

    Args:
        services: the parts that it is made of.
        stack: ends the inference engine, which runs where `where` is "local".
        where: "local" or "ray".
        actors: how many copies of the model the cluster has; None: one for each GPU or node.

    Raises:
        ValueError: there is no token for Label Studio, or Ray is not installed.
    """
    client = services.required_client("predictions are written")
    if where == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed here: pip install '.[ray]'.")
    engine = services.engine
    if where == "local":
        stack.enter_context(engine)
    services.database.check()
    if where == "ray":
        return services.ray_prelabeler(client, actors)
    return services.prelabeler(client)


def run_job(services: Services, prelabeler: Prelabeler, job: Job) -> JobReport:
    """Run a job here with a progress bar, or show its progress where another process runs it.

    It returns when the job is over, or after Ctrl-C.
    """
    with (
        stopped_by_signals(services.stopping),
        tqdm(unit="picture", dynamic_ncols=True, desc=f"Project {job.project}") as bar,
    ):

        def show(job: Job) -> None:
            bar.total, bar.n = job.total, job.done + job.skipped + job.failed
            bar.initial = job.skipped if bar.initial == 0 else bar.initial
            bar.set_postfix(failed=job.failed)

        leased = _lease(services, job, show)
        if leased is not None:
            try:
                job = prelabeler.run(leased, services.stopping, show)
            finally:
                _pause(services, job.id)
    return prelabeler.report(job.id)


def _pause(services: Services, job: int) -> None:
    """Pause a job that is not over and release it, for the same command to continue."""
    store = services.store
    with suppress(JobOver, LeaseLost):
        if not store.get_job(job).over:
            store.pause(job)
            store.release(job, services.owner)


def _lease(services: Services, job: Job, show: Callable[[Job], None]) -> Job | None:
    """Lease a job, also one whose process has died.

    Returns:
        The job; None: another process has ended it, or after Ctrl-C.
    """
    store, stopping = services.store, services.stopping
    while not stopping.is_set():
        leased = store.lease_job(services.owner, job.id)
        if leased is not None:
            return leased
        now = store.get_job(job.id)
        if now.over:
            break
        holder = store.leased_job(job.project)
        if holder is not None and has_died(holder.owner):
            store.release(holder.id, holder.owner)
            continue
        show(now)
        stopping.wait(_POLL_S)
    return None
