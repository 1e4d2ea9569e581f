"""The options of every command that reads a benchmark."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from clearclip_core.cli.finite_range import FiniteRange
from clearclip_core.clip.methods import Method
from clearclip_core.evaluation.datasets.benchmarks import BENCHMARKS
from clearclip_core.evaluation.datasets.preparation import RECODINGS
from clearclip_core.evaluation.datasets.protocols import benchmark_for
from clearclip_core.evaluation.datasets.samples import SCENES
from clearclip_core.evaluation.task import EvaluationTask
from clearclip_core.images.label_maps import LayoutError


@dataclass(frozen=True)
class DataOptions:
    """Values of the options of a command that reads a benchmark, see `data_options`."""

    benchmark: str | None
    data: Path | None
    names: Path | None
    limit: int | None

    def find(self, short_side_px: int | None, method: Method | None = None) -> EvaluationTask:
        """Find the data and read the class names.

        Args:
            short_side_px: the size to which images are resized; None for that of the method's
                authors.
            method: the method, measured under the protocol of its authors; None for the paper's.

        Raises:
            click.ClickException: `EvaluationTask.of` failed; the message also names the command
                that makes missing label maps, where there is one.
        """
        assert self.benchmark is not None
        benchmark = BENCHMARKS[self.benchmark]
        if method is not None:
            benchmark = benchmark_for(self.benchmark, method)
        short_side_px = short_side_px or benchmark.short_side_px
        try:
            return EvaluationTask.of(benchmark, self.data, self.names, self.limit, short_side_px)
        except LayoutError as error:
            hint = (
                f"\nLabel maps that the publisher gives out are turned into {self.benchmark}'s by: "
                f"clearclip prepare {self.benchmark} --data {self.data}"
            )
            can_be_made = self.benchmark in RECODINGS and self.data is not None
            raise click.ClickException(f"{error}{hint if can_be_made else ''}") from error
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose a benchmark, as one `DataOptions` argument."""
    return _with_options(command, _options(own_pictures=False))


def optional_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `data_options`; ``--benchmark`` may be left out."""
    return _with_options(command, _options(own_pictures=True))


def _with_options(
    command: Callable[..., None], options: Sequence[Callable[[Any], Any]]
) -> Callable[..., None]:
    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        chosen = {field.name: arguments.pop(field.name) for field in fields(DataOptions)}
        command(data=DataOptions(**chosen), **arguments)

    for option in reversed(options):
        with_options = option(with_options)
    return with_options


def _options(own_pictures: bool) -> tuple[Callable[[Any], Any], ...]:
    """Return the options of a benchmark, or with those words that own pictures need beside it."""
    names = (
        " Of --images: what the mask values stand for, one line a value." if own_pictures else ""
    )
    limit = "; of --images, spread over all" if own_pictures else ""
    return (
        click.option(
            "--benchmark",
            required=not own_pictures,
            type=click.Choice(list(BENCHMARKS)),
            help=f"What to measure on; demo is {SCENES} drawn scenes, for the demo model.",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            help="Folder of the data set, laid out as for MMSegmentation.",
        ),
        click.option(
            "--names",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Other words for the classes: one line a class, several words separated by "
            f"commas.{names}",
        ),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help=f"Measure only this many of the first pictures{limit}.",
        ),
    )


save_option = click.option(
    "--save-every",
    "save_every_s",
    default=10.0,
    show_default=True,
    type=FiniteRange(min=0),
    help="Seconds of work that a killed process may lose.",
)
