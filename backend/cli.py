"""``clearclip-backend``: serve, export, doctor, demo."""

from __future__ import annotations

import json
import logging
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import click
from PIL import Image
from tqdm import tqdm

from backend.app import create_app
from backend.demo import DemoError, label_config, run_demo
from backend.doctor import examine
from backend.engine import Engine
from backend.errors import BackendError, ImageInvalid, LabelConfigError
from backend.hosts import TimeLimit
from backend.messages import PredictRequest, Task
from backend.pipeline import Pipeline
from backend.settings import Settings, load_settings, variables
from backend.vocabulary import parse_label_config
from clearclip_core import RGBArray, to_rgb
from clearclip_core.cli import find_pictures
from clearclip_core.models import choose_device, choose_precision

Command = Callable[..., Any]

#: Pictures between two steps of the progress bar; those of one step overlap.
_EXPORTED_AT_ONCE = 16

#: Threads beside those that answer: they wait for requests that are slow to arrive.
_THREADS_FOR_THE_SLOW = 64


def settings_options(*fields: str) -> Callable[[Command], Command]:
    """One flag for each of these fields of `Settings`, or for all of them.

    The environment variable stands in the help; a flag wins over it.
    """

    def add(command: Command) -> Command:
        for name in reversed(fields or tuple(Settings.model_fields)):
            field = Settings.model_fields[name]
            choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
            names = " or ".join(variables(name))
            default = "" if field.default in (None, "") else f"; default {field.default}"
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=click.Choice(choices, case_sensitive=False) if choices else str,
                default=None,
                help=f"{field.description} [{names}{default}]",
            )(command)
        return command

    return add


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """ClearCLIP as a Label Studio ML backend."""


@main.command()
@settings_options()
def serve(**given: str | None) -> None:
    """Serve the backend: one process, one model, a thread for each request."""
    settings = _settings(given)
    _log_to_stderr(settings.log_level)
    try:  # what can never work is said before anything starts
        Engine.from_settings(settings)
        _check_device(settings)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _run_gunicorn(settings)


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
    help="Folder that the paths in the tasks start from; the pictures' own by default.",
)
@click.option("-o", "--out", default="tasks.json", show_default=True, type=click.Path())
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
    settings = _settings(given)
    _log_to_stderr("WARNING")
    target = Path(out)
    tasks = _export_tasks(find_pictures(pictures), xml, settings, url_prefix, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(tasks))
    if labels is not None:
        target.with_suffix(".label-config.xml").write_text(xml)
    missing = sum(not task["predictions"] for task in tasks)
    click.echo(f"{len(tasks)} tasks written to {target}, {missing} of them without predictions.")
    if missing:
        raise SystemExit(1)


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
@click.option("--studio-port", default=8080, show_default=True)
@click.option("--backend-port", default=9090, show_default=True)
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
    settings = _settings(given)
    _log_to_stderr("ERROR")
    ill = 0
    for finding in examine(settings, project_id, backend_url=backend_url, fix=fix):
        click.echo(finding)
        ill += finding.well is False
    if ill:
        raise SystemExit(1)


def _settings(given: dict[str, str | None]) -> Settings:
    try:
        return load_settings(**given)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _log_to_stderr(level: str) -> None:
    """Ours at the wanted level, libraries from WARNING on."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
    for package in ("backend", "clearclip_core"):
        logging.getLogger(package).setLevel(level)


def _export_tasks(
    paths: list[Path], xml: str, settings: Settings, url_prefix: str, root: Path | None
) -> list[dict[str, Any]]:
    """Each picture as a task, its prediction made by the pipeline that answers /predict."""
    exported = []
    try:
        key = _data_key(xml)
        with (
            Engine.from_settings(settings) as engine,
            tqdm(total=len(paths), unit="picture", disable=len(paths) == 1) as bar,
        ):
            engine.segmenter()  # or a sentence at once: nobody brings weights later
            pipeline = Pipeline(engine, _read_file, settings)
            for start in range(0, len(paths), _EXPORTED_AT_ONCE):
                some = paths[start : start + _EXPORTED_AT_ONCE]
                tasks = tuple(Task(str(path), None, {key: str(path)}) for path in some)
                entries = pipeline.predict(PredictRequest(tasks, xml))
                for path, entry in zip(some, entries, strict=True):
                    shown = path.resolve().relative_to(root.resolve()) if root else path
                    data = {key: url_prefix + quote(shown.as_posix().lstrip("/"))}
                    exported.append({"data": data, "predictions": [entry] if entry else []})
                bar.update(len(some))
    except (BackendError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    return exported


def _data_key(xml: str) -> str:
    """The key under which a task's data has its one picture."""
    images = parse_label_config(xml).images
    if len(images) != 1 or not re.fullmatch(r"\$\w+", images[0].value):
        raise LabelConfigError('Expected one <Image> with a value such as "$image" to export for.')
    return images[0].value[1:]


def _read_file(source: str, task: Task) -> RGBArray:
    try:
        with Image.open(source) as picture:
            return to_rgb(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageInvalid(f"{source} cannot be read as an image: {error}.") from None


def _check_device(settings: Settings) -> None:
    """Refuse a device or precision that this machine lacks.

    It is asked in a process of its own: CUDA that is asked here does not survive the fork.

    Raises:
        ValueError: it lacks them.
    """
    with (
        suppress(BrokenProcessPool),  # where that cannot be asked, the load will tell
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as other,
    ):
        other.submit(_choose, settings.device, settings.precision).result()


def _choose(device: str, precision: str) -> None:
    choose_precision(precision, choose_device(device))


def _run_gunicorn(settings: Settings) -> None:
    from gunicorn.app.base import BaseApplication
    from gunicorn.workers.gthread import ThreadWorker

    class Worker(ThreadWorker):  # type: ignore[misc]
        """Waits for the head of a request as long as the settings say, and not for ever.

        A few connections that never say anything would take all threads otherwise. Of the body,
        `create_app` says how long it may take.
        """

        def handle(self, conn: Any) -> Any:
            with TimeLimit(settings.request_timeout_s) as conn.time_limit:
                conn.time_limit.hold(conn.sock)
                return super().handle(conn)

        def handle_request(self, req: Any, conn: Any) -> Any:
            conn.time_limit.lift()
            return super().handle_request(req, conn)

    class Server(BaseApplication):  # type: ignore[misc]
        """One worker: the model is loaded there, after the fork, which CUDA asks for."""

        def load_config(self) -> None:
            self.cfg.set("bind", f"{settings.host}:{settings.port}")
            self.cfg.set("workers", 1)
            self.cfg.set("worker_class", Worker)
            self.cfg.set("threads", settings.threads + _THREADS_FOR_THE_SLOW)
            self.cfg.set("timeout", 0)  # a prediction may take as long as it takes
            self.cfg.set("graceful_timeout", 5)
            self.cfg.set("loglevel", settings.log_level.lower())
            if "control_socket_disable" in self.cfg.settings:  # since gunicorn 25
                self.cfg.set("control_socket_disable", True)

        def load(self) -> Any:
            engine = Engine.from_settings(settings)
            engine.start()
            self.cfg.set("worker_exit", lambda _server, _worker: engine.stop())
            return create_app(settings, engine)

    Server().run()
