"""`clearclip segment`: write label maps and overlays of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from clearclip_core.cli.options import (
    FiniteRange,
    ModelOptions,
    click_errors,
    model_dir_option,
    model_options,
)
from clearclip_core.images.files import RESULT_SUFFIXES, find_images, output_names
from clearclip_core.images.label_maps import NONE_VALUE
from clearclip_core.images.preprocessing import RGBArray
from clearclip_core.quantities import quantity
from clearclip_core.vocabulary import Label

if TYPE_CHECKING:
    from clearclip_core.clip.weights import KnownModel
    from clearclip_core.segmentation.segmentation import Segmentation


@click.command()
@click.argument("pictures", nargs=-1, required=True)
@click.option(
    "--labels",
    required=True,
    help='What to look for: "sky,tree,horse"; prompts of a label: "sofa=sofa|couch,cat".',
)
@model_options
@click.option(
    "--contrast/--no-contrast",
    default=False,
    show_default=True,
    help="Let generic words compete, so that pixels that no label fits get none.",
)
@click.option(
    "--threshold",
    default=0.0,
    show_default=True,
    type=FiniteRange(0, 1),
    help="Pixels less likely than this get no label.",
)
@click.option(
    "--refine/--no-refine",
    default=True,
    show_default=True,
    help="Let masks follow the picture's edges; without, they are the paper's.",
)
@click.option(
    "--propagate/--no-propagate",
    default=False,
    show_default=True,
    help="First draw scores together where the picture has no edge, as PEARL does.",
)
@click.option(
    "-o",
    "--out",
    default="out",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results.",
)
def segment(
    *,
    options: ModelOptions,
    pictures: tuple[str, ...],
    labels: str,
    contrast: bool,
    threshold: float,
    refine: bool,
    propagate: bool,
    out: Path,
) -> None:
    """Write a label map and an overlay of each picture.

    PICTURES are files, folders or globs. The results of photo.jpg are photo.labels.png, a grey
    image whose values are label indices and 255 for none, and photo.overlay.png. Where two
    pictures have the same name, the results of all pictures keep folder and suffix:
    a/photo.jpg.labels.png.
    """
    vocabulary = parse_labels(labels)
    paths = find_images(pictures)
    segmenter = options.load()

    names = dict(zip(paths, output_names(paths), strict=True))
    written = 0
    for found in segmenter.segment_all(
        paths,
        vocabulary,
        contrast=contrast,
        threshold=threshold,
        refine=refine,
        propagate=propagate,
        progress=len(paths) > 1,
        on_error=lambda path, error: click.echo(f"{path}: {error}", err=True),
    ):
        write_segmentation(out / names[Path(str(found.source))], found.image, found.result)
        written += 1

    failed = len(paths) - written
    click.echo(f"{quantity(written, 'picture')} segmented into {out}, {failed} failed.")
    if failed:
        raise SystemExit(1)


def write_segmentation(target: Path, image: RGBArray, result: Segmentation) -> None:
    """Write the label map and the overlay of an image to `target`, to which suffixes are added."""
    label_map_suffix, overlay_suffix = RESULT_SUFFIXES
    target.parent.mkdir(parents=True, exist_ok=True)
    result.save(f"{target}{label_map_suffix}")
    result.overlay(image).save(f"{target}{overlay_suffix}")


def parse_labels(text: str) -> tuple[Label, ...]:
    """Parse the labels of a command line, and their prompts.

    Raises:
        click.BadParameter: no label, a label without a name, the same name twice, or more labels
            than a label map can hold.

    >>> [label.prompts for label in parse_labels("sofa=sofa|couch, cat")]
    [('sofa', 'couch'), ('cat',)]
    """
    labels = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, prompts = (piece.strip() for piece in part.partition("="))
        words = tuple(filter(None, (prompt.strip() for prompt in prompts.split("|"))))
        try:
            labels.append(Label(name, words))
        except ValueError as error:
            raise click.BadParameter(f"{part!r} names no label.") from error
    names = [label.name for label in labels]
    if not names or len(set(names)) != len(names):
        raise click.BadParameter(f"expected one or more different labels, but got {text!r}.")
    if len(names) > NONE_VALUE:
        raise click.BadParameter(f"expected at most {NONE_VALUE} labels, but got {len(names)}.")
    return tuple(labels)


_MODELS_HEAD: Final = (
    f"{'MODEL':48} {'FAMILY':10} {'IMAGE+TEXT':>11} {'MEMORY':>8}  {'LICENCE':18} ON DISK"
)
_MODELS_FOOT: Final = (
    "MEMORY: weights and a batch of windows in fp32; half of that in fp16. LICENCE: as publishers "
    "state it.\nOf all these only demo was ever run with its weights by this project's authors."
)


@click.command()
@click.option("--download", metavar="NAME", help="Fetch these weights, such as ViT-B-16/openai.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder to fetch them to.")
@model_dir_option
def models(download: str | None, folder: Path | None, model_dir: Path | None) -> None:
    """List models, their licences and what is on disk; or fetch one for another machine."""
    from clearclip_core.clip.weights import download_weights, known_click_models, known_models

    if download is not None:
        if folder is None:
            raise click.UsageError("--download needs --to FOLDER.")
        with click_errors():
            click.echo(download_weights(download, folder))
        return
    click.echo(_MODELS_HEAD)
    for model in (*known_models(model_dir), *known_click_models(model_dir)):
        click.echo(_model_row(model))
    click.echo(f"\n{_MODELS_FOOT}")


def _model_row(model: KnownModel) -> str:
    """Return the line of a model."""
    size = "-" if model.size is None else str(model.size)
    memory_gb = None if model.size is None else model.size.memory_gb
    memory = "-" if memory_gb is None else f"{memory_gb:.1f} GB"
    needs = f"  needs [{model.needs}]" if model.needs else ""
    kind = f"{model.name:48} {model.family:10}"
    return f"{kind} {size:>11} {memory:>8}  {model.licence:18} {model.path or '-'}{needs}"
