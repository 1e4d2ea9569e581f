"""Import a command only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class CommandSource:
    """Where a command is, and what the help of its group says of it.

    Attributes:
        module: full name of the module that defines the command.
        attribute: name of the command in the module.
        summary: the first sentence of the command's own help.
    """

    module: str
    attribute: str
    summary: str


class LazyGroup(click.Group):
    """A command group that lists its commands without importing them.

    Args:
        sources: command name -> where it is, in the order of the help. Commands that are added in
            the usual way come first.
    """

    def __init__(self, *args: Any, sources: Mapping[str, CommandSource], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sources = sources

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *self.sources]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None: there is none of this name."""
        source = self.sources.get(cmd_name)
        if source is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(source.module), source.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{source.module}.{source.attribute} is no click command: {command!r}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their summaries."""
        rows = [(name, source.summary) for name, source in self.sources.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
