"""``clearclip-backend``: the command line."""

from __future__ import annotations

import json
import logging.config
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from backend.cli.database import database
from backend.cli.demo import label_config, run_demo
from backend.cli.demo_servers import DemoError
from backend.cli.doctor import check_setup
from backend.cli.export import export_tasks
from backend.cli.options import Command, read_settings, sentences, settings_options
from backend.cli.prelabel import make_prelabeler, run_job, signals_set
from backend.cli.settings import env_example, markdown, table, write_into
from backend.database.database import sentence
from backend.database.leases import LeaseLost
from backend.errors import BackendError
from backend.feedback.annotation_reader import AnnotationReader, read_all
from backend.feedback.learning.learner import Learner
from backend.feedback.learning.version_file import read_export
from backend.feedback.learning.versions import describe_version
from backend.feedback.report.charts import plots
from backend.feedback.report.statistics import Step, measure, to_csv
from backend.feedback.report.tables import print_learned, print_savings
from backend.jobs.job_store import Only
from backend.label_studio.label_config_parser import parse_label_config
from backend.services import READ_RETRY_FOR_S, Services
from backend.settings import Settings
from backend.telemetry.logs import logging_config
from backend.web.pages.learning_status import describe_learning
from backend.web.server import check_device, run_gunicorn
from clearclip_core.images.files import find_pictures

_PROJECT = click.IntRange(1, (1 << 31) - 1)  # as far as a database counts
_FILE = click.Path(dir_okay=False, path_type=Path)

#: What a bulk run may be told; it listens nowhere.
_PRELABEL_SETTINGS = (
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "model",
    "method",
    "device",
    "precision",
    "short_side_px",
    "refine",
    "score",
    "model_dir",
    "database_url",
    "max_image_mb",
    "max_image_megapixels",
    "min_island_share",
    "adapt",
)


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """ClearCLIP as a Label Studio ML backend."""


main.add_command(database)


@main.command()
@settings_options()
def serve(**given: str | None) -> None:
    """Serve the backend: one process, one model, a thread for each request."""
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings))
    try:  # what can never work is said before anything starts
        Services(settings).check()
        check_device(settings)
    except (BackendError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    run_gunicorn(settings)


@main.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option("--labels", help='Names of the labels: "sky,tree,horse".')
@click.option(
    "--label-config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The project's labeling config as an XML file, in place of --labels.",
)
@click.option(
    "--url-prefix",
    default="/data/local-files/?d=",
    show_default=True,
    help="What stands before a picture's path in the tasks.",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that the paths in the tasks start from, such as Label Studio's "
    "LOCAL_FILES_DOCUMENT_ROOT; else they are as written here.",
)
@click.option(
    "-o", "--out", default="tasks.json", show_default=True, type=click.Path(), help="File to write."
)
@settings_options(
    "model", "method", "device", "precision", "short_side_px", "model_dir", "min_island_share"
)
def export(
    pictures: tuple[str, ...],
    labels: str | None,
    config_file: Path | None,
    url_prefix: str,
    root: Path | None,
    out: str,
    **given: str | None,
) -> None:
    """Write pictures as Label Studio tasks with predictions, ready to import.

    PICTURES are files, folders or globs. With --labels, the labeling config that the predictions
    belong to is written beside the tasks.
    """
    if (labels is None) == (config_file is None):
        raise click.UsageError("Give either --labels or --label-config.")
    xml = (
        config_file.read_text()
        if config_file
        else label_config([name.strip() for name in (labels or "").split(",") if name.strip()])
    )
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings, "WARNING"))
    target = Path(out)
    paths = find_pictures(pictures)
    with sentences():
        tasks = export_tasks(paths, xml, settings, url_prefix, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(tasks))
    if labels is not None:
        target.with_suffix(".label-config.xml").write_text(xml)
    missing = sum(not task["predictions"] for task in tasks)
    click.echo(f"{len(tasks)} tasks written to {target}, {missing} of them without predictions.")
    if missing:
        raise SystemExit(1)


