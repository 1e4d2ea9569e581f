"""A command group that imports a command only when it runs."""

import os
import pkgutil
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A command group that lists its commands without importing them.

    Args:
        sources: command name -> ``module:name`` of the command and what the help says of it, in
            the order of the help. Commands that are added in the usual way come first.
    """

    def __init__(self, *args: Any, sources: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sources = sources

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.sources]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.sources:
            return super().get_command(ctx, cmd_name)
        # By default OpenMP's threads spin while they wait for each other, which is several times
        # slower where others use the cores too; read when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        place, _ = self.sources[cmd_name]
        command: click.Command = pkgutil.resolve_name(place)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their summaries."""
        rows = [(name, summary) for name, (_, summary) in self.sources.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
