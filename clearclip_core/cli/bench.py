"""`clearclip bench`: measure the speed of segmentation on this machine."""

from __future__ import annotations

import re
from typing import IO

import click
import msgspec

from clearclip_core.cli.options import ModelOptions, model_options
from clearclip_core.cli.parameters import FiniteRange
from clearclip_core.evaluation.speed import MOST_LABELS, measure_speed, speed_table


@click.command()
@model_options
@click.option(
    "--size",
    "size_wh",
    default="2048x1367",
    show_default=True,
    callback=lambda _context, _option, text: parse_size(text),
    help="Width and height of the picture in px.",
)
@click.option(
    "--labels",
    default=150,
    show_default=True,
    type=click.IntRange(1, MOST_LABELS),
    help="How many labels compete.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Windows encoded at once, instead of the default."
)
@click.option(
    "--seconds",
    "budget_s",
    default=20.0,
    show_default=True,
    type=FiniteRange(min=0),
    help="How long to repeat; loading and embedding the labels come on top.",
)
@click.option(
    "--json",
    "json_file",
    type=click.File("wb", lazy=False, atomic=True),
    help="Write the figures to this file as well.",
)
def bench(
    options: ModelOptions,
    size_wh: tuple[int, int],
    labels: int,
    batch: int | None,
    budget_s: float,
    json_file: IO[bytes] | None,
) -> None:
    """Measure how fast this machine segments, with a drawn picture and a model of your choice.

    A model name ARCH/random, such as ViT-L-14/random, measures an architecture with random
    weights: nothing is downloaded.
    """
    segmenter = options.load()
    segmenter.windows_at_once = batch or segmenter.windows_at_once
    click.echo(f"Embedding {labels} labels, then measuring for {budget_s:g} s ...", err=True)
    measured = measure_speed(segmenter, size_wh, labels, budget_s)
    click.echo(speed_table(measured))
    if json_file is not None:
        json_file.write(msgspec.json.format(msgspec.json.encode(measured)) + b"\n")


def parse_size(text: str) -> tuple[int, int]:
    """Parse width and height of a command line, in px.

    Raises:
        click.BadParameter: not two numbers, or a side below 16 px or above 20,000 px.

    >>> parse_size("2048x1367")
    (2048, 1367)
    """
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip())
    sides = [int(side) for side in match.groups()] if match else []
    if not match or min(sides) < 16 or max(sides) > 20_000:
        raise click.BadParameter(f"expected two sides of 16 to 20000 px as WxH, but got {text!r}.")
    return sides[0], sides[1]
