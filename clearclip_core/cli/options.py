"""Options of several commands, their values, and errors as sentences; torch is not imported."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from PIL import Image

from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.demo.render import HELD_OUT_SEEDS, render_scene
from clearclip_core.images.label_maps import LayoutError
from clearclip_core.images.opening import read_rgb
from clearclip_core.images.preprocessing import Preprocessing, RGBArray

if TYPE_CHECKING:  # torch and open_clip take seconds, which no help needs
    from clearclip_core.clip.loading import LoadedModel
    from clearclip_core.evaluation.runner import EvaluationTask
    from clearclip_core.segmenter import Segmenter

_DEFAULT_METHOD = "clearclip"

model_dir_option: Final = click.option(
    "--model-dir",
    type=click.Path(path_type=Path),
    help="Folder of fetched weights; by default an ARCH/TAG is looked for in ~/.cache/clearclip.",
)


class FiniteRange(click.FloatRange):
    """A range of numbers without nan, which no comparison refuses, and without infinities.

    >>> FiniteRange(0).convert("2.5", None, None)
    2.5
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, but got {value!r}.", param, ctx)
        return number


@contextmanager
def click_errors(kinds: tuple[type[Exception], ...] = (OSError, ValueError)) -> Iterator[None]:
    """Turn errors of files and values into errors that click prints as one line.

    Raises:
        click.ClickException: one of `kinds` was raised inside; the message stays.
    """
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error


#: Name of a label, empty for all labels; and its threshold in [0, 1].
ThresholdOption = tuple[str, float]


def parse_threshold(text: str) -> ThresholdOption:
    """Parse an option; what stands after its last ``=`` is the number.

    >>> parse_threshold("0.3"), parse_threshold("e = mc2=0.5")
    (('', 0.3), ('e = mc2', 0.5))
    """
    label, _, number = text.rpartition("=")
    return label.strip(), FiniteRange(0, 1).convert(number, None, None)


#: The option of a command, which gets a tuple of `ThresholdOption`.
threshold_option: Final = click.option(
    "--threshold",
    multiple=True,
    metavar="[LABEL=]P",
    callback=lambda _context, _option, texts: tuple(map(parse_threshold, texts)),
    help="Pixels of your pictures less likely than this get no label: 0.3 for all labels, car=0.5 "
    "for one; may be repeated.",
)


