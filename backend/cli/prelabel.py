"""``clearclip-backend prelabel``: predict a whole project without a server."""

from __future__ import annotations

import importlib.util
import json
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.cli.job_progress import resumable, run_job
from backend.cli.options import (
    MODEL_SETTINGS,
    NUMBER,
    OUTPUT_FILE,
    project_option,
    view_option,
    with_settings,
    write_text,
)
from backend.errors import StudioUnreachable
from backend.jobs.job import Only
from backend.label_studio_services import check_token
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.jobs.prelabeler import Prelabeler
    from backend.services import Services


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
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
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
    ray_address: str,
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
    check_token(settings, "predictions are written")
    if where == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed here: pip install '.[ray]'.")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings, stopping=threading.Event())
    _check_project(services, project)
    with resumable(), ExitStack() as stack:
        prelabeler = make_prelabeler(services, stack, where, ray_address, actors)
        if dry_run:
            click.echo(prelabeler.plan(project, only=only, view=view, limit=limit))
            return
        job = services.store.start_job(project, only=only, view=view, limit=limit)
        run_job(services, prelabeler, job)
        report = prelabeler.report(job.id)
    if report_file:
        write_text(report_file, json.dumps(report.to_json(), indent=2) + "\n")
    click.echo(report)
    if not report.job.over:
        raise SystemExit(130)
    raise SystemExit(0 if report.complete else 1)


def _check_project(services: Services, project: int) -> None:
    """Refuse a token or a project that Label Studio refuses, before the model is loaded.

    Where Label Studio is away, the job is started: it waits.

    Raises:
        StudioRefused: the token is refused, or there is no such project for it.
    """
    client = services.page_client
    assert client is not None
    with suppress(StudioUnreachable):
        client.label_config(project)


def make_prelabeler(
    services: Services, stack: ExitStack, where: str, ray_address: str, actors: int | None
) -> Prelabeler:
    """Make the prelabeler for this machine or for a Ray cluster.

    Args:
        services: the parts that it is made of.
        stack: ends the inference engine, which runs where `where` is "local".
        where: "local" or "ray".
        ray_address: address of the cluster; empty for one that is made on this machine.
        actors: how many copies of the model the cluster has; None: one for each GPU or node.

    Raises:
        ValueError: there is no token for Label Studio.
    """
    client = services.required_client("predictions are written")
    engine = services.engine
    if where == "local":
        stack.enter_context(engine)
    services.database.check()
    if where == "ray":
        return services.ray_prelabeler(client, ray_address, actors)
    return services.prelabeler(client)
