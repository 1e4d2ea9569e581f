"""``clearclip-backend prelabel`` and ``withdraw``: predict a whole project, or take it back."""

import importlib.util
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import click
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from backend.cli.options import (
    MODEL_SETTINGS,
    NUMBER,
    check_model,
    project_option,
    stopped_by_signals,
    view_option,
    with_settings,
)
from backend.database.database import error_message
from backend.database.leases import LeaseLost, has_died
from backend.errors import JobOver
from backend.jobs.job_store import Job, Only
from backend.jobs.worker import Withdrawer
from backend.label_studio.client import required_client
from backend.projects.failures import FailingTask, FailureStore
from backend.services import Services
from backend.settings import Settings
from backend.telemetry.logs import printable
from clearclip_core.quantities import quantity

#: The most different reasons of failures that are printed, the most frequent first.
_MAX_REASONS = 10

_POLL_S = 0.5  # how often a job that another process works on is looked at, in seconds


#: Runs a leased job until it is over, paused or stopped: `Prelabeler.run`, `Withdrawer.run`.
_RunJob = Callable[[Job, threading.Event, Callable[[Job], None]], Job]


@contextmanager
def resumable() -> Iterator[None]:
    """End the command with a sentence where something is away and it can go on later."""
    try:
        yield
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database is away ({error_message(error)}): the same command goes on from here."
        ) from None
    except LeaseLost as error:
        raise click.ClickException(str(error)) from None


def run_job(services: Services, run: _RunJob, job: Job) -> None:
    """Run a job here with a progress bar, or show its progress where another process runs it.

    It returns when the job is over, or after Ctrl-C.
    """
    with (
        stopped_by_signals(services.stopping),
        tqdm(unit="task", dynamic_ncols=True, desc=f"Project {job.project}") as bar,
    ):

        def show(job: Job) -> None:
            bar.total, bar.n = job.total, job.done + job.skipped + job.failed
            bar.initial = job.skipped if bar.initial == 0 else bar.initial
            bar.set_postfix(failed=job.failed)

        leased = _lease(services, job, show)
        if leased is not None:
            try:
                run(leased, services.stopping, show)
            finally:
                _pause(services, job.id)


def _pause(services: Services, job: int) -> None:
    """Pause a job that is not over and release it, for the same command to continue."""
    store = services.store
    with suppress(JobOver, LeaseLost):
        if not store.get_job(job).over:
            store.pause(job)
            store.release(job, services.owner)


def _lease(services: Services, job: Job, show: Callable[[Job], None]) -> Job | None:
    """Lease a job, also one whose process has died; None where it has ended, or after Ctrl-C."""
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
            store.expire(holder.id, holder.owner)
            continue
        show(now)
        stopping.wait(_POLL_S)
    return None


@click.command()
@project_option
@click.option(
    "--filter",
    "only",
    type=click.Choice(["unlabeled", "all"]),
    default="unlabeled",
    show_default=True,
    help="Tasks without annotations, or all. Those with a prediction of this version are skipped.",
)
@view_option
@click.option("--limit", type=NUMBER, help="Predict at most this many tasks.")
@click.option(
    "--engine",
    "where",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Predict on this machine, or on a Ray cluster.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    default="",
    help="With --engine ray: host:port of the cluster; without one it is made on this machine. "
    "[RAY_ADDRESS]",
)
@click.option(
    "--actors", type=click.IntRange(min=1), help="With --engine ray: how many copies of the model."
)
@with_settings(*MODEL_SETTINGS)
def prelabel(
    settings: Settings,
    *,
    project: int,
    only: Only,
    view: int | None,
    limit: int | None,
    where: str,
    ray_address: str,
    actors: int | None,
) -> None:
    """Predict all tasks of a project and write the predictions to Label Studio.

    Beside a backend that serves, give the command the settings of that backend, its database
    included. Either of them may take the job. With other settings the predictions have a version
    that Label Studio does not ask for.

    A run that was interrupted continues when the same command is given again. The exit status is 0
    when every task has its prediction, 1 when some have failed or the run could not continue, and
    130 after Ctrl-C or where the job was paused.
    """
    services = Services(settings)
    client = required_client(services.client, "Predictions are written to Label Studio")
    check_model(settings)
    if where == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed here: pip install '.[ray]'.")
    services.database.check()

    page_client = required_client(services.page_client, "")
    page_client.label_config(project)  # asks once, before the model loads

    with resumable(), services.engine if where == "local" else nullcontext():
        prelabeler = (
            services.prelabeler(client, services.predictor())
            if where == "local"
            else services.ray_prelabeler(client, ray_address, actors)
        )
        job = services.store.start_job(project, only=only, view=view, limit=limit)
        run_job(services, prelabeler.run, job)
        job = services.store.get_job(job.id)
        failures = FailureStore(services.database).of_job(job.id, limit=10_000)

    click.echo(_describe(job, failures))
    if not job.over:
        raise SystemExit(130)
    raise SystemExit(0 if job.state == "done" and not job.failed else 1)


def _describe(job: Job, failures: Sequence[FailingTask]) -> str:
    """Return the result of a job in lines for people."""
    state = f"Job {job.id}, project {job.project}: {job.state}. {printable(job.reason)}".rstrip()
    counts = f"{job.done} done, {job.skipped} skipped, {job.failed} failed of {job.total}"
    lines = [state, f"{counts}, {job.rate:.1f} pictures/s"]
    reasons = Counter(failure.reason for failure in failures).most_common(_MAX_REASONS)
    lines += [f"{count} x {printable(reason)}" for reason, count in reasons]
    if job.state == "paused":
        lines.append("The same command goes on from here.")
    return "\n".join(lines)


@click.command()
@click.option("--job", type=NUMBER, required=True, help="Number of the job, see the dashboard.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def withdraw(settings: Settings, job: int) -> None:
    """Delete the predictions of a job in Label Studio that nobody has worked with.

    Tasks that have an annotation or a draft keep theirs, and are listed. A run that was interrupted
    continues when the same command is given again. The exit status is 0 when it is over, 1 when it
    could not go on, and 130 after Ctrl-C or where it was paused.
    """
    services = Services(settings)
    client = required_client(services.client, "Predictions are deleted in Label Studio")
    services.database.check()
    withdrawer, store = Withdrawer(services.store, client, services.owner), services.store
    with resumable():
        started = store.start_withdrawal(job)
        run_job(services, withdrawer.run, started)
        done, kept = store.get_job(started.id), store.task_ids(started.id) or ()
    click.echo(f"Withdrawal of job {job}: {done.state}. {done.reason}".rstrip())
    deleted = quantity(done.done, "prediction")
    click.echo(f"{deleted} deleted, those of {quantity(len(kept), 'task')} kept.")
    if kept:
        click.echo(f"Kept: {', '.join(map(str, kept))}")
    raise SystemExit(130 if not done.over else 0 if done.state == "done" else 1)
