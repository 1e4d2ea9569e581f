"""The command group `clearclip`: segmentation, models, speed, benchmarks and the paper."""

from __future__ import annotations

import click

from clearclip_core.cli.bench import bench
from clearclip_core.cli.evaluate import evaluate, merge_shards, prepare_maps
from clearclip_core.cli.models import models
from clearclip_core.cli.paper import ablate, tables
from clearclip_core.cli.segment import segment
from clearclip_core.cli.sinks import sinks
from clearclip_core.cli.statistics import statistics


@click.group()
@click.version_option(package_name="clearclip-label-studio")
def main() -> None:
    """Open-vocabulary segmentation with CLIP, training-free (ClearCLIP)."""


for command in (
    *(segment, models, sinks, bench, statistics),
    *(evaluate, merge_shards, prepare_maps),
    *(ablate, tables),
):
    main.add_command(command)


if __name__ == "__main__":
    main()
