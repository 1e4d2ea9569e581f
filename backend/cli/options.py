"""Share options, settings and error sentences among the commands."""

from __future__ import annotations

import logging.config
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click
import msgspec
from tqdm import tqdm

from backend.errors import BackendError
from backend.settings import Settings, load_settings
from backend.telemetry.logs import logging_config
from clearclip_core.images.files import write_whole

if TYPE_CHECKING:
    from backend.runs.run_store import Progress

Command = Callable[..., Any]

#: What the help shows for the values of a flag.
_VALUES: dict[Any, str] = {int: "NUMBER", float: "NUMBER", bool: "true|false", Path: "FOLDER"}


class OutputPath(click.Path):
    """A file or a folder to write; its folder is made, or it is refused, before any work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        folder = Path(str(converted)).absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.fail(f"{folder} cannot be made ({error.strerror}).", param, ctx)
        if not os.access(folder, os.W_OK | os.X_OK):
            self.fail(f"The folder {folder} is not writable.", param, ctx)
        return converted


#: A file and a folder to write.
OUTPUT_FILE: Final = OutputPath(dir_okay=False, writable=True, path_type=Path)
OUTPUT_FOLDER: Final = OutputPath(file_okay=False, writable=True, path_type=Path)

#: The settings that many people need; the others are for tuning.
MAIN_SETTINGS: Final = (
    "label_studio_url",
    "label_studio_browser_url",
    "label_studio_api_key",
    "allowed_hosts",
    "model",
    "method",
    "second_model",
    "click_model",
    "device",
    "model_dir",
    "auto_prelabel",
    "adapt",
    "score",
    "database_url",
    "basic_auth_user",
    "basic_auth_pass",
    "host",
    "port",
    "server_names",
    "log_level",
)

#: What a process needs that calls Label Studio.
STUDIO_SETTINGS: Final = ("label_studio_url", "label_studio_api_key", "allowed_hosts")

#: The backend's own address and login.
SERVER_SETTINGS: Final = ("basic_auth_user", "basic_auth_pass", "host", "port")

#: The largest pictures that are read.
IMAGE_SETTINGS: Final = ("max_image_mb", "max_image_megapixels")

#: How masks are made of a model's scores.
MASK_SETTINGS: Final = ("refine", "propagate", "min_island_share")

#: The settings of a process that predicts or learns, and that listens nowhere.
MODEL_SETTINGS: Final = (
    *STUDIO_SETTINGS,
    "model",
    "method",
    "second_model",
    "second_short_side_px",
    "device",
    "precision",
    "short_side_px",
    "score",
    *MASK_SETTINGS,
    "model_dir",
    "database_url",
    *IMAGE_SETTINGS,
    "adapt",
    "adapt_label_loss",
)

_LARGEST: Final = (1 << 31) - 1  # the largest number of a column of whole numbers

#: The number of a project, a view, a task, a job or a version, within what a database counts.
NUMBER: Final = click.IntRange(1, _LARGEST)

NUMBER_OR_ZERO: Final = click.IntRange(0, _LARGEST)  # the number of a version, or 0 for none

project_option = click.option("--project", type=NUMBER, required=True, help="The project's number.")

view_option = click.option(
    "--view", type=NUMBER, help="Number of a view of the data manager: its tasks only."
)

map_option = click.option(
    "--map",
    "renamed",
    metavar="OLD=NEW",
    multiple=True,
    help="Count regions of the label OLD, which was renamed, as NEW. May be repeated.",
)


def read_renamings(texts: Iterable[str]) -> dict[str, str]:
    """Read what --map gives, such as ``House=Building``, or raise `click.BadParameter`."""
    pairs = {text: text.partition("=") for text in texts}
    for text, (name, equals, _) in pairs.items():
        if not equals or not name.strip():
            raise click.BadParameter(f"expected OLD=NEW, but got {text!r}.", param_hint="--map")
    return {name.strip(): label.strip() for name, _, label in pairs.values()}


def _setting_option(name: str, *, is_hidden: bool) -> Callable[[Command], Command]:
    """Make the flag of a field of `Settings`."""
    field = Settings.model_fields[name]
    choices = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
    default = "" if field.default in (None, "") else f"; default {field.default}"
    flag = f"--{name.replace('_', '-')}"
    return click.option(
        flag,
        name,
        type=click.Choice(choices, case_sensitive=False) if choices else str,
        metavar=_VALUES.get(field.annotation),
        default=None,
        hidden=is_hidden,
        help=f"{field.description} [{name.upper()}{default}]",
    )


def settings_options(*fields: str) -> Callable[[Command], Command]:
    """Add one flag for each of these fields of `Settings`, or for all of them.

    The help names the environment variable. A flag wins over it. Of all fields, ``--help`` shows
    `MAIN_SETTINGS`, and ``--help-all`` the others too.
    """

    def add(command: Command) -> Command:
        for name in reversed(fields or tuple(Settings.model_fields)):
            is_hidden = not fields and name not in MAIN_SETTINGS
            command = _setting_option(name, is_hidden=is_hidden)(command)
        return command if fields else _help_all(command)

    return add


def _help_all(command: Command) -> Command:
    def show(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
        if is_asked:
            for each in context.command.params:
                each.hidden = False  # type: ignore[attr-defined]
            click.echo(context.get_help())
            context.exit()

    return click.option(
        "--help-all",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show this message with the settings for tuning, and exit.",
    )(command)


def with_settings(*fields: str) -> Callable[[Command], Command]:
    """Add a flag for each field, and call the command with `Settings` as its first argument.

    Only warnings are logged beside what the command prints. An error that people can do something
    about ends the command with a sentence.
    """

    def add(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            own = {name: given.pop(name) for name in [*given] if name not in Settings.model_fields}
            settings = configure(given, "WARNING")
            with sentences():
                command(settings, **own)

        return settings_options(*fields)(run)

    return add


def configure(
    given: Mapping[str, str | None], level: Literal["WARNING", "ERROR"] | None = None
) -> Settings:
    """Read the settings and set up logging; a wrong value raises `click.ClickException`.

    Flags that are given, by field name, win over the environment. `level`, the least severity that
    is logged, takes the place of LOG_LEVEL.
    """
    try:
        settings = load_settings(**given)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    logging.config.dictConfig(logging_config(settings, level))
    return settings


def check_model(
    settings: Settings, may_come_later: bool = False, answers_clicks: bool = False
) -> None:
    """Refuse an unknown model or method, and weights or a device that cannot be had.

    torch, which takes seconds to import, is asked only where a device or a precision is named. The
    `ValueError` says what is wrong; missing weights are let pass where they `may_come_later`. The
    click model is looked for where the process `answers_clicks`.
    """
    from clearclip_core import Method, WeightsNotFoundError, check_weights

    Method.of(settings.method).check_second_encoder(settings.second_model is not None)
    clicks = settings.click_model if answers_clicks or settings.regions else None
    try:
        check_weights(settings.model, settings.model_dir, settings.second_model, clicks)
    except WeightsNotFoundError as error:
        if not may_come_later:
            raise ValueError(str(error)) from None
    if settings.device not in ("auto", "cpu") or settings.precision != "auto":
        from clearclip_core.devices import choose_device, choose_precision

        choose_precision(settings.precision, choose_device(settings.device))


@contextmanager
def sentences() -> Iterator[None]:
    """End the command with a sentence in place of a traceback, where people can do something."""
    try:
        yield
    except _expected_errors() as error:
        raise click.ClickException(str(error)) from None


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return what people can do something about; clearclip-dataset comes without SQLAlchemy."""
    loaded = sys.modules.get("sqlalchemy.exc")
    own: tuple[type[Exception], ...] = (BackendError, ValueError)
    return own if loaded is None else (*own, loaded.SQLAlchemyError)


def write_text(file: Path, text: str) -> None:
    """Write a whole file, and make its folder; raises `ValueError` where it cannot be written."""
    try:
        write_whole(file, text.encode())
    except OSError as error:
        raise ValueError(f"{file} cannot be written ({error.strerror}).") from None


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON for people to read, see `write_text`."""
    write_text(file, msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Progress]:
    """Show a progress bar on a terminal; the value moves it: steps done, of how many."""
    with tqdm(desc=title, unit=unit, dynamic_ncols=True, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            bar.n, bar.total = done, total
            bar.refresh()

        yield show


@contextmanager
def stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Set `stopping` on Ctrl-C and `kill`, so that what is begun is written.

    A second signal ends the command at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    with signals_handled(stop, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def signals_handled(
    handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[None]:
    """Handle signals by a function until the end of the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
