"""A bulk job as the command line runs it: without a server, with a bar, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from tqdm import tqdm

from backend.database.leases import LeaseLost, has_died
from backend.errors import JobOver
from backend.jobs.job_store import Job, JobStore
from backend.jobs.prelabeler import Prelabeler, Report
from backend.services import Services


def make_prelabeler(
    services: Services, stack: ExitStack, where: str, actors: int | None
) -> Prelabeler:
    """Make what runs a job here or on a Ray cluster, and start the engine where it runs here.

    Raises:
        ValueError: Label Studio cannot be reached for want of settings, or Ray is not installed.
    """
    client = services.required_client("predictions are written")
    if where == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed here: pip install '.[ray]'.")
    engine = services.engine
    if where == "local":
        stack.enter_context(engine)
    services.store.check()
    if where == "ray":
        return services.ray_prelabeler(client, actors)
    return services.prelabeler(client)


def run_job(
    store: JobStore, prelabeler: Prelabeler, owner: str, job: Job, stopping: threading.Event
) -> Report:
    """Run a job here, with a bar, until it is over or Ctrl-C; or watch it where another does."""
    with (
        signals_set(stopping),
        tqdm(unit="picture", dynamic_ncols=True, desc=f"Project {job.project}") as bar,
    ):

        def watch(job: Job) -> None:
            bar.total, bar.n = job.total, job.done + job.skipped + job.failed
            bar.initial = job.skipped if bar.initial == 0 else bar.initial
            bar.set_postfix(failed=job.failed)

        leased = _lease(store, owner, job, stopping, watch)
        if leased is not None:
            try:
                job = prelabeler.run(leased, stopping, watch)
            finally:
                _rest(store, owner, job.id)
    return prelabeler.report(job.id)


def _rest(store: JobStore, owner: str, job: int) -> None:
    """Leave a job that is not over for the same command to go on with."""
    with suppress(JobOver, LeaseLost):
        if not store.get_job(job).over:
            store.pause(job)
            store.release(job, owner)


def _lease(
    store: JobStore,
    owner: str,
    job: Job,
    stopping: threading.Event,
    watch: Callable[[Job], None],
) -> Job | None:
    """Take a job, from a run that was killed too; None once another has ended it, or Ctrl-C."""
    while not stopping.is_set():
        leased = store.lease_job(owner, job.id)
        if leased is not None:
            return leased
        now = store.get_job(job.id)
        if now.over:
            break
        holder = store.holder(job.project)
        if holder is not None and has_died(holder.owner):
            store.release(holder.id, holder.owner)
            continue
        watch(now)
        stopping.wait(0.5)
    return None


@contextmanager
def signals_set(stopping: threading.Event) -> Iterator[None]:
    """Ctrl-C and `kill` let what is predicted be written; a second one ends at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
