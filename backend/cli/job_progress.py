"""Run a job in a command, and show its progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import click
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from backend.cli.signals import stopped_by_signals
from backend.database.database import error_message
from backend.database.leases import LeaseLost, has_died
from backend.errors import JobOver
from backend.jobs.job import Job

if TYPE_CHECKING:
    from backend.services import Services

#: How often a job that another process works on is looked at, in seconds.
_POLL_S = 0.5


class Runner(Protocol):
    """Runs a leased job, see `Prelabeler.run` and `Withdrawer.run`."""

    def run(self, job: Job, stopping: threading.Event, watch: Callable[[Job], None]) -> Job:
        """Run it until it is over, paused or stopped."""


@contextmanager
def resumable() -> Iterator[None]:
    """End the command with a sentence where something is away and the same command goes on later.

    Raises:
        click.ClickException: the database is away, or another process has taken the job over.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database is away ({error_message(error)}): the same command goes on from here."
        ) from None
    except LeaseLost as error:
        raise click.ClickException(str(error)) from None


def run_job(services: Services, runner: Runner, job: Job) -> None:
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
                runner.run(leased, services.stopping, show)
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