@main.command()
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
@click.option("--limit", type=click.IntRange(min=1), help="At most so many predictions.")
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option(
    "--engine",
    "where",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine; or the Ray cluster of RAY_ADDRESS, or of this machine.",
)
@click.option("--actors", type=click.IntRange(min=1), help="With --engine ray: how many models.")
@click.option(
    "--report",
    "report_file",
    type=_FILE,
    help="Write what was done, and each task that failed with its reason, to this file as JSON.",
)
@settings_options(*_PRELABEL_SETTINGS)
def prelabel(
    project: int,
    only: Only,
    view: int | None,
    limit: int | None,
    dry_run: bool,
    where: str,
    actors: int | None,
    report_file: Path | None,
    **given: str | None,
) -> None:
    """Predict all tasks of a project and write the predictions to Label Studio.

    Beside a backend that serves, give it that one's settings, the database too: either may take the
    job, and with others the predictions are of a version that Label Studio does not ask for.

    A run that has ended in whatever way goes on where it was when the same command is given again.
    The exit status is 0 when every task has its prediction, 1 when some have failed or the run
    could not go on, 130 after Ctrl-C and where the job was paused.
    """
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings, "WARNING"))
    stopping = threading.Event()
    try:
        with ExitStack() as stack:
            services = Services(settings, stopping=stopping)
            prelabeler = make_prelabeler(services, stack, where, actors)
            if dry_run:
                click.echo(prelabeler.plan(project, only=only, view=view, limit=limit))
                return
            job = services.store.start_job(project, only=only, view=view, limit=limit)
            report = run_job(services.store, prelabeler, services.owner, job, stopping)
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database is away ({sentence(error)}): the same command goes on from here."
        ) from None
    except (BackendError, LeaseLost, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if report_file:
        _write(report_file, json.dumps(report.to_json(), indent=2) + "\n")
    click.echo(report)
    if not report.job.over:
        raise SystemExit(130)
    raise SystemExit(0 if report.complete else 1)


@main.command()
@click.option("--project", type=_PROJECT, required=True, help="Number of the project.")
@click.option(
    "--backfill",
    is_flag=True,
    help="First read all annotations that the project has, whenever they were made.",
)
@click.option(
    "--step", type=click.Choice(["day", "week"]), help="By day or by week; else as it fits."
)
@click.option("--label", help="Of this label only.")
@click.option("--json", "json_file", type=_FILE, help="Write all figures to this file.")
@click.option("--csv", "csv_file", type=_FILE, help="Write them as a table to this file.")
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the plots as SVG into this folder.",
)
@settings_options("label_studio_url", "label_studio_api_key", "model_dir", "database_url")
def report(
    project: int,
    backfill: bool,
    step: Step | None,
    label: str | None,
    json_file: Path | None,
    csv_file: Path | None,
    plots_folder: Path | None,
    **given: str | None,
) -> None:
    """Say what the prelabels of a project save, from what annotators have left of them.

    Annotations are read by the backend that serves, as they are submitted. Those that wait are read
    first, where LABEL_STUDIO_API_KEY is set.
    """
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings, "WARNING"))
    stopping = threading.Event()
    try:
        services = Services(settings, stopping=stopping)
        services.store.check()
        with signals_set(stopping):
            _read_annotations(services, project, backfill)
        annotations = services.annotations
        waiting = annotations.count_open(project)
        reads = annotations.stream(project)
        savings = measure(project, reads, waiting=waiting, step=step, label=label)
    except (BackendError, SQLAlchemyError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if json_file is not None:
        _write(json_file, json.dumps(savings.to_json(), indent=2) + "\n")
    if csv_file is not None:
        _write(csv_file, to_csv(savings))
    if plots_folder is not None:
        for name, svg in plots(savings, standalone=True).items():
            _write(plots_folder / f"{name}.svg", svg)
    print_savings(savings, Console())
    if stopping.is_set():
        raise SystemExit(130)


@main.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Your own pictures in place of drawn scenes.",
)
@click.option("--labels", default="", help='Labels for your own pictures: "sky,tree,horse".')
@click.option("--model", default="demo", show_default=True, help="See `clearclip models`.")
@click.option("--once", is_flag=True, help="End after the report; not 0 if anything fell short.")
@click.option("--label-studio", "label_studio_command", help="Path of the label-studio command.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep Label Studio's data here.")
@click.option("--studio-port", default=8080, show_default=True, help="Port of Label Studio.")
@click.option("--backend-port", default=9090, show_default=True, help="Port of the backend.")
def demo(labels: str, **given: Any) -> None:
    """Start the real Label Studio beside the backend and prelabel a project."""
    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    try:
        raise SystemExit(run_demo(labels=names, **given))
    except DemoError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--project", "project_id", type=int, required=True, help="Its number.")
