"""The command group `clearclip`: segmentation, models, speed, benchmarks and the paper."""

from __future__ import annotations

from typing import Final

import click

from clearclip_core.cli.lazy_group import CommandSource, LazyGroup

#: The commands, in the order of the help.
COMMANDS: Final = {
    "segment": CommandSource(
        "clearclip_core.cli.segment", "segment", "Write a label map and an overlay of each picture."
    ),
    "models": CommandSource(
        "clearclip_core.cli.models",
        "models",
        "List models, their licences and what is on disk; or fetch one for another machine.",
    ),
    "sinks": CommandSource(
        "clearclip_core.cli.sinks",
        "sinks",
        "Find the channels that the method rfclip needs.",
    ),
    "bench": CommandSource(
        "clearclip_core.cli.bench",
        "bench",
        "Measure how fast this machine segments, with a drawn picture and a model of your choice.",
    ),
    "statistics": CommandSource(
        "clearclip_core.cli.statistics",
        "statistics",
        "Describe the feature maps of each layer: Figures 2 to 4.",
    ),
    "eval": CommandSource(
        "clearclip_core.cli.evaluate",
        "evaluate",
        "Measure on your own labelled pictures as the backend predicts, or mIoU on a benchmark.",
    ),
    "merge": CommandSource(
        "clearclip_core.cli.evaluate",
        "merge_shards",
        "Merge the shards of one run, exactly as if one process had counted it.",
    ),
    "prepare": CommandSource(
        "clearclip_core.cli.evaluate",
        "prepare_maps",
        "Make a benchmark's label maps from the published ones, beside them.",
    ),
    "ablate": CommandSource(
        "clearclip_core.cli.paper", "ablate", "Repeat Table 1 and Figures 5 and 6 of the paper."
    ),
    "tables": CommandSource(
        "clearclip_core.cli.paper",
        "tables",
        "Print Tables 2 and 3 of the paper beside your results.",
    ),
}


@click.group(cls=LazyGroup, sources=COMMANDS)
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """Open-vocabulary segmentation with CLIP, training-free (ClearCLIP)."""


if __name__ == "__main__":
    main()
