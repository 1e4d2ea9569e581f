"""What the commands share: one flag for each setting, and errors said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click
from sqlalchemy.exc import SQLAlchemyError

from backend.errors import BackendError
from backend.settings import Settings, load_settings, variables

Command = Callable[..., Any]

#: What the help shows for the values of a flag.
_VALUES: dict[Any, str] = {int: "NUMBER", float: "NUMBER", bool: "true|false", Path: "FOLDER"}


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
                metavar=_VALUES.get(field.annotation),
                default=None,
                help=f"{field.description} [{names}{default}]",
            )(command)
        return command

    return add


def read_settings(given: dict[str, str | None]) -> Settings:
    """Read the environment and the flags that were given; what is wrong ends the command."""
    try:
        return load_settings(**given)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def sentences() -> Iterator[None]:
    """What people can do something about is said in a sentence."""
    try:
        yield
    except (BackendError, SQLAlchemyError, ValueError) as error:
        raise click.ClickException(str(error)) from None
