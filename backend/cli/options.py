"""Share options, settings and error sentences among the commands."""

from __future__ import annotations

import logging.config
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal, get_args

import click
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import BackendError
from backend.settings import Settings, load_settings, variables
from backend.telemetry.logs import logging_config

Command = Callable[..., Any]

#: What the help shows for the values of a flag.
_VALUES: dict[Any, str] = {int: "NUMBER", float: "NUMBER", bool: "true|false", Path: "FOLDER"}

#: A file to write.
OUTPUT_FILE: Final = click.Path(dir_okay=False, path_type=Path)

#: The settings of a process that predicts or learns, and that listens nowhere.
MODEL_SETTINGS: Final = (
    "label_studio_url",
    "label_studio_api_key",
    "allowed_hosts",
    "model",
    "method",
    "device",
    "precision",
    "short_side_px",
    "refine",
    "propagate",
    "score",
    "model_dir",
    "database_url",
    "max_image_mb",
    "max_image_megapixels",
    "min_island_share",
    "adapt",
)

project_option = click.option(
    "--project",
    type=click.IntRange(1, (1 << 31) - 1),  # as far as a database counts
    required=True,
    help="Number of the project.",
)

backfill_option = click.option(
    "--backfill",
    is_flag=True,
    help="First read all annotations that the project has, whenever they were made.",
)


def settings_options(*fields: str) -> Callable[[Command], Command]:
    """Add one flag for each of these fields of `Settings`, or for all of them.

    The help names the environment variable. A flag wins over it.
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
                metavar=_VALUES.get(field.annotation),
                default=None,
                help=f"{field.description} [{names}{default}]",
            )(command)
        return command

    return add


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
    """Read the settings and set up logging.

    Args:
        given: the flags by field name, which win over the environment; None: not given.
        level: least severity that is logged, in place of LOG_LEVEL.

    Raises:
        click.ClickException: a value is wrong.
    """
    try:
        settings = load_settings(**given)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    logging.config.dictConfig(logging_config(settings, level))
    return settings


@contextmanager
def sentences() -> Iterator[None]:
    """End the command with a sentence in place of a traceback, where people can do something."""
    try:
        yield
    except (BackendError, SQLAlchemyError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def write_text(file: Path, text: str) -> None:
    """Write a file, and make its folder where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
