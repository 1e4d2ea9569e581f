"""The command group `clearclip`: segmentation, models, speed, benchmarks and the paper."""

import os
import pkgutil
from collections.abc import Mapping
from typing import Any, Final

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


#: The commands, in the order of the help.
COMMANDS: Final = {
    "segment": (
        "clearclip_core.cli.segment:segment",
        "Write a label map and an overlay of each picture.",
    ),
    "models": (
        "clearclip_core.cli.segment:models",
        "List models, their licences and what is on disk; or fetch one for another machine.",
    ),
    "bench": (
        "clearclip_core.cli.bench:bench",
        "Measure how fast this machine segments, with a drawn picture and a model of your choice.",
    ),
    "statistics": (
        "clearclip_core.cli.paper:statistics",
        "Describe the feature maps of each layer: Figures 2 to 4.",
    ),
    "eval": (
        "clearclip_core.cli.evaluate:measure",
        "Measure on your own labelled pictures as the backend predicts, or mIoU on a benchmark.",
    ),
    "prepare": (
        "clearclip_core.cli.evaluate:prepare_maps",
        "Make a benchmark's label maps from the published ones, beside them.",
    ),
    "ablate": (
        "clearclip_core.cli.paper:ablate",
        "Repeat Table 1 and Figures 5 and 6 of the paper.",
    ),
    "tables": (
        "clearclip_core.cli.paper:tables",
        "Print Tables 2 and 3 of the paper beside your results.",
    ),
}


@click.group(cls=LazyGroup, sources=COMMANDS)
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """Open-vocabulary segmentation with CLIP, training-free (ClearCLIP)."""


if __name__ == "__main__":
    main()
