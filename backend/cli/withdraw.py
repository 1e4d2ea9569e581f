"""``clearclip-backend withdraw``: delete the predictions of a job that nobody has worked with."""

from __future__ import annotations

import json
import threading

import click
from tqdm import tqdm

from backend.cli.job_progress import resumable, run_job
from backend.cli.options import NUMBER, with_settings
from backend.label_studio_services import check_token
from backend.settings import Settings
from clearclip_core.quantities import quantity


@click.command()
@click.option("--job", type=NUMBER, required=True, help="Number of the job, see the dashboard.")
@click.option("--dry-run", is_flag=True, help="Say what there is to delete, and delete nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_settings("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def withdraw(settings: Settings, job: int, dry_run: bool, as_json: bool) -> None:
    """Delete the predictions of a job in Label Studio that nobody has worked with.

    Tasks that have an annotation or a draft keep theirs, and are listed. A run that was interrupted
    continues when the same command is given again. With --dry-run, Label Studio is asked for the
    predictions of each task, too, which takes its time. The exit status is 0 when it is over, 1
    when it could not go on, and 130 after Ctrl-C or where it was paused.
    """
    check_token(settings, "predictions are deleted")
    from backend.services import Services  # and torch with it, which the help does without

    services = Services(settings, stopping=threading.Event())
    client = services.required_client("predictions are deleted")
    services.database.check()
    withdrawer, store = services.withdrawer(client), services.store
    if dry_run:
        with tqdm(unit="task", desc=f"Job {job}", leave=False, disable=None) as bar:

            def watch(done: int, total: int) -> None:
                bar.n, bar.total = done, total
                bar.refresh()

            plan = withdrawer.plan(job, watch)
        counts = {"job": job, "version": plan.version, "to_delete": plan.to_delete}
        ids = {"kept": [*plan.kept], "unlisted": [*plan.unlisted]}
        click.echo(json.dumps({**counts, "tasks": plan.tasks, **ids}) if as_json else plan)
        return
    with resumable():
        started = store.start_withdrawal(job)
        run_job(services, withdrawer, started)
        done, kept = store.get_job(started.id), store.task_ids(started.id) or ()
    if as_json:
        counts = {"job": job, "version": done.version, "state": done.state, "deleted": done.done}
        click.echo(json.dumps({**counts, "reason": done.reason, "kept": [*kept]}))
    else:
        click.echo(f"Withdrawal of job {job}: {done.state}. {done.reason}".rstrip())
        deleted = quantity(done.done, "prediction")
        click.echo(f"{deleted} deleted, those of {quantity(len(kept), 'task')} kept.")
        if kept:
            click.echo(f"Kept: {', '.join(map(str, kept))}")
    raise SystemExit(130 if not done.over else 0 if done.state == "done" else 1)