def thresholds_by_label(
    given: Iterable[ThresholdOption], labels: Sequence[str], start: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return the threshold of each label; one that names a label wins over one for all.

    Args:
        start: thresholds where nothing is given; 0 by default.

    Raises:
        ValueError: an option names no label.

    >>> thresholds_by_label([("car", 0.5), ("", 0.2)], ["sky", "car"])
    (0.2, 0.5)
    """
    chosen = dict(given)
    unknown = [name for name in chosen if name and name not in labels]
    if unknown:
        raise ValueError(
            f"Expected --threshold to name a label ({', '.join(labels)}), but got {unknown[0]!r}."
        )
    before = [0.0] * len(labels) if start is None else start
    pairs = zip(labels, before, strict=True)
    return tuple(chosen.get(label, chosen.get("", value)) for label, value in pairs)


@dataclass(frozen=True)
class ModelOptions:
    """Values of the options of a command that loads a model, see `model_options`."""

    device: str
    precision: str
    short_side_px: int | None
    model_dir: Path | None
    model: str = ""
    method: str = _DEFAULT_METHOD

    def load(self) -> Segmenter:
        """Load the model, print its notice and make its segmenter; see `load_model`."""
        with click_errors():
            Method.of(self.method)
        return self.segmenter(self.load_model())

    def segmenter(self, model: LoadedModel) -> Segmenter:
        """Make the segmenter of a model.

        Raises:
            click.ClickException: the method is none, or does not go with the model.
        """
        from clearclip_core.segmenter import Segmenter

        side = self.short_side_px
        sizes = side and Preprocessing.of_short_side(model.mean, model.std, side)
        with click_errors():
            return Segmenter(model, self.method, sizes or None)

    def load_model(self) -> LoadedModel:
        """Load the model without a segmenter and print its notice.

        Raises:
            click.ClickException: `load_model` failed; the message is its.
        """
        from clearclip_core.clip.weights import WeightsNotFoundError, check_weights

        with click_errors((ValueError, WeightsNotFoundError)):
            check_weights(self.model, self.model_dir)
            from clearclip_core.clip.loading import load_model  # and torch, for seconds

            model = load_model(self.model, self.device, self.precision, self.model_dir)
        if model.notice:
            click.echo(model.notice, err=True)
        return model


_Command = Callable[..., None]
_Option = Callable[[Any], Any]


def as_one(
    kind: type[Any], options: Sequence[_Option], argument: str
) -> Callable[[_Command], _Command]:
    """Give a command options, whose values it gets as one argument: a dataclass of their names."""
    names = [field.name for field in fields(kind)]

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_options(**arguments: Any) -> None:
            chosen = {name: arguments.pop(name) for name in names if name in arguments}
            command(**{argument: kind(**chosen)}, **arguments)

        for option in reversed(options):
            with_options = option(with_options)
        return with_options

    return decorate


METHOD_HELP = f"{', '.join(METHODS)}, or one spelled out: qk-res-a2."
_MODEL = click.option("--model", default="ViT-B-16/openai", show_default=True, help="See `models`.")
_METHOD = click.option("--method", default=_DEFAULT_METHOD, show_default=True, help=METHOD_HELP)

device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
)
short_side_option = click.option(
    "--short-side",
    "short_side_px",
    type=click.IntRange(min=1),
    help="Resize the short side to this many px; more sees smaller things and takes longer. By "
    "default as the method's authors did: 448, or 336.",
)
_SHARED = (
    device_option,
    click.option("--precision", default="auto", show_default=True, help="auto, fp32, fp16, bf16."),
    short_side_option,
    model_dir_option,
)

#: Options that choose a model and a method; a model alone, where many methods are measured; and
#: none of them, where the command chooses.
model_options = as_one(ModelOptions, (_MODEL, _METHOD, *_SHARED), "options")
many_method_options = as_one(ModelOptions, (_MODEL, *_SHARED), "options")
shared_options = as_one(ModelOptions, _SHARED, "options")


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
        from clearclip_core.evaluation.benchmarks import BENCHMARKS, RECODINGS, benchmark_for
        from clearclip_core.evaluation.runner import EvaluationTask

        assert self.benchmark is not None
        benchmark = BENCHMARKS[self.benchmark]
        if method is not None:
            benchmark = benchmark_for(self.benchmark, method)
        if short_side_px is not None:
            benchmark = replace(benchmark, short_side_px=short_side_px)
        try:
            return EvaluationTask.of(benchmark, self.data, self.names, self.limit)
        except (OSError, ValueError) as error:
            hint = ""
            if isinstance(error, LayoutError) and self.data and self.benchmark in RECODINGS:
                hint = (
                    "\nLabel maps that the publisher gives out are turned into "
                    f"{self.benchmark}'s by: clearclip prepare {self.benchmark} --data {self.data}"
                )
            raise click.ClickException(f"{error}{hint}") from error


def data_options(required: bool) -> Callable[[_Command], _Command]:
    """Give a command the options that choose a benchmark, as one `DataOptions` argument."""
    from clearclip_core.evaluation.benchmarks import BENCHMARKS, SCENES

    benchmark = click.option(
        "--benchmark",
        required=required,
        type=click.Choice(list(BENCHMARKS)),
        help=f"What to measure on; demo is {SCENES} drawn scenes, for the demo model.",
    )
    data = click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder of the data set, laid out as for MMSegmentation.",
    )
    names = click.option(
        "--names",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Other words for the classes: one line a class, several words separated by commas. "
        "Of --images: what the mask values stand for, one line a value.",
    )
    limit = click.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Measure only this many of the first pictures; of --images, spread over all.",
    )
    return as_one(DataOptions, (benchmark, data, names, limit), "data")


def read_image(path: Path) -> RGBArray | None:
    """Read an image file into (H, W, 3) uint8 RGB; None where it cannot be read, which is told."""
    try:
        return read_rgb(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        click.echo(f"{path}: {error}", err=True)
        return None


class ImageSource:
    """Images of files, then a number of drawn scenes; can be iterated several times.

    A file that cannot be read is left out from then on.
    """

    def __init__(self, paths: Sequence[Path], scenes: int = 0) -> None:
        self.paths = list(paths)
        self.seeds = HELD_OUT_SEEDS[:scenes]
        self.failed = False

    def __len__(self) -> int:
        return len(self.paths) + len(self.seeds)

    def __iter__(self) -> Iterator[RGBArray]:
        for path in self.paths.copy():
            image = read_image(path)
            if image is None:
                self.paths.remove(path)
                self.failed = True
            else:
                yield image
        for seed in self.seeds:
            yield render_scene(seed).image

    @property
    def names(self) -> list[str]:
        """Names of the images that could be read so far, in order."""
        return [*map(str, self.paths), *(f"drawn scene {seed}" for seed in self.seeds)]
