"""The options of every command that loads a model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from clearclip_core.cli.errors import click_errors
from clearclip_core.clip.loading import LoadedModel, load_model
from clearclip_core.clip.methods import METHODS
from clearclip_core.clip.weights import DEFAULT_FOLDER, WeightsNotFoundError
from clearclip_core.segmenter import Segmenter

_DEFAULT_METHOD = "clearclip"
_DEFAULT_MODEL = "ViT-B-16/openai"

MODEL_DIR_HELP = (
    f"Folder of fetched weights; by default an ARCH/TAG is looked for in {DEFAULT_FOLDER}."
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
        with click_errors((ValueError, WeightsNotFoundError)):
            segmenter = Segmenter.load(
                self.model,
                self.method,
                self.device,
                self.precision,
                self.short_side_px,
                self.model_dir,
            )
        _print_notice(segmenter.model)
        return segmenter

    def load_model(self) -> LoadedModel:
        """Load the model without a segmenter and print its notice.

        Raises:
            click.ClickException: `load_model` failed; the message is its.
        """
        with click_errors((ValueError, WeightsNotFoundError)):
            model = load_model(self.model, self.device, self.precision, self.model_dir)
        _print_notice(model)
        return model


def _print_notice(model: LoadedModel) -> None:
    if model.notice:
        click.echo(model.notice, err=True)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose a model, as one `ModelOptions` argument."""
    return _with_options(command, _MODEL_OPTIONS)


def many_method_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `model_options` without ``--method``.

    For commands that measure many methods and ignore `ModelOptions.method`.
    """
    return _with_options(command, [each for each in _MODEL_OPTIONS if each is not _METHOD])


def several_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `model_options`; ``--model`` and ``--method`` may be repeated.

    The command gets a tuple of `ModelOptions`: the methods of the first model, then those of the
    next.
    """

    @functools.wraps(command)
    def combined(models: tuple[str, ...], methods: tuple[str, ...], **arguments: Any) -> None:
        shared = {name: arguments.pop(name) for name in _SHARED}
        pairs = itertools.product(dict.fromkeys(models), dict.fromkeys(methods))
        command(
            tuple(ModelOptions(model=model, method=method, **shared) for model, method in pairs),
            **arguments,
        )

    for option in (*reversed(_MODEL_OPTIONS[2:]), _METHODS, _MODELS):
        combined = option(combined)
    return combined


def _with_options(
    command: Callable[..., None], options: Sequence[Callable[[Any], Any]]
) -> Callable[..., None]:
    names = [field.name for field in fields(ModelOptions)]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        chosen = {name: arguments.pop(name) for name in names if name in arguments}
        command(ModelOptions(**chosen), **arguments)

    for option in reversed(options):
        with_options = option(with_options)
    return with_options


_METHOD = click.option(
    "--method",
    default=_DEFAULT_METHOD,
    show_default=True,
    help=f"{', '.join(METHODS)}, or one spelled out: qk-res-a2.",
)

_METHODS = click.option(
    "--method",
    "methods",
    multiple=True,
    default=(_DEFAULT_METHOD,),
    show_default=True,
    help=f"{', '.join(METHODS)}, or one spelled out: qk-res-a2. Several are compared.",
)

_MODELS = click.option(
    "--model",
    "models",
    multiple=True,
    default=(_DEFAULT_MODEL,),
    show_default=True,
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

_MODEL_OPTIONS = (
    click.option("--model", default=_DEFAULT_MODEL, show_default=True, help="See `models`."),
    _METHOD,
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
