"""The options of every command that loads a model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from PIL import Image

from clearclip_core.cli.parameters import click_errors
from clearclip_core.clip.methods import METHODS, Method
from clearclip_core.demo.scenes.render import render_scene
from clearclip_core.demo.scenes.scene import HELD_OUT_SEEDS
from clearclip_core.images.label_maps import LayoutError
from clearclip_core.images.opening import open_image
from clearclip_core.images.preprocessing import RGBArray, to_rgb

if TYPE_CHECKING:  # torch and open_clip take seconds, which no help needs
    from clearclip_core.clip.loading import LoadedModel
    from clearclip_core.evaluation.runner import EvaluationTask
    from clearclip_core.segmenter import Segmenter

_DEFAULT_METHOD = "clearclip"
_DEFAULT_MODEL = "ViT-B-16/openai"

MODEL_DIR_HELP = (
    "Folder of fetched weights; by default an ARCH/TAG is looked for in ~/.cache/clearclip."
)


@dataclass(frozen=True)
class ModelOptions:
    """Values of the options of a command that loads a model, see `model_options`."""

    model: str
    device: str
    precision: str
    short_side_px: int
    model_dir: Path | None
    method: str = _DEFAULT_METHOD

    def load(self) -> Segmenter:
        """Load the segmenter and print the model's notice.

        Raises:
            click.ClickException: `Segmenter.load` failed; the message is its.
        """
        from clearclip_core.clip.weights import WeightsNotFoundError, check_weights

        sizes = self.device, self.precision, self.short_side_px, self.model_dir
        with click_errors((ValueError, WeightsNotFoundError)):
            check_weights(self.model, self.model_dir)
            from clearclip_core.segmenter import Segmenter  # and torch, for seconds

            segmenter = Segmenter.load(self.model, self.method, *sizes)
        _print_notice(segmenter.model)
        return segmenter

    def load_model(self) -> LoadedModel:
        """Load the model without a segmenter and print its notice.

        Raises:
            click.ClickException: `load_model` failed; the message is its.
        """
        from clearclip_core.clip.weights import WeightsNotFoundError, check_weights

        with click_errors((ValueError, WeightsNotFoundError)):
            check_weights(self.model, self.model_dir)
            from clearclip_core.clip.loading import load_model

            model = load_model(self.model, self.device, self.precision, self.model_dir)
        _print_notice(model)
        return model


def _print_notice(model: LoadedModel) -> None:
    if model.notice:
        click.echo(model.notice, err=True)


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


def several_model_options(command: _Command) -> _Command:
    """Give a command the options of `model_options`; ``--model`` and ``--method`` may be repeated.

    The command gets a tuple of `ModelOptions`: the methods of the first model, then those of the
    next.
    """

    @functools.wraps(command)
    def combined(models: tuple[str, ...], methods: tuple[str, ...], **arguments: Any) -> None:
        shared = {name: arguments.pop(name) for name in _SHARED}
        pairs = itertools.product(dict.fromkeys(models), dict.fromkeys(methods))
        made = (ModelOptions(model=model, method=method, **shared) for model, method in pairs)
        command(options=tuple(made), **arguments)

    for option in (*reversed(_SHARED_OPTIONS), _METHODS, _MODELS):
        combined = option(combined)
    return combined


_METHOD_HELP = f"{', '.join(METHODS)}, or one spelled out: qk-res-a2."
_MODEL = click.option("--model", default=_DEFAULT_MODEL, show_default=True, help="See `models`.")
_METHOD = click.option("--method", default=_DEFAULT_METHOD, show_default=True, help=_METHOD_HELP)

_METHODS = click.option(
    "--method",
    "methods",
    multiple=True,
    default=(_DEFAULT_METHOD,),
    show_default=True,
    help=f"{_METHOD_HELP} Several are compared.",
)

_MODELS = click.option(
    "--model",
    "models",
    multiple=True,
    default=(_DEFAULT_MODEL,),
    show_default=True,
    envvar="MODEL",
    show_envvar=True,
    help="See `models`. Several are compared.",
)

#: Whether scores are propagated before labels are decided.
propagate_option = click.option(
    "--propagate/--no-propagate",
    default=False,
    show_default=True,
    help="First draw scores together where the picture has no edge, as PEARL does.",
)

#: Fields of `ModelOptions` beside the model and the method.
_SHARED = ("device", "precision", "short_side_px", "model_dir")

_SHARED_OPTIONS = (
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
    ),
    click.option(
        "--precision",
        default="auto",
        show_default=True,
        help="auto, fp32, fp16, bf16.",
    ),
    click.option(
        "--short-side",
        "short_side_px",
        default=448,
        show_default=True,
        type=click.IntRange(min=1),
        help="Resize the short side to this many px; more sees smaller things and takes longer.",
    ),
    click.option(
        "--model-dir",
        type=click.Path(path_type=Path),
        help=f"{MODEL_DIR_HELP} Words that were embedded once are kept in one that is given.",
    ),
)


#: Options that choose a model and a method; and a model alone, where many methods are measured.
model_options = as_one(ModelOptions, (_MODEL, _METHOD, *_SHARED_OPTIONS), "options")
many_method_options = as_one(ModelOptions, (_MODEL, *_SHARED_OPTIONS), "options")


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


_DATA_OPTIONS = (
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="Folder of the data set, laid out as for MMSegmentation.",
    ),
    click.option(
        "--names",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Other words for the classes: one line a class, several words separated by commas. "
        "Of --images: what the mask values stand for, one line a value.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        help="Measure only this many of the first pictures; of --images, spread over all.",
    ),
)


def data_options(required: bool) -> Callable[[_Command], _Command]:
    """Give a command the options that choose a benchmark, as one `DataOptions` argument."""
    from clearclip_core.evaluation.benchmarks import BENCHMARKS, SCENES

    benchmark = click.option(
        "--benchmark",
        required=required,
        type=click.Choice(list(BENCHMARKS)),
        help=f"What to measure on; demo is {SCENES} drawn scenes, for the demo model.",
    )
    return as_one(DataOptions, (benchmark, *_DATA_OPTIONS), "data")


class ImageFileError(ValueError):
    """A file that cannot be read as an image; the message names the file and the reason."""


def read_image(path: Path) -> RGBArray:
    """Read an image file into (H, W, 3) uint8 RGB.

    Raises:
        ImageFileError: the file cannot be read, or is larger than Pillow's limit.
    """
    try:
        with open_image(path) as image:
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path}: {error}") from error


class ImageSource:
    """Images of files, then drawn scenes; can be iterated several times.

    A file that cannot be read is left out; its error is printed once.

    Args:
        scenes: number of scenes that are drawn after them.
    """

    def __init__(self, paths: Sequence[Path], scenes: int = 0) -> None:
        self._paths = tuple(paths)
        self._seeds = HELD_OUT_SEEDS[:scenes]
        self.failed: set[Path] = set()

    def __len__(self) -> int:
        return len(self._paths) + len(self._seeds)

    def __iter__(self) -> Iterator[RGBArray]:
        for path in self._paths:
            try:
                image = read_image(path)
            except ImageFileError as error:
                self._note_failure(path, error)
                continue
            yield image
        for seed in self._seeds:
            yield render_scene(seed).image

    @property
    def names(self) -> list[str]:
        """Names of the images that could be read, in order."""
        files = [str(path) for path in self._paths if path not in self.failed]
        return files + [f"drawn scene {seed}" for seed in self._seeds]

    def _note_failure(self, path: Path, error: ImageFileError) -> None:
        if path not in self.failed:
            click.echo(str(error), err=True)
        self.failed.add(path)