@click.option(
    "--backend-url", help="Where the backend is reached from here, if not as Label Studio does."
)
@click.option("--fix", is_flag=True, help="Set up the webhook in Label Studio.")
@settings_options(
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "basic_auth_user",
    "basic_auth_pass",
    "port",
)
def doctor(project_id: int, backend_url: str | None, fix: bool, **given: str | None) -> None:
    """Check Label Studio, a project and the backend that runs, in both directions.

    Give it the settings that the backend has. It ends with 0 if all is well.
    """
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings, "ERROR"))
    ill = 0
    for finding in check_setup(settings, project_id, backend_url=backend_url, fix=fix):
        click.echo(finding)
        ill += finding.well is False
    if ill:
        raise SystemExit(1)


@main.command("settings")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "env"]),
    default="table",
    show_default=True,
    help="For the terminal, as Markdown, or as the .env.example of Docker Compose.",
)
@click.option(
    "--into",
    type=_FILE,
    help="Write to this file: Markdown between its lines settings:begin and settings:end.",
)
def list_settings(form: str, into: Path | None) -> None:
    """List every setting with its default and what it does; what is set now is not shown."""
    if form == "table":
        if into is not None:
            raise click.UsageError("--into needs --format markdown or env.")
        Console().print(table())
        return
    text = markdown() if form == "markdown" else env_example()
    if into is None:
        click.echo(text, nl=False)
    elif form == "env":
        _write(into, text)
    else:
        with sentences():
            write_into(into, text)


@main.group()
def adapt() -> None:
    """See and steer what a project has learned from its corrections.

    Give it the settings that the backend has, MODEL and DATABASE_URL above all.
    """


#: The settings that name the model and the database.
_LEARNING_SETTINGS = ("model", "method", "short_side_px", "model_dir", "database_url", "adapt")

_PROJECT_OPTION = click.option(
    "--project", type=_PROJECT, required=True, help="Number of the project."
)


def _steering(name: str) -> Callable[[Command], Command]:
    """A command of `adapt` that needs no model: what it raises is a sentence."""

    def add(command: Command) -> Command:
        @wraps(command)
        def run(project: int, **given: Any) -> None:
            own = {key: given.pop(key) for key in list(given) if key not in Settings.model_fields}
            settings = read_settings(given)
            logging.config.dictConfig(logging_config(settings, "WARNING"))
            with sentences():
                services = Services(settings)
                services.store.check()
                command(services.learner, project, **own)

        return adapt.command(name)(_PROJECT_OPTION(settings_options(*_LEARNING_SETTINGS)(run)))

    return add


@_steering("status")
@click.option("--json", "json_file", type=_FILE, help="Write all of it to this file.")
def status(learner: Learner, project: int, json_file: Path | None) -> None:
    """Say where a project stands: its versions, and the thresholds that corrections suggest."""
    described = describe_learning(learner.settings, learner, project)
    if json_file is not None:
        _write(json_file, json.dumps(described, indent=2) + "\n")
    print_learned(described, Console())


@_steering("pin")
def pin(learner: Learner, project: int) -> None:
    """Let what is live stay as it is."""
    learner.registry.pin(project)
    print_learned(describe_learning(learner.settings, learner, project), Console())


@_steering("unpin")
def unpin(learner: Learner, project: int) -> None:
    """Let it move again."""
    learner.registry.pin(project, pinned=False)
    print_learned(describe_learning(learner.settings, learner, project), Console())


@_steering("rollback")
@click.option("--to", "number", type=click.IntRange(0), help="This version; 0: the words alone.")
def rollback(learner: Learner, project: int, number: int | None) -> None:
    """Go back to the version before, or to the words alone, and pin that."""
    learner.registry.roll_back(project, number, learner.settings.adapt)
    print_learned(describe_learning(learner.settings, learner, project), Console())


@_steering("reset")
@click.option("--keep-evidence", is_flag=True, help="Keep what the annotations have taught.")
def reset(learner: Learner, project: int, keep_evidence: bool) -> None:
    """Forget all versions, and what the annotations have taught."""
    learner.registry.reset(project, keep_examples=keep_evidence)
    print_learned(describe_learning(learner.settings, learner, project), Console())


@_steering("export")
@click.option("--version", "number", type=click.IntRange(1), help="This one; else what is live.")
@click.argument("file", type=_FILE)
def export_learned(learner: Learner, project: int, file: Path, number: int | None) -> None:
    """Write the live version to FILE, for another project or backend with the same model."""
    version, data = learner.export(project, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    click.echo(f"{file}: {describe_version(version)}.")


@_steering("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_learned(learner: Learner, project: int, file: Path) -> None:
    """Read what `export` wrote from FILE, and use it."""
    version, adaptation = read_export(file.read_bytes(), learner.registry.model_key)
    learner.registry.import_version(project, version, adaptation)
    print_learned(describe_learning(learner.settings, learner, project), Console())


@adapt.command()
@_PROJECT_OPTION
@click.option(
    "--backfill",
    is_flag=True,
    help="First read all annotations that the project has, whenever they were made.",
)
@settings_options(*_PRELABEL_SETTINGS)
def step(project: int, backfill: bool, **given: str | None) -> None:
    """Learn now from all corrections of a project: read those that wait, and make a version.

    A backend that serves does so by itself, see ADAPT_EVERY.
    """
    settings = read_settings(given)
    logging.config.dictConfig(logging_config(settings, "WARNING"))
    stopping = threading.Event()
    with sentences(), ExitStack() as stack:
        services = Services(settings, stopping=stopping)
        client = services.required_client("annotations are read", retry_for_s=READ_RETRY_FOR_S)
        engine = stack.enter_context(services.engine)
        services.store.check()
        learner = services.learner
        learner.check()
        engine.segmenter()  # or a sentence at once: all that is read is to be learned from
        stack.enter_context(signals_set(stopping))
        reader = services.annotation_reader(client, learner)
        reader.mark_gone(project, learner.examples.annotations(project))
        _read_marked(reader, project, backfill, stopping)
        if stopping.is_set():
            raise SystemExit(130)
        learner.step(project, lambda number: parse_label_config(client.label_config(number)))
        print_learned(describe_learning(settings, learner, project), Console())


def _read_annotations(services: Services, project: int, backfill: bool) -> None:
    """Read those of a project that wait; all that it has, where that is asked for."""
    client = services.client(retry_for_s=READ_RETRY_FOR_S)
    if client is None and backfill:
        client = services.required_client("annotations are read")  # says what to set
    if client is not None:
        reader = services.annotation_reader(client)
        _read_marked(reader, project, backfill, services.stopping)


def _read_marked(
    reader: AnnotationReader, project: int, backfill: bool, stopping: threading.Event
) -> None:
    with tqdm(unit="annotation", dynamic_ncols=True, desc=f"Project {project}") as bar:

        def watch(count: int) -> None:
            bar.n = count
            bar.refresh()

        if backfill:
            bar.total = reader.mark_project(project)
        read_all(reader, project, stopping, watch)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
